"""A Python environment that isn't ours: lamina installed in it as anyone installs it, and other people's packages beside it.

pip gets what it needs (hatchling, and lamina's dependencies) from wherever this machine's pip is set up to get it.
"""

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]


class Environment:
    """A fresh virtual environment with lamina and what its kit needs, and a command line that is that environment's."""

    def __init__(self, place: Path) -> None:
        self.place = place
        run(sys.executable, "-m", "venv", "--without-pip", place)
        self.pip(f"{TOP}[testing]")

    def pip(self, *what: str | Path) -> None:
        """`pip install` into this environment, by our pip."""
        run(sys.executable, "-m", "pip", "--python", self.place, "install", "--quiet", *what, timeout_s=300)

    def __call__(self, program: str, *words: str | Path, code: int = 0, cwd: Path | None = None, timeout_s: float = 60) -> str:
        """Run a program of the environment, which must end with `code`; gives what it printed."""
        return run(self.place / "bin" / program, *words, code=code, cwd=cwd, timeout_s=timeout_s)


def run(*words: str | Path, code: int = 0, cwd: Path | None = None, timeout_s: float = 60) -> str:
    """Run a command with nothing of this checkout in its environment."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "LAMINA", "PYTEST"))
    }
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, env=clean, cwd=cwd or "/", timeout=timeout_s, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code, f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout
