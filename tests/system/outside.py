"""A Python environment that isn't ours: lamina installed in it as anyone installs it, and other people's packages beside it.

pip gets what it needs (hatchling, and lamina's dependencies) from wherever this machine's pip is set up to get it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

TOP = Path(__file__).parents[2]


class Environment:
    """A virtual environment with lamina and what its kit needs, and a command line that is that environment's."""

    def __init__(self, place: Path) -> None:
        self.place = place

    @classmethod
    def made(cls, place: Path) -> Self:
        """Make one, by pip."""
        run(sys.executable, "-m", "venv", "--without-pip", place)
        environment = cls(place)
        environment.pip(f"{TOP}[testing]")
        return environment

    def copied(self, place: Path) -> Self:
        """Make one that is the same as this one but for where it is, which only the programs' first lines tell."""
        shutil.copytree(self.place, place, symlinks=True)
        for program in (place / "bin").iterdir():
            if not program.is_symlink():
                program.write_text(program.read_text(encoding="utf-8").replace(str(self.place), str(place)), encoding="utf-8")
        return type(self)(place)

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
    clean["LAMINA_NETWORK"] = "none"  # the machine's links and rules stay as they are
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, env=clean, cwd=cwd or "/", timeout=timeout_s, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code, f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout
