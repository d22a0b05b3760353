"""Moving containers between storage drivers: nothing of their files is lost, whatever kind they are and whenever it is killed.

What must show: a workload's container is stopped, migrated overlay → aufs → vfs → overlay and started each time; its tree, extended
attributes, hard links and diff are the same at the end; the same with `kill -9` at twenty moments and more.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import leaks
import pytest
from cases import DRIVERS, Lamina, wait_until
from test_show_9_kill import run_killed, traced_calls, wait_for_processes

from lamina.api.entries import Change, Entry, LayerReader, Trees
from lamina.api.hookspecs import hookimpl
from lamina.archive.apply import apply_layer
from lamina.archive.treefacts import digest_of, read_tree
from lamina.engine import Engine
from lamina.errors import IntegrityError
from lamina.linux import mountinfo
from lamina.testing import tree
from lamina.testing.tree import ACCESS_ACL, ACL, DEFAULT_ACL, FILE_CAPABILITY, Facts

WORKLOAD = """
if [ ! -e /done ]; then
    echo written over >> /files/plain                     # the image has it under two names: on a union the link breaks
    ln /files/owned /files/owned-too                      # a new name of the image's file
    echo new > /new; ln /new /also-new; ln /new /files/new-too
    : >> /files/noted                                     # copied up, and no different
    rm /files/doomed; rm -r /tree; mkdir /tree; echo mine > /tree/mine
    rm -r /test/deep; ln -s /files /test/deep             # a directory becomes a symlink
    rm /single; mkdir /single; echo x > /single/below     # and a file a directory
    chown 1000:10 /files/setuid; chmod 6711 /files/setuid
    mkfifo -m 600 /pipe; ln /pipe /pipe-too; mknod /null c 1 3; ln -s nowhere /dangling; ln /dangling /dangling-too
    mkdir -p /a/b/c; chmod 2770 /a/b; touch -d @1000000000 /a/b/c
    dd if=/dev/zero of=/holes bs=1 count=0 seek=1000000 2>/dev/null; echo end >> /holes
    echo 1 > "/grün und blau"; echo 2 > "/$(printf 'a\\377b')"
    touch /done
fi
echo ready
exec sleep 1000000
"""
CYCLE = {"overlay": "aufs", "aufs": "vfs", "vfs": "overlay"}


def harm_from_outside(root: Path) -> None:
    """What busybox can't do: extended attributes, ACLs, file capabilities, sockets, odd times."""
    os.setxattr(root / "new", "user.note", b"of the container")
    os.setxattr(root / "files/owned", "user.added", b"\0\1")
    os.setxattr(root / "files/noted", "user.note", b"from the image")  # as it was
    os.setxattr(root / "a/b", DEFAULT_ACL, ACL)
    os.setxattr(root / "a/b/c", ACCESS_ACL, ACL)
    os.setxattr(root / "files/setuid", "security.capability", FILE_CAPABILITY)
    os.setxattr(root / "dangling", "trusted.note", b"of a symlink", follow_symlinks=False)
    for place in ("socket", "a/b/socket"):
        with socket.socket(socket.AF_UNIX) as server:
            folder_fd = os.open((root / place).parent, os.O_PATH)
            server.bind(f"/proc/self/fd/{folder_fd}/{Path(place).name}")
            os.close(folder_fd)
    os.chmod(root / "socket", 0o640)
    os.chown(root / "socket", 1000, 10)
    os.link(root / "socket", root / "socket-too")
    os.utime(root / "a/b/socket", ns=(1, 1_234_567_890_123_456_789))
    os.utime(root / "a/b", ns=(1, 1_111_111_111_000_000_001))
    os.utime(root, ns=(1, 1_222_222_222_000_000_001))


def work(lamina: Lamina) -> None:
    """Run the workload in a new container `work`, and stop it."""
    lamina.background("--name", "work", "base", "sh", "-c", WORKLOAD)
    wait_until(lambda: "ready" in lamina("logs", "work"), "the workload")
    harm_from_outside(lamina.merged("work"))
    lamina("stop", "-t", "0", "work")


def seen(lamina: Lamina, name: str = "work") -> dict[str, Facts]:
    """All that a layer has to keep of a container's tree, read by the conformance kit's reader, which migrate doesn't use."""
    with lamina.library() as engine:
        return seen_by(engine, name)


def seen_by(engine: Engine, name: str = "work") -> dict[str, Facts]:
    record, layers = engine.containers.get(name).record, engine.context.layers
    with layers.seen(layers.driver(record.driver), record.id, record.parents) as root:
        return tree.read(root)


def changes(lamina: Lamina, name: str = "work") -> list[Change]:
    with lamina.library() as engine:
        return engine.containers.get(name).diff()


def same(found: dict[str, Facts], wanted: dict[str, Facts], when: str) -> None:
    assert not tree.differences(found, wanted), f"{when}: {tree.differences(found, wanted)[:5]}"


def test_a_workload_goes_round_all_drivers_and_is_the_same_at_the_end(lamina: Lamina) -> None:
    work(lamina)
    wanted, wanted_changes = seen(lamina), changes(lamina)
    assert len(wanted_changes) > 25
    assert wanted["files/plain"].names == ("files/plain",) if lamina.driver != "vfs" else ("files/plain", "files/twin")
    assert len(wanted["new"].names) == 3 and dict(wanted["new"].xattrs)["user.note"] == b"of the container"
    source = lamina.driver
    for _ in DRIVERS:
        target = CYCLE[source]
        done = lamina.result("migrate", "--to", target, "work")
        assert (done.returncode, done.stdout) == (0, "work\n"), done.stderr
        assert "proving" in done.stderr and f"moved from {source} to {target}" in done.stderr
        assert lamina.show("work", "{{ .GraphDriver.Name }}") == target
        same(seen(lamina), wanted, f"{source} to {target}")
        assert changes(lamina) == wanted_changes
        assert not [key for key in keys(lamina, source) if key == lamina.document("work")["Id"]], "the old layer is still there"
        lamina("start", "work")
        assert lamina("exec", "work", "cat", "/files/plain", "/tree/mine", "/files/new-too") == "plain\nwritten over\nmine\nnew"
        assert lamina("exec", "work", "ls", "/tree") == "mine"
        lamina("stop", "-t", "0", "work")
        same(seen(lamina), wanted, f"started on {target}")
        assert changes(lamina) == wanted_changes
        source = target
    assert source == lamina.driver


def keys(lamina: Lamina, driver: str) -> list[str]:
    with lamina.library() as engine:
        return list(engine.context.layers.driver(driver).keys())


@pytest.mark.parametrize("target", DRIVERS)
def test_a_move_and_a_move_back_are_as_if_nothing_had_been(lamina: Lamina, target: str) -> None:
    if target == lamina.driver:
        assert "is on" in lamina.result("migrate", "--to", target, make_idle(lamina)).stderr
        return
    work(lamina)
    wanted, wanted_changes = seen(lamina), changes(lamina)
    digest = tree_digest(lamina)
    lamina("migrate", "-q", "--to", target, "work")
    assert tree_digest(lamina) == digest
    lamina("migrate", "-q", "--to", lamina.driver, "work")
    same(seen(lamina), wanted, "there and back")
    assert changes(lamina) == wanted_changes
    assert tree_digest(lamina) == digest
    committed = {}
    for driver in (target, lamina.driver):  # a commit is the same, too
        lamina("migrate", "-q", "--to", driver, "work")
        with lamina.library() as engine:
            committed[driver] = lamina.diff_ids(str(engine.containers.get("work").commit(f"from-{driver}").id))[-1]
    assert committed[target] == committed[lamina.driver]


def test_what_a_power_cut_has_kept_without_its_record_is_discarded(lamina: Lamina) -> None:
    target = "vfs" if lamina.driver != "vfs" else "overlay"
    make_idle(lamina)
    with lamina.library() as engine:
        record, driver = engine.containers.get("idle").record, engine.context.layers.driver(target)
        driver.make_home()
        driver.prepare(record.id, (), {})  # of which no row tells
    lamina("migrate", "-q", "--to", target, "idle")
    assert lamina("start", "-a", "idle") == ""
    assert lamina("diff", "idle") == ""


def make_idle(lamina: Lamina, name: str = "idle", image: str = "busybox", *words: str) -> str:
    lamina("create", "--name", name, image, *(words or ("true",)))
    return name


def tree_digest(lamina: Lamina) -> str:
    with lamina.library() as engine:
        record, layers = engine.containers.get("work").record, engine.context.layers
        with layers.seen(layers.driver(record.driver), record.id, record.parents) as root:
            return digest_of(read_tree(root))


