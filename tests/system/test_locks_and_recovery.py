"""Several engines at once on one root, roots with awkward paths, old kernels, and work that was left half done."""

import contextlib
import errno
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import leaks
import pytest
from cases import FOREVER, PROGRAM, Lamina, driver_of, each_driver

from lamina.engine import Engine
from lamina.errors import ConflictError, LaminaError
from lamina.linux import mount as lm
from lamina.linux import mountinfo, process
from lamina.linux.fs import remove_tree
from lamina.model.mount import Mount
from lamina.store import views
from lamina.store.operations import Operation, locked

DEAD_BOOT = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)


def ended(children: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    found = []
    for child in children:
        out, err = child.communicate(timeout=120)
        found.append((child.returncode, out, err))
    return found


def dead_operation(engine: Engine) -> int:
    """An operation as a killed command leaves it."""
    with engine.context.database.transaction() as tx:
        cursor = tx.execute("INSERT INTO operations (name, pid, started, boot) VALUES ('x', 1, 1, ?)", (DEAD_BOOT,))
    assert cursor.lastrowid is not None
    return cursor.lastrowid


# Several at once


@pytest.mark.timeout(180)
@each_driver
def test_twenty_runs_at_once_on_a_fresh_root_share_the_unpacking(
    driver: str, tmp_path: Path, prepared_roots: dict[str, Path], own_mounts: None
):
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["cp", "--archive", str(prepared_roots[driver] / "image"), str(root / "image")], check=True)
    archive = tmp_path / "busybox.tar"
    subprocess.run([PROGRAM, "--root", str(prepared_roots[driver]), "save", "-o", str(archive), "busybox"], check=True)
    remove_tree(str(root / "image"))
    lamina = Lamina(root, driver)
    loads = ended([start(*lamina.command("load", "-q", "-i", str(archive))) for _ in range(5)])
    assert [code for code, _, _ in loads] == [0] * 5, loads
    runs = ended([start(*lamina.command("run", "--rm", "busybox", "echo", str(number))) for number in range(20)])
    assert runs == [(0, f"{number}\n", "") for number in range(20)]
    layers = leaks.rows(root, f"SELECT key, state FROM layers WHERE driver = '{driver}'")
    assert {state for _, state in layers} == {"sealed"}
    assert leaks.left_on_disk(root) == []


@pytest.mark.timeout(120)
def test_of_two_creates_with_one_name_one_is_told_of_the_other(lamina: Lamina):
    for _ in range(4):
        found = ended([start(*lamina.command("create", "--name", "one", "-v", "/data", "busybox", "true")) for _ in range(4)])
        assert sorted(code for code, _, _ in found) == [0, 1, 1, 1], found
        for code, _, err in found:
            assert code == 0 or re.fullmatch(
                r"error: the container name 'one' is already in use by container '\w{12}' \(.*\)\n", err
            )
        assert len(lamina("volume", "ls", "-q").splitlines()) == 1
        lamina("rm", "-v", "one")
        assert lamina("volume", "ls", "-q") == ""


def test_a_taken_name_is_refused_before_a_volume_is_made(lamina: Lamina):
    lamina("create", "--name", "one", "busybox", "true")
    lamina.error("create", "--name", "one", "-v", "fresh:/data", "busybox", "true", code=1)
    assert lamina("volume", "ls", "-q") == ""


def test_a_create_that_fails_at_its_second_volume_leaves_no_first(lamina: Lamina):
    mounts = ("-v", "/first", "--mount", "type=volume,target=/second,volume-driver=nope")
    assert "'nope'" in lamina.error("create", *mounts, "busybox", "true", code=1)
    assert lamina("volume", "ls", "-q") == ""


@pytest.mark.timeout(180)
@each_driver
def test_an_image_that_is_removed_meanwhile_gives_a_whole_container_or_a_clear_error(lamina: Lamina, tmp_path: Path):
    archive = tmp_path / "busybox.tar"
    lamina("save", "-o", str(archive), "busybox")
    outcomes = set()
    for number in range(12):
        remover = start(*lamina.command("rmi", "busybox"))
        time.sleep(number % 6 * 0.02)
        ((code, out, err),) = ended([start(*lamina.command("run", "--rm", "busybox", "echo", "whole"))])
        assert (code, out, err) == (0, "whole\n", "") or (
            code == 125 and re.search(r"no such image: 'busybox'|no such image", err)
        ), err
        outcomes.add(code)
        ((removed, _, why),) = ended([remover])
        assert removed == 0 or "in use" in why or "container" in why, why
        lamina("load", "-q", "-i", str(archive))
    assert outcomes


