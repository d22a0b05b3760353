"""A git repository as ADD takes it: one commit's files, fetched by the program `git`, which must be installed.

Git asks for nothing here: no password, no host key. What a repository's own configuration could run isn't run: hooks come with no
clone, and submodules only over the network (`protocol.file.allow` is git's default).
"""

import os
from typing import TYPE_CHECKING

from lamina.archive import paths
from lamina.build.sources import shown_url
from lamina.errors import IntegrityError, NotFoundError, NotUsableError, TransferError, UsageError
from lamina.linux.fs import remove_tree

if TYPE_CHECKING:
    from lamina.build.download import GitSource


def clone(source: "GitSource", directory: str, *, checksum: str, keep_git_dir: bool) -> None:
    """Check a commit out in an empty directory. `checksum` is the commit, or the beginning of its name."""
    if checksum and (set(checksum) - set("0123456789abcdef") or len(checksum) > 64):
        raise UsageError(f"not a commit: '{paths.shown(checksum[:100])}'", hint="write a commit's hexadecimal digits")
    git = _Git(directory, shown_url(source.remote))
    git.run("init", "--quiet")
    git.run("remote", "add", "origin", source.remote)
    wanted = source.ref or "HEAD"
    if not git.succeeds("fetch", "--quiet", "--depth", "1", "origin", wanted):
        # A commit by name can be fetched alone from some servers only, an abbreviated one from none.
        git.run("fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
        if not git.succeeds("rev-parse", "--quiet", "--verify", f"{wanted}^{{commit}}"):
            raise NotFoundError(f"'{git.shown}' has no branch, tag or commit '{paths.shown(wanted)}'")
        git.run("checkout", "--quiet", "--detach", wanted)
    else:
        git.run("checkout", "--quiet", "--detach", "FETCH_HEAD")
    commit = git.run("rev-parse", "HEAD").strip()
    if checksum and not commit.startswith(checksum):
        raise IntegrityError(f"'{git.shown}' has the commit {commit}, and --checksum says {checksum}")
    if os.path.lexists(os.path.join(directory, ".gitmodules")):
        git.run("submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1")
    if not keep_git_dir:
        remove_tree(os.path.join(directory, ".git"))


class _Git:
    def __init__(self, directory: str, shown: str) -> None:
        self._directory = directory
        self.shown = shown
        self._said = ""

    def run(self, *words: str) -> str:
        """Run git; gives its output. Raises `TransferError` with the last line of what it complained of."""
        if not self.succeeds(*words):
            lines = [line.strip() for line in self._said.splitlines() if line.strip()]
            told = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
            raise TransferError(f"git can't fetch '{self.shown}': {paths.shown(told[-1]) if told else 'it failed'}")
        return self._said

    def succeeds(self, *words: str) -> bool:
        """Run git and tell whether it did what was asked."""
        import subprocess  # 5 ms, and only git is run

        # Another repository than this one must not be meant, whatever directory or hook we are called from.
        env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes", "LC_ALL": "C"}
        try:
            done = subprocess.run(
                ["git", "-C", self._directory, "-c", "core.autocrlf=false", *words],
                env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False, umask=0o022,
            )  # fmt: skip
        except FileNotFoundError:
            raise NotUsableError(
                f"'{self.shown}' is a git repository, and the program 'git' is not installed", hint="install git"
            ) from None
        self._said = (done.stdout if done.returncode == 0 else done.stderr).decode("utf-8", "replace")
        return done.returncode == 0