def test_a_running_container_is_refused_or_restarted(lamina: Lamina) -> None:
    target = CYCLE[lamina.driver]
    lamina.background("--stop-timeout", "0", "--name", "runs", "busybox", "sh", "-c", "echo x >> /log; exec sleep 1000000")
    wait_until(lambda: lamina("exec", "runs", "cat", "/log") == "x", "the log")
    assert "'runs' is running" in lamina.error("migrate", "-q", "--to", target, "runs", code=1)
    assert lamina.status("runs") == "running"
    lamina("migrate", "--to", target, "--restart", "runs")
    assert lamina.status("runs") == "running"
    assert lamina.show("runs", "{{ .GraphDriver.Name }}") == target
    wait_until(lambda: lamina("exec", "runs", "cat", "/log") == "x\nx", "the second start")


def test_all_moves_every_container_that_is_elsewhere(lamina: Lamina) -> None:
    target = CYCLE[lamina.driver]
    for name in ("one", "two", "three"):
        make_idle(lamina, name)
    lamina("migrate", "-q", "--to", target, "two")
    lamina.background("--stop-timeout", "0", "--name", "runs", "busybox", "sleep", "1000000")
    done = lamina.result("migrate", "-q", "--to", target, "--all")
    assert done.returncode == 1
    assert sorted(done.stdout.split()) == ["one", "three"]
    assert done.stderr.count("\n") == 1 and "'runs' is running" in done.stderr
    assert lamina("migrate", "-q", "--to", target, "--all", "--restart") == "runs"
    assert lamina("migrate", "-q", "--to", target, "--all") == ""


@pytest.mark.parametrize("name", [".wh.hidden", "n" * 250])
def test_a_name_that_the_target_forbids_is_told_before_anything_is_made(lamina: Lamina, name: str) -> None:
    if lamina.driver == "aufs":
        lamina.driver = "vfs"
    lamina("run", "--name", "named", "busybox", "sh", "-c", f"mkdir -p /some/where; echo x > /some/where/{name}")
    had_home = (lamina.root / "aufs").exists()
    line = lamina.error("migrate", "--to", "aufs", "-q", "named", code=1)
    assert f"can't hold '/some/where/{name}'" in line
    assert lamina.show("named", "{{ .GraphDriver.Name }}") == lamina.driver
    assert had_home or not keys(lamina, "aufs"), "something was made on aufs"
    other = "vfs" if lamina.driver == "overlay" else "overlay"
    lamina("migrate", "-q", "--to", other, "named")
    lamina("cp", f"named:/some/where/{name}", str(lamina.root / "copied"))


def test_what_cannot_be_asked_is_told_in_one_line(lamina: Lamina) -> None:
    make_idle(lamina)
    assert "'nowhere'" in lamina.error("migrate", "--to", "nowhere", "idle", code=1)
    assert "'nothing'" in lamina.error("migrate", "--to", CYCLE[lamina.driver], "nothing", code=1)
    assert "--all" in lamina.error("migrate", "--to", CYCLE[lamina.driver], code=1)
    assert "--all" in lamina.error("migrate", "--to", CYCLE[lamina.driver], "--all", "idle", code=1)


class Filtered:
    """A layer's entries without extended attributes."""

    def __init__(self, entries: LayerReader) -> None:
        self._entries = entries
        self.copy_to, self.open = entries.copy_to, entries.open

    def __iter__(self) -> Iterator[Entry]:
        for entry in self._entries:
            entry.xattrs = {}
            yield entry


def test_a_driver_that_loses_something_is_found_out_and_the_container_stays(lamina: Lamina) -> None:
    from lamina_vfs.driver import VfsDriver

    class Lossy(VfsDriver):
        name = "lossy"

        @hookimpl
        def storage_apply(self, entries: LayerReader, trees: Trees) -> bool:
            from lamina.api.types import WhiteoutFormat

            apply_layer(Filtered(entries), into=trees.layer, whiteouts=WhiteoutFormat.NONE, parent=lambda: None)
            return True

    work(lamina)
    wanted, wanted_changes = seen(lamina), changes(lamina)
    with lamina.library() as engine:
        engine.context.host.register(Lossy(), "storage.lossy")
        handle = engine.containers.get("work")
        with pytest.raises(IntegrityError, match=r"can't be moved to lossy: '/.*' would differ in its xattrs"):
            handle.migrate("lossy")
        assert handle.record.driver == lamina.driver
        assert handle.id not in set(engine.context.layers.driver("lossy").keys())
        assert not leaks.rows(lamina.root, "SELECT * FROM operations")
        for key in [key for driver, key, _parent, _state in engine.context.layers.records() if driver == "lossy"][::-1]:
            with engine.context.database.transaction() as tx:  # its image layers go with the test
                tx.execute("DELETE FROM layers WHERE driver = 'lossy' AND key = ?", (key,))
        shutil.rmtree(engine.context.layers.driver("lossy").home)
    same(seen(lamina), wanted, "after the failure")
    assert changes(lamina) == wanted_changes