@each_driver
def test_layers_that_are_discarded_between_unpacking_and_recording_are_unpacked_again(lamina: Lamina):
    """The moment that the race above hardly ever meets, made sure of: nothing holds the layers yet, and another takes them."""
    with lamina.library() as engine, lamina.library() as other:
        unpack = engine.creation.unpack_image
        rounds = []

        def unpack_and_lose(*arguments) -> None:
            unpack(*arguments)
            rounds.append(1)
            if len(rounds) == 1:
                assert other.system.discard_unused_layers()[0]

        engine.creation.unpack_image = unpack_and_lose  # type: ignore[method-assign]
        container = engine.containers.create("busybox", ["cat", "/etc/passwd"])
        assert len(rounds) == 2
        assert container.start_attached() == 0


@each_driver
def test_an_image_that_goes_between_unpacking_and_recording_is_said_to_be_gone(lamina: Lamina):
    with lamina.library() as engine, lamina.library() as other:
        unpack = engine.creation.unpack_image

        def unpack_and_lose(*arguments) -> None:
            unpack(*arguments)
            other.images.remove("busybox", force=True)

        engine.creation.unpack_image = unpack_and_lose  # type: ignore[method-assign]
        with pytest.raises(LaminaError, match="no such image"):
            engine.containers.create("busybox", ["true"])
    assert leaks.left_on_disk(lamina.root) == []


def test_two_engines_in_one_process_see_the_same(lamina: Lamina):
    with lamina.library() as first, lamina.library() as second:
        container = first.containers.create("busybox", FOREVER, name="both")
        with pytest.raises(ConflictError):
            second.containers.create("busybox", ["true"], name="both")
        second.containers.get("both").start()
        assert container.status == "running"
        container.remove(force=True)
        assert second.containers.all() == []


# What was left half done


def test_an_unpack_that_fails_leaves_nothing_and_the_next_one_works(lamina: Lamina):
    with lamina.library() as engine:
        engine.system.discard_unused_layers()
        (image,) = [each for each in engine.images.store.images() if engine.images.store.names(each)[0].familiar_name == "busybox"]
        blob = engine.images.store.content.blob_path(engine.images.store.layers(image)[-1].digest)
        whole = Path(blob).read_bytes()
    for damaged in (whole[:-100], whole[: len(whole) // 2] + b"\0" * 64 + whole[len(whole) // 2 + 64 :], b""):
        os.chmod(blob, 0o644)
        Path(blob).write_bytes(damaged)
        for _ in range(2):
            lamina.error("run", "--rm", "busybox", "true", code=125)
            assert leaks.rows(lamina.root, "SELECT * FROM layers WHERE state != 'sealed'") == []
            assert leaks.rows(lamina.root, "SELECT * FROM operations") == []
    Path(blob).write_bytes(whole)
    assert lamina("run", "--rm", "busybox", "echo", "hi") == "hi"


@each_driver
def test_a_layer_that_a_dead_process_was_making_is_taken_over(lamina: Lamina):
    """Its process dies while another, already past its own recovery, waits for the layer."""
    with lamina.library() as engine:
        engine.system.discard_unused_layers()
        keys = lamina.layer_keys("busybox")
        number = dead_operation(engine)
        driver = engine.context.layers.driver(lamina.driver)
        with engine.context.database.transaction() as tx:
            engine.context.layers.record(tx, driver, keys[0], (), Operation(name="x", id=number), state="preparing")
        driver.prepare(keys[0], (), {})
        container = engine.containers.create("busybox", ["true"])
        assert container.start_attached() == 0
        # Recovery, which had found the dead operation's layer before that, comes late and must not discard the new one
        engine.context.layers.undo_preparation(lamina.driver, keys[0], number)
        assert engine.context.layers.is_sealed(driver, keys[0])
        engine.context.layers.finish_discard(lamina.driver, keys[0])
        assert engine.context.layers.is_sealed(driver, keys[0])


def test_a_lock_that_a_dead_process_has_left_goes_and_one_that_is_held_stays(lamina: Lamina):
    with lamina.library() as engine:
        run_dir = engine.context.run_dir
        dead_operation(engine)
        Path(run_dir, "locks/overlay-left").touch()
        with locked(run_dir, "held"), locked(run_dir, "shared", shared=True), locked(run_dir, "shared", shared=True):
            lamina("ps")
            assert sorted(os.listdir(f"{run_dir}/locks")) == ["held", "shared"]
        assert os.listdir(f"{run_dir}/locks") == []


def test_a_volume_whose_removal_was_killed_is_removed_by_the_next_command(lamina: Lamina):
    lamina("volume", "create", "data")
    with lamina.library() as engine:
        number = dead_operation(engine)
        with engine.context.database.transaction() as tx:
            tx.execute("UPDATE volumes SET state = 'removing', operation = ? WHERE name = 'data'", (number,))
    assert lamina("volume", "ls", "-q") == ""
    assert not (lamina.root / "volumes" / "data").exists()
    assert leaks.rows(lamina.root, "SELECT * FROM volumes") == []


def test_a_killed_removal_of_a_volume_is_an_operation(lamina: Lamina):
    """strace(1) kills it at the rename or unlink with which the removal of its files begins."""
    lamina("volume", "create", "data")
    (lamina.root / "volumes" / "data" / "_data" / "file").write_text("x")
    words = lamina.command("volume", "rm", "data")
    kill = ["-e", "trace=unlinkat,rename,renameat2,rmdir", "-e", "inject=unlinkat,rename,renameat2,rmdir:signal=SIGKILL:when=1"]
    subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(lamina.root / "volumes"), *kill, *words], check=False)
    subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", *kill, *words], check=False)
    lamina("volume", "create", "data")
    assert lamina("run", "--rm", "-v", "data:/data", "busybox", "ls", "/data") == ""


