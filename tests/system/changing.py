"""Every command that changes a store, in one script, where each finds what those before it have made; for tests that break off.

A command line is run in a fork of the test's process, by the function that the program `lamina` calls: as true, without the time
that an interpreter takes to start.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import archives

from lamina.cli import main as cli

READ_ONLY = frozenset(
    [
        "attach", "compare", "completion", "diff", "events", "explain", "export", "history", "images", "info", "inspect", "logs",
        "port", "ps", "save", "stats", "top", "version", "wait", "driver_ls", "driver_doctor", "driver_inspect", "driver_new",
        "driver_test", "image_inspect", "network_inspect", "network_ls", "system_df", "system_unit", "volume_inspect", "volume_ls",
    ]
)  # fmt: skip
"""Modules of commands that change nothing in a store (`save`, `export` and `driver new` write elsewhere)."""
ELSEWHERE = {
    "copy": "writes to another place: tests/system/test_transports_bad.py breaks it off",
    "push": "writes to a registry: tests/system/test_registry.py breaks it off",
    "login": "the credentials are a file beside the store: tests/unit/test_registry_credentials.py",
    "logout": "the same",
    "adopt": "tests/system/test_adopt.py kills it",
    "system_check": "tests/system/test_check.py kills a repair",
    **dict.fromkeys(("network_connect", "network_disconnect", "network_repair"), "tests/system/test_network_kills.py kills it"),
}
"""Modules of commands that are broken off by tests of their own, and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One command line. `module` is the command's, by which the script is held against the table of commands."""

    name: str
    module: str
    words: tuple[str, ...]
    code: int = 0
    again: frozenset[int] = frozenset({0})
    """How it may end when it is said again, after it has been broken off."""
    is_partial: bool = False
    """Whether it may leave a part of what it does to a container's files, as cp(1) does."""


def script(place: Path, driver: str, other: str) -> list[Change]:
    """Give the script, for one storage driver; `other` is the one that a container is moved to. Makes in `place` what it reads."""
    files = _files(place)
    sh = ("sh", "-c", "mkdir -p /scratch; echo made > /scratch/made")

    def change(text: str, *words: str, module: str = "", code: int = 0, again: int = 0) -> Change:
        said = [files.get(word, word) for word in text.split()]
        return Change(
            name=text, module=module or said[0], words=(*said, *words), code=code, again=frozenset({0, code, again}),
            is_partial=said[0] == "cp",
        )  # fmt: skip

    return [
        change("load -q -i ARCHIVE"),
        change("create --name made base true", again=1),
        change("run --name ran base", *sh, again=125),
        change("commit ran one"),
        change("tag one two"),
        change("run --rm base true"),
        change("run --rm base nothing-of-that-name", code=127),
        change("create --rm --name passing base", *sh, again=1),
        change("start -a passing", again=1),
        change("volume create kept", module="volume_create"),
        change("create --name filled -v kept:/etc -v /tree base true", again=1),
        change("cp FILE made:/copied"),
        change("start -a filled"),
        change("build -q --network none -t built CONTEXT"),
        change("import ROOTFS imported"),
        change("pull -q LAYOUT"),
        change(f"migrate --to {other} made"),
        change("rename made moved", again=1),
        change("create --name doomed built true", again=1),
        change("network create inner", module="network_create", again=1),
        change("tag base name/two:x"),
        change("rmi two", again=1),
        change("rmi -f base", again=1),
        change("rm doomed", again=1),
        change("rm -v filled", again=1),
        change("volume rm kept", module="volume_rm", again=1),
        change("network rm inner", module="network_rm", again=1),
        change("rmi built", again=1),
        change("image prune -a -f", module="image_prune"),
        change("image bootstrap host", module="image_bootstrap"),
        change("load -q -i ARCHIVE"),
        change("create --name last base true", again=1),
        change("container prune -f", module="container_prune"),
        change("builder prune -a -f", module="builder_prune"),
        change("network create outer", module="network_create", again=1),
        change("network prune -f", module="network_prune"),
        change("volume create spare", module="volume_create"),
        change("volume prune -a -f", module="volume_prune"),
        change("load -q -i ARCHIVE"),
        change("run --name again base", *sh, again=125),
        change("system prune -a -f", module="system_prune"),
    ]