# Killed.

PROGRAM = """
import os, sys
from lamina.engine import Engine
engine = Engine(root_dir=sys.argv[1], warn=print)
engine.containers.get('work').migrate(sys.argv[2])
os._exit(0)
"""


@pytest.mark.timeout(3600)
def test_a_kill_at_any_call_leaves_the_old_state_or_the_new_one(
    tmp_path: Path, prepared_roots: dict[str, Path], own_mounts: None
) -> None:
    long_form = os.environ.get("LAMINA_KILLS") == "all"
    lamina = Lamina(tmp_path / "root", "overlay")
    subprocess.run(["cp", "--archive", "--reflink=auto", str(prepared_roots["overlay"]), str(lamina.root)], check=True)
    work(lamina)
    wanted, wanted_changes = seen(lamina), changes(lamina)
    killed = ended_old = ended_new = 0
    for source, target in CYCLE.items():
        lamina("migrate", "-q", "--to", target, "work")  # so that the image is unpacked there, and a run is the container's alone
        lamina("migrate", "-q", "--to", source, "work")
        calls = list(traced_calls(PROGRAM, str(lamina.root), target, tmp_path / "trace"))
        assert len(calls) > 20, calls
        lamina("migrate", "-q", "--to", source, "work")
        chosen = calls if long_form else sample(calls, 8)
        for name, number in chosen:
            when = f"{source} to {target}, killed at {name} number {number}"
            was_killed = run_killed(PROGRAM, str(lamina.root), target, name, number)
            killed += was_killed
            wait_for_processes(str(lamina.root), when)
            now = check(lamina, when, {source, target}, wanted, wanted_changes)
            ended_old, ended_new = ended_old + (now == source), ended_new + (now == target)
            if now == target:
                lamina("migrate", "-q", "--to", source, "work")
        lamina("migrate", "-q", "--to", target, "work")
        lamina("start", "work")
        assert lamina("exec", "work", "cat", "/tree/mine") == "mine"
        lamina("stop", "-t", "0", "work")
    same(seen(lamina), wanted, "at the end")
    assert changes(lamina) == wanted_changes
    assert killed >= 20 and ended_old and ended_new, (killed, ended_old, ended_new)
    print(f"{killed} kills: {ended_old} left the old state, {ended_new} the new", file=sys.stderr)


def sample(calls: Sequence[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """Some calls of the whole run at random, always the same ones, and the last ones, where the state turns."""
    chosen = random.Random(0).sample(range(len(calls) - 2), count - 2)
    return [calls[each] for each in sorted(chosen)] + list(calls[-2:])


def check(lamina: Lamina, when: str, drivers: set[str], wanted: dict[str, Facts], wanted_changes: list[Change]) -> str:
    """Open the store as the next command does, and hold it and the disk against what must be."""
    warnings: list[str] = []
    with Engine(root_dir=str(lamina.root), storage_driver="overlay", warn=warnings.append) as engine:
        assert not warnings, f"{when}: {warnings}"
        record = engine.containers.get("work").record
        assert record.driver in drivers and record.status == "exited", f"{when}: {record.driver}, {record.status}"
        connection = engine.context.database.connection
        assert not connection.execute("SELECT * FROM operations").fetchall(), f"{when}: operations are left"
        rows = connection.execute("SELECT driver, state FROM layers WHERE key = ?", (record.id,)).fetchall()
        assert [tuple(row) for row in rows] == [(record.driver, "writable")], f"{when}: {[tuple(row) for row in rows]}"
        for name in DRIVERS:
            driver = engine.context.layers.driver(name)
            if os.path.isdir(driver.home):
                known = {row["key"] for row in connection.execute("SELECT key FROM layers WHERE driver = ?", (name,))}
                assert set(driver.keys()) == known, f"{when}: the folder of {name} and the database differ"
                trash = os.path.join(driver.home, "trash")
                assert not os.path.isdir(trash) or not os.listdir(trash), f"{when}: {trash} isn't empty"
        same(seen_by(engine), wanted, when)
        assert engine.containers.get("work").diff() == wanted_changes, when
        left = [each.target for each in mountinfo.mounts() if each.target.startswith(f"{lamina.root}/")]
        assert not left, f"{when}: mounts are left: {left}"
        return record.driver