def test_a_volume_made_anew_is_not_what_a_late_recovery_had_to_remove(lamina: Lamina):
    with lamina.library() as engine:
        old = engine.volumes.create("data")
        with engine.context.database.transaction() as tx:
            tx.execute("UPDATE volumes SET state = 'removing' WHERE name = 'data'")
        new = engine.volumes.create("data")  # takes the half removed one away first
        (lamina.root / "volumes" / "data" / "_data" / "file").write_text("mine")
        engine.volumes.finish_removal(old)
        assert engine.volumes.find("data") == new
    assert (lamina.root / "volumes" / "data" / "_data" / "file").read_text() == "mine"


def test_a_container_being_removed_by_another_process_is_waited_for_by_nobody(lamina: Lamina):
    name = lamina("create", "busybox", "true")
    with lamina.library() as engine:
        with engine.context.database.transaction() as tx:
            engine.context.records.set_state(tx, name, status="removing")
        with locked(str(lamina.root / "run"), f"container-{name}"):
            assert lamina("images", "-q")
    lamina("images", "-q")
    assert leaks.rows(lamina.root, "SELECT * FROM containers") == []


# Old kernels


@pytest.fixture
def kernel_without_lowerdir_plus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Refuse `lowerdir+` as a kernel before 6.7 does, at the call; gives what was refused."""
    real, refused = lm.fsmount, []

    def old(fstype: str, options: tuple[tuple[str, str | None], ...] = (), *, flags: int = 0, source: str = "none") -> int:
        if any(key == "lowerdir+" for key, _ in options):
            refused.append(fstype)
            raise OSError(errno.EINVAL, "fsconfig: invalid argument", fstype)
        return real(fstype, options, flags=flags, source=source)

    monkeypatch.setattr(lm, "fsmount", old)
    return refused


@pytest.mark.parametrize("layers", [1, 100, 490])
def test_a_union_is_mounted_by_one_string_too(
    layers: int, tmp_path: Path, own_mounts: None, kernel_without_lowerdir_plus: list[str]
):
    place = tmp_path / "a,b:c\\d"
    for name in [*(f"l{number}" for number in range(layers)), "upper", "work", "merged"]:
        (place / name).mkdir(parents=True)
    for number in range(layers):
        (place / f"l{number}" / f"file{number}").write_text(str(number))
    options = tuple(("lowerdir+", str(place / f"l{number}")) for number in range(layers))
    union = Mount(
        type="overlay", source="overlay", target=str(place / "merged"),
        options=(*options, ("upperdir", str(place / "upper")), ("workdir", str(place / "work")), ("index", "off")),
    )  # fmt: skip
    here, before = os.getcwd(), len(os.listdir("/proc/self/fd"))
    view = views.View(root=str(place / "merged"), mounts=(union,), upper_dir=str(place / "upper"))
    with views.seen(view) as path:
        assert len(os.listdir(path)) == layers
        assert [each for each in mountinfo.mounts() if str(place) in each.target] == []
    views.attach(view)
    (place / "merged" / "new").write_text("x")
    assert os.listdir(place / "upper") == ["new"]
    views.detach(view)
    assert os.listdir(place / "merged") == []
    assert kernel_without_lowerdir_plus == ["overlay", "overlay"]
    assert (os.getcwd(), len(os.listdir("/proc/self/fd"))) == (here, before)


def test_a_union_shows_a_containers_own_ids_by_one_string_too(
    tmp_path: Path, own_mounts: None, kernel_without_lowerdir_plus: list[str]
):
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/file").write_text("x")
    places = {"lowerdir+": "lower", "upperdir": "upper", "workdir": "work"}
    options = tuple((key, str(tmp_path / name)) for key, name in places.items())
    union = Mount(type="overlay", source="overlay", target=str(tmp_path / "merged"), options=(*options, ("index", "off")))
    before = len(os.listdir("/proc/self/fd"))
    view = views.View(root=str(tmp_path / "merged"), mounts=(union,), upper_dir=str(tmp_path / "upper"))
    views.attach(view, first_id=200000)
    assert (tmp_path / "merged/file").stat().st_uid == 200000
    os.chown(tmp_path / "merged/file", 200007, 200008)
    copied = (tmp_path / "upper/file").stat()
    assert (copied.st_uid, copied.st_gid) == (7, 8)
    views.detach(view)
    assert kernel_without_lowerdir_plus == ["overlay"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_union_that_cannot_be_says_both_reasons(tmp_path: Path, own_mounts: None, kernel_without_lowerdir_plus: list[str]):
    union = Mount(type="overlay", target=str(tmp_path), options=(("lowerdir+", str(tmp_path)), ("no_such_option", None)))
    with pytest.raises(OSError, match="fsconfig: invalid argument") as caught:
        views.detached(union)
    assert any("by mount(2)" in note for note in caught.value.__notes__)
    assert mountinfo.mounts()[-1].fstype != "overlay"


@pytest.mark.parametrize("driver", ["overlay", "aufs"], indirect=True)
def test_everything_that_looks_at_layers_works_on_an_old_kernel(lamina: Lamina, kernel_without_lowerdir_plus: list[str]):
    with lamina.library() as engine:
        container = engine.containers.create("busybox", ["sh", "-c", "echo new > /new; rm /etc/group"], name="old")
        assert container.start_attached() == 0
        assert {(change.kind.value, change.path) for change in container.diff()} >= {("A", "new"), ("D", "etc/group")}
        container.commit("made")
        assert engine.containers.output("made", ["cat", "/new"]) == "new\n"
        engine.images.remove("made")
    if lamina.driver == "overlay":
        assert kernel_without_lowerdir_plus


# Root directories


AWKWARD = {
    "colon": "a:b", "comma": "a,b", "space": "a b", "backslash": "a\\b", "newline": "a\nb", "return": "a\rb",
    "accents": "éü-日本", "not text": "a\udcffb", "octal": "a\\040b", "hash": "a#b", "percent": "a%s?b", "quote": "a'\"b",
    "long": "/".join(["d" * 120] * 3),
}  # fmt: skip


@contextlib.contextmanager
def store_at(place: Path, driver: str, prepared: Path) -> Iterator[Lamina]:
    place.parent.mkdir(parents=True)
    subprocess.run(["cp", "--archive", "--reflink=auto", str(prepared), str(place)], check=True)
    yield Lamina(place, driver)
    leaks.settle_and_remove(place)
    assert [each for each in mountinfo.mounts() if "awkward" in each.target] == []
    remove_tree(str(place))


@pytest.mark.parametrize("what", AWKWARD)
def test_a_root_directory_may_have_any_name(
    what: str, driver: str, tmp_path: Path, prepared_roots: dict[str, Path], own_mounts: None
):
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    with store_at(tmp_path / "awkward" / AWKWARD[what] / "root", driver, prepared_roots[driver]) as lamina:
        assert lamina("run", "--name", "it", "-v", "/vol", "busybox", "sh", "-c", "echo hi > /new; cat /new") == "hi"
        with lamina.library() as engine:
            it = engine.containers.get("it")
            assert "A new" in {f"{change.kind.value} {change.path}" for change in it.diff()}
            it.commit("made")
        assert lamina("run", "--rm", "made", "cat", "/new") == "hi"
        name = lamina("run", "-d", "busybox", *FOREVER)
        assert lamina("exec", name, "echo", "in") == "in"
        assert driver == "vfs" or str(lamina.merged(name)) in {each.target for each in mountinfo.mounts()}
        with lamina.library() as engine:
            assert {each.id for each in engine.containers.all() if each.status == "running"} == {name}
            engine.containers.get(name).remove(force=True)
            engine.containers.get("it").remove(volumes=True)
        assert [each for each in mountinfo.mounts() if "awkward" in each.target] == []
