"""What tests of builds say things with: a context that is declared, and builds of it."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cases import Lamina


class Context:
    """A context's directory, and `lamina build` on it."""

    def __init__(self, lamina: Lamina, directory: Path, dockerfile: str = "", files: Mapping[str, str] | None = None) -> None:
        self.lamina = lamina
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.write({"Dockerfile": dockerfile, **(files or {})})

    def write(self, files: Mapping[str, str]) -> None:
        """Put files there."""
        for name, content in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")

    def result(self, *words: str, env: dict[str, str] | None = None, driver: str = "") -> subprocess.CompletedProcess[str]:
        """Build, however it ends."""
        return self.lamina.result("build", *words, str(self.directory), env=env, driver=driver)

    def build(self, *words: str, env: dict[str, str] | None = None, driver: str = "") -> str:
        """Build, and give what was told on standard error."""
        done = self.result(*words, env=env, driver=driver)
        assert done.returncode == 0, done.stderr
        assert "-q" in words or not done.stdout
        return done.stderr

    def id(self, *words: str, env: dict[str, str] | None = None, driver: str = "") -> str:
        """Build quietly, and give the image's id."""
        done = self.result("-q", *words, env=env, driver=driver)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return done.stdout.strip()

    def made(self, *words: str, env: dict[str, str] | None = None, driver: str = "") -> list[str]:
        """Build, and list the steps that weren't in the cache, by their instruction's first words."""
        told = self.build(*words, env=env, driver=driver)
        titles = dict(re.findall(r"^#(\d+) \[\S*? ?\d+/\d+\] (.*)$", told, re.MULTILINE))
        done = set(re.findall(r"^#(\d+) DONE", told, re.MULTILINE))
        return [title for number, title in titles.items() if number in done and not title.startswith("FROM ")]

    def error(self, *words: str, env: dict[str, str] | None = None) -> str:
        """Build what must fail, and give the last line."""
        done = self.result(*words, env=env)
        assert done.returncode == 1, f"{done.returncode}: {done.stderr}"
        line = done.stderr.splitlines()[-1]
        assert line.startswith("error: ")
        return line