def running_script(policy: str) -> list[tuple[str, Change, frozenset[str]]]:
    """Give the commands for the container `alive` that runs: how it is before, the command, how it may be after a kill.

    `policy` is its restart policy; without one `system start` does nothing.
    """

    def change(before: str, text: str, *after: str, module: str = "") -> tuple[str, Change, frozenset[str]]:
        words = tuple(text.split())
        return before, Change(name=text, module=module or words[0], words=words), frozenset({before, *after})

    return [
        change("missing", f"run -d --restart {policy} --name alive base sleep 1000", "running", "exited"),
        change("running", "exec alive true"),
        change("running", "update --pids-limit 100 alive"),
        change("running", "pause alive", "paused"),
        change("paused", "unpause alive", "running"),
        change("running", "restart -t 0 alive", "exited"),
        change("running", "stop -t 0 alive", "exited"),
        change("exited", "start alive", "running"),
        change("running", "system stop -t 0", "shut down", module="system_stop"),
        change("running", "kill alive", "exited"),
        change("exited", "start alive", "running"),
        change("running", "rm -f alive", "exited", "missing"),
        *([] if policy == "no" else [change("shut down", "system start", "exited", "running", module="system_start")]),
    ]


def _files(place: Path) -> Mapping[str, str]:
    """Make what the script's commands read."""
    context = place / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(
        "FROM base\nCOPY file /from-context\nRUN mkdir /built && echo built > /built/file\nENV A=b\n"
    )
    (context / "file").write_text("from the context\n" * 2000)
    small = archives.busybox_layer("sh", "true", "echo", "mkdir", "sleep", "cat", "rm")
    upper = archives.layer({"tree": archives.folder(), "tree/a": "a\n", "tree/b": "b" * 9000, "etc/motd": "hello\n"})
    rootfs = place / "rootfs.tar"
    rootfs.write_bytes(archives.layer({"imported": "a file\n" * 3000, "empty": archives.folder()}))
    files = {
        "ARCHIVE": archives.image(place / "base.tar", "base:latest", [small, upper]),
        "FILE": context / "file", "CONTEXT": context, "ROOTFS": rootfs,
    }  # fmt: skip
    pulled = archives.image(place / "pulled.tar", "pulled:latest", [archives.layer({"pulled": "pulled\n" * 1000})])
    return {**{name: str(path) for name, path in files.items()}, "LAYOUT": f"docker-archive:{pulled}"}


def modules() -> set[str]:
    """Give the module of every command in the command line's tables."""
    return {*cli.TOP_COMMANDS.keys()} | {module for _, table in cli.GROUPS.values() for module, _ in table.values()}


def command_line(root: Path, driver: str, words: tuple[str, ...]) -> int:
    """Do what the program does with a command line on a root directory, in this process; gives the exit code."""
    return cli.main(["--root", str(root), "--storage-driver", driver, *words])


def in_a_fork(work: Callable[[], int | None], output: Path) -> int:
    """Run something in a fork of this process, its output in a file; gives the exit code, 1 for an exception (told there)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            redirect(output)
            code = work() or 0
        except BaseException:  # noqa: BLE001 - the parent tells it
            import traceback

            traceback.print_exc()
        finally:
            import sys

            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def redirect(output: Path) -> None:
    """Let this process read nothing and write to a file."""
    import sys

    for source, targets in (
        (os.open(os.devnull, os.O_RDONLY), (0,)),
        (os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), (1, 2)),
    ):
        for target in targets:
            os.dup2(source, target)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, mode, closefd=False) for fd, mode in ((0, "r"), (1, "w"), (2, "w")))


__all__ = ["ELSEWHERE", "READ_ONLY", "Change", "command_line", "in_a_fork", "modules", "redirect", "running_script", "script"]
