"""`cp`: docker cp's table of what goes where, what is kept of a file, and that no container can make it touch the host's files.

What docker does was observed by hand (20.10, client 28.2) and is written down here as literal expectations.
"""

import ctypes
import io
import os
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import FOREVER, Lamina, wait_until

from lamina.container import ContainerHandle
from lamina.engine import Engine
from lamina.errors import ArchiveError, ConflictError, LaminaError, NotFoundError
from lamina.linux import mountinfo, namespace

COPIES = int(os.environ.get("LAMINA_COPIES", "120"))
"""How often files are copied while their container swaps symlinks; `make defences` does it 500 times."""

Tree = dict[str, str]
"""Path to content; a directory's path ends with /, a symlink's content begins with "-> "."""

HOST: Tree = {"one": "one\n", "hd/": "", "hd/hf": "hf\n", "hd/s/": "", "hd/s/hg": "hg\n", "hlf": "-> hd/hf", "hld": "-> hd"}
INSIDE: Tree = {"e/": "", "file": "file\n", "le": "-> e", "lfile": "-> file", "lnew": "-> e/new", "dangling": "-> nowhere"}

# Source on the host, options, destination in the container: what is different there afterwards, or which error.
IN_TABLE: list[tuple[str, str, str, Tree | type[LaminaError]]] = [
    ("one", "", "new", {"new": "one\n"}),
    ("one", "", "new/", NotFoundError),
    ("one", "", "no/new", NotFoundError),
    ("one", "", "file", {"file": "one\n"}),
    ("one", "", "file/", NotFoundError),
    ("one", "", "e", {"e/one": "one\n"}),
    ("one", "", "e/", {"e/one": "one\n"}),
    ("one", "", "e/.", {"e/one": "one\n"}),
    ("hd", "", "new", {"new/": "", "new/hf": "hf\n", "new/s/": "", "new/s/hg": "hg\n"}),
    ("hd", "", "new/", {"new/": "", "new/hf": "hf\n", "new/s/": "", "new/s/hg": "hg\n"}),
    ("hd/.", "", "new", {"new/": "", "new/hf": "hf\n", "new/s/": "", "new/s/hg": "hg\n"}),
    ("hd/.", "", "new/", {"new/": "", "new/hf": "hf\n", "new/s/": "", "new/s/hg": "hg\n"}),
    ("hd", "", "no/new", NotFoundError),
    ("hd", "", "file", ConflictError),
    ("hd", "", "e", {"e/hd/": "", "e/hd/hf": "hf\n", "e/hd/s/": "", "e/hd/s/hg": "hg\n"}),
    ("hd/", "", "e", {"e/hd/": "", "e/hd/hf": "hf\n", "e/hd/s/": "", "e/hd/s/hg": "hg\n"}),
    ("hd/.", "", "e", {"e/hf": "hf\n", "e/s/": "", "e/s/hg": "hg\n"}),
    ("hlf", "", "e", {"e/hlf": "-> hd/hf"}),
    ("hlf", "L", "e", {"e/hlf": "hf\n"}),
    ("hlf", "L", "e/new", {"e/new": "hf\n"}),
    ("hld", "", "e", {"e/hld": "-> hd"}),
    ("hld/", "", "e", {"e/hld/": "", "e/hld/hf": "hf\n", "e/hld/s/": "", "e/hld/s/hg": "hg\n"}),
    ("hld", "L", "e", {"e/hld/": "", "e/hld/hf": "hf\n", "e/hld/s/": "", "e/hld/s/hg": "hg\n"}),
    ("hld/.", "", "e/new", {"e/new/": "", "e/new/hf": "hf\n", "e/new/s/": "", "e/new/s/hg": "hg\n"}),
    ("one", "", "lfile", {"file": "one\n"}),
    ("one", "", "le", {"e/one": "one\n"}),
    ("one", "", "lnew", {"e/new": "one\n"}),
    ("one", "", "dangling", {"nowhere": "one\n"}),
    ("hd/s", "", "dangling", {"nowhere/": "", "nowhere/hg": "hg\n"}),
    ("nope", "", "e", NotFoundError),
    ("one/", "", "e", NotFoundError),
]  # fmt: skip

# Source in the container, options, destination on the host, where nothing but `old/`, `file`, `lold` and `lnew` is.
OUTSIDE: Tree = {"old/": "", "file": "was\n", "lold": "-> old", "lnew": "-> old/new"}
OUT_TABLE: list[tuple[str, str, str, Tree | type[LaminaError]]] = [
    ("one", "", "new", {"new": "one\n"}),
    ("one", "", "new/", NotFoundError),
    ("one", "", "no/new", NotFoundError),
    ("one", "", "no/new/", NotFoundError),
    ("hd", "", "no/new", NotFoundError),
    ("one", "", "file", {"file": "one\n"}),
    ("one", "", "file/", NotFoundError),
    ("one", "", "old", {"old/one": "one\n"}),
    ("one", "", "lold", {"old/one": "one\n"}),
    ("one", "", "lnew", {"old/new": "one\n"}),
    ("hd", "", "file", ConflictError),
    ("hd", "", "new", {"new/": "", "new/hf": "hf\n", "new/s/": "", "new/s/hg": "hg\n"}),
    ("hd", "", "new/", {"new/": "", "new/hf": "hf\n", "new/s/": "", "new/s/hg": "hg\n"}),
    ("hd", "", "old", {"old/hd/": "", "old/hd/hf": "hf\n", "old/hd/s/": "", "old/hd/s/hg": "hg\n"}),
    ("hd/.", "", "old", {"old/hf": "hf\n", "old/s/": "", "old/s/hg": "hg\n"}),
    ("hd/s/..", "", "old", {"old/hd/": "", "old/hd/hf": "hf\n", "old/hd/s/": "", "old/hd/s/hg": "hg\n"}),
    ("hlf", "", "old", {"old/hlf": "-> hd/hf"}),
    ("hlf", "L", "old", {"old/hlf": "hf\n"}),
    ("hld", "", "old", {"old/hld": "-> hd"}),
    ("hld/", "", "old", {"old/hld/": "", "old/hld/hf": "hf\n", "old/hld/s/": "", "old/hld/s/hg": "hg\n"}),
    ("hld", "L", "new", {"new/": "", "new/hf": "hf\n", "new/s/": "", "new/s/hg": "hg\n"}),
    ("nope", "", "old", NotFoundError),
    ("one/", "", "old", NotFoundError),
    ("one/.", "", "old", NotFoundError),
]  # fmt: skip


def make(place: Path, tree: Tree) -> None:
    """Make a tree on the host."""
    place.mkdir(parents=True, exist_ok=True)
    for path, content in tree.items():
        if path.endswith("/"):
            (place / path).mkdir(parents=True, exist_ok=True)
        elif content.startswith("-> "):
            (place / path).symlink_to(content[3:])
        else:
            (place / path).write_text(content, encoding="utf-8")


def seen(place: Path) -> Tree:
    """Read a tree on the host."""
    found: Tree = {}
    for folder, directories, files in os.walk(place):
        for name in [*directories, *files]:
            path = Path(folder, name)
            shown = str(path.relative_to(place))
            if path.is_symlink():
                found[shown] = f"-> {os.readlink(path)}"
            elif path.is_dir():
                found[shown + "/"] = ""
            else:
                found[shown] = path.read_text(encoding="utf-8")
    return found


def archived(container: ContainerHandle, path: str) -> tarfile.TarFile:
    """Read a path of the container as an archive."""
    out = io.BytesIO()
    container.copy_out(path, out)
    return tarfile.open(fileobj=io.BytesIO(out.getvalue()))


def inside(container: ContainerHandle, path: str) -> Tree:
    """Read a tree in the container."""
    found: Tree = {}
    with archived(container, f"{path}/.") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if name in {"", "."}:
                continue
            if member.issym():
                found[name] = f"-> {member.linkname}"
            elif member.isdir():
                found[name + "/"] = ""
            else:
                file = tar.extractfile(member)
                assert file is not None
                found[name] = file.read().decode()
    return found


def changed(before: Tree, after: Tree) -> Tree:
    """What is new or different."""
    return {path: content for path, content in after.items() if before.get(path) != content}


@pytest.fixture
def engine(lamina: Lamina) -> Iterator[Engine]:
    """The library on the test's own root directory."""
    with Engine(root_dir=str(lamina.root), storage_driver=lamina.driver) as opened:
        yield opened


@pytest.fixture(params=["running", "stopped", "never started"])
def box(request: pytest.FixtureRequest, engine: Engine) -> Iterator[ContainerHandle]:
    """A container in each of its states."""
    container = engine.containers.create("busybox", list(FOREVER))
    if request.param != "never started":
        container.start()
    if request.param == "stopped":
        container.kill()
    yield container
    container.remove(force=True, volumes=True)


@pytest.fixture
def running(engine: Engine) -> Iterator[ContainerHandle]:
    """A running container."""
    with engine.containers.run("busybox", list(FOREVER)) as container:
        yield container


def test_in_by_dockers_table(box: ContainerHandle, tmp_path: Path) -> None:
    host, start = tmp_path / "host", tmp_path / "start"
    make(host, HOST)
    for number in range(len(IN_TABLE)):
        make(start / str(number), INSIDE)
    box.copy_in(str(start), "/t")
    for number, (source, options, target, expected) in enumerate(IN_TABLE):
        case = f"{source} -{options} {target}"
        if isinstance(expected, dict):
            box.copy_in(f"{host}/{source}", f"/t/{number}/{target}", follow="L" in options)
        else:
            with pytest.raises(expected):
                print(case)
                box.copy_in(f"{host}/{source}", f"/t/{number}/{target}", follow="L" in options)
    after = inside(box, "/t")
    for number, (source, options, target, expected) in enumerate(IN_TABLE):
        mine = {path.removeprefix(f"{number}/"): text for path, text in after.items() if path.startswith(f"{number}/")}
        mine.pop("", None)
        assert changed(INSIDE, mine) == (expected if isinstance(expected, dict) else {}), (source, options, target)
        assert set(INSIDE) <= set(mine)


def test_out_by_dockers_table(box: ContainerHandle, tmp_path: Path) -> None:
    make(tmp_path / "start", HOST)
    box.copy_in(str(tmp_path / "start"), "/t")
    for number, (source, options, target, expected) in enumerate(OUT_TABLE):
        place = tmp_path / str(number)
        make(place, OUTSIDE)
        if isinstance(expected, dict):
            box.copy_out(f"/t/{source}", f"{place}/{target}", follow="L" in options)
        else:
            with pytest.raises(expected):
                print(source, options, target)
                box.copy_out(f"/t/{source}", f"{place}/{target}", follow="L" in options)
        assert changed(OUTSIDE, seen(place)) == (expected if isinstance(expected, dict) else {}), (source, options, target)


def test_a_directory_never_replaces_a_file_nor_a_file_a_directory(running: ContainerHandle, tmp_path: Path) -> None:
    make(tmp_path / "host", HOST)
    make(tmp_path / "start", {"a/": "", "a/one/": "", "b/": "", "b/hd": "file\n", "c/": "", "c/hd": "-> /b"})
    running.copy_in(f"{tmp_path}/start", "/t")
    for source, target in (("one", "a"), ("hd", "b"), ("hd", "c")):
        with pytest.raises(ConflictError):
            running.copy_in(f"{tmp_path}/host/{source}", f"/t/{target}")
        with pytest.raises(ConflictError):
            running.copy_in(f"{tmp_path}/host", "/h")
            running.copy_out(f"/h/{source}", f"{tmp_path}/start/{target}")


def test_a_symlink_below_the_destination_is_replaced_and_not_followed(running: ContainerHandle, tmp_path: Path) -> None:
    make(tmp_path, {"canary": "canary\n", "out/": "", "out/one": f"-> {tmp_path}/canary", "one": "one\n"})
    running.copy_in(f"{tmp_path}/one", "/one")
    running.copy_out("/one", f"{tmp_path}/out")
    assert seen(tmp_path / "out") == {"one": "one\n"}
    assert (tmp_path / "canary").read_text() == "canary\n"


def test_owner_mode_times_and_xattrs(box: ContainerHandle, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    os.setxattr(file, "user.colour", b"red")
    os.chown(file, 1234, 2345)
    os.chmod(file, 0o4751)
    os.utime(file, ns=(1_000_000_007, 981_173_106_123_456_789))
    box.copy_in(str(file), "/plain")
    box.copy_in(str(file), "/kept", archive=True)
    with archived(box, "/plain") as tar:
        (plain,) = tar.getmembers()
    with archived(box, "/kept") as tar:
        (kept,) = tar.getmembers()
    assert (plain.uid, plain.gid, plain.mode, int(plain.mtime)) == (0, 0, 0o751, 981_173_106)  # setuid was the other's to give
    assert (kept.uid, kept.gid, kept.mode, int(kept.mtime)) == (1234, 2345, 0o4751, 981_173_106)
    assert kept.pax_headers["SCHILY.xattr.user.colour"] == "red"
    box.copy_out("/kept", f"{tmp_path}/a", archive=True)
    box.copy_out("/kept", f"{tmp_path}/b")
    a, b = os.stat(tmp_path / "a"), os.stat(tmp_path / "b")
    assert (a.st_uid, a.st_gid, stat.S_IMODE(a.st_mode), a.st_mtime_ns) == (1234, 2345, 0o4751, 981_173_106_123_456_789)
    assert (b.st_uid, b.st_gid, stat.S_IMODE(b.st_mode), b.st_mtime_ns) == (0, 0, 0o751, 981_173_106_123_456_789)
    assert os.getxattr(tmp_path / "a", "user.colour") == b"red"


def test_hard_links_holes_fifos_devices_and_directory_times(running: ContainerHandle, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make(source, {"d/": "", "d/first": "linked\n"})
    os.link(source / "d/first", source / "second")
    os.mkfifo(source / "fifo")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with (source / "holes").open("wb") as file:
        file.seek(200 << 20)
        file.write(b"end")
        file.truncate(300 << 20)
    os.utime(source / "d", ns=(1, 981_173_106_000_000_001))
    running.copy_in(str(source), "/t", archive=True)
    running.copy_out("/t", f"{tmp_path}/back", archive=True)
    back = tmp_path / "back"
    assert (back / "d/first").stat().st_ino == (back / "second").stat().st_ino
    assert stat.S_ISFIFO((back / "fifo").stat().st_mode)
    assert (back / "null").stat().st_rdev == os.makedev(1, 3)
    assert (back / "d").stat().st_mtime_ns == 981_173_106_000_000_001
    holes = (back / "holes").stat()
    assert (holes.st_size, holes.st_blocks < 1000) == (300 << 20, True)
    with (back / "holes").open("rb") as file:
        file.seek(200 << 20)
        assert file.read(4) == b"end\0"


def test_a_big_file_goes_both_ways_whole(lamina: Lamina, running: ContainerHandle, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 64
    (tmp_path / "big").write_bytes(data)
    assert running.copy_in(f"{tmp_path}/big", "/big") == len(data)
    assert running.copy_out("/big", f"{tmp_path}/back") == len(data)
    assert (tmp_path / "back").read_bytes() == data
    packed = subprocess.run(lamina.command("cp", f"{running.id}:/big", "-"), capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        file = tar.extractfile("big")
        assert file is not None
        assert file.read() == data


def test_an_archive_in_keeps_what_it_says_and_whiteouts_are_names(box: ContainerHandle, driver: str) -> None:
    names = ["a", "d/", "d/b"] + ([] if driver == "aufs" else [".wh.a", "d/.wh..wh..opq"])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.uid, member.gid, member.mode = 7, 8, 0o750
            tar.addfile(member)
    box.copy_in(io.BytesIO(out.getvalue()), "/tmp")
    with archived(box, "/tmp/.") as tar:
        found = {member.name.removeprefix("./"): (member.uid, member.gid, member.mode) for member in tar if member.name != "."}
    assert found == {name.rstrip("/"): (7, 8, 0o750) for name in names}
    for bad in ("/nowhere", "/tmp/a", "/tmp/a/"):
        with pytest.raises(NotFoundError):
            box.copy_in(io.BytesIO(out.getvalue()), bad)
    with pytest.raises(ArchiveError):
        box.copy_in(io.BytesIO(b"garbage" * 1000), "/tmp")


def test_a_hostile_archive_stays_in_the_container(box: ContainerHandle, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    make(canary, {"file": "canary\n"})
    before = seen(canary)

    def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        return info

    up = "../" * 30
    hostile = [
        [member(f"{up}{canary}/new")],
        [member("/../../etc/new")],
        [member("l", tarfile.SYMTYPE, str(canary)), member("l/new")],
        [member("l", tarfile.SYMTYPE, up + str(canary)[1:]), member("l/file")],
        [member("l", tarfile.SYMTYPE, "/proc/1/root"), member(f"l{canary}/new")],
        [member("h", tarfile.LNKTYPE, f"{canary}/file")],
        [member("h", tarfile.LNKTYPE, f"{up}{canary}/file")],
        [member("l", tarfile.SYMTYPE, str(canary)), member("h", tarfile.LNKTYPE, "l/file"), member("h")],
        [member("l", tarfile.SYMTYPE, f"{canary}/file"), member("l")],
        [member("l", tarfile.SYMTYPE, str(canary)), member("l", tarfile.DIRTYPE), member("l/new")],
    ]
    for number, members in enumerate(hostile):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for each in members:
                tar.addfile(each)
        box.copy_in(str(tmp_path / "canary"), f"/h{number}")
        try:
            box.copy_in(io.BytesIO(out.getvalue()), f"/h{number}")
        except (LaminaError, OSError):
            pass
        assert seen(canary) == before, members
        assert (canary / "file").stat().st_nlink == 1


def test_a_symlinked_directory_of_the_container_is_followed_inside_it(box: ContainerHandle, tmp_path: Path) -> None:
    make(tmp_path / "t", {"real/": "", "sub/": "", "sub/link": "-> /t/real"})
    box.copy_in(f"{tmp_path}/t", "/t")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("link/new"))
    box.copy_in(io.BytesIO(out.getvalue()), "/t/sub")
    assert inside(box, "/t") == {"real/": "", "real/new": "", "sub/": "", "sub/link": "-> /t/real"}


@pytest.mark.parametrize("state", ["running", "stopped", "never started"])
def test_volumes_binds_and_read_only_places(lamina: Lamina, engine: Engine, tmp_path: Path, state: str) -> None:
    make(tmp_path, {"one": "one\n", "bound/": "", "bound/b": "b\n"})
    bound = f"{tmp_path}/bound"
    words = ("-v", "vol:/data/deep", "-v", f"{bound}:/bound", "-v", f"{bound}:/ro:ro", "-v", f"{bound}/b:/single", "--read-only")
    container = engine.containers.get(lamina("create", *words, "busybox", *FOREVER))
    if state != "never started":
        container.start()
    if state == "stopped":
        container.kill()
    container.copy_in(f"{tmp_path}/one", "/data/deep/x")
    container.copy_in(f"{tmp_path}/one", "/bound")
    assert seen(tmp_path / "bound") == {"b": "b\n", "one": "one\n"}
    assert (lamina.root / "volumes/vol/_data/x").read_text() == "one\n"
    assert inside(container, "/data") == {"deep/": "", "deep/x": "one\n"}
    assert inside(container, "/ro") == {"b": "b\n", "one": "one\n"}
    with pytest.raises(ConflictError, match=r"root of container .* is read-only"):
        container.copy_in(f"{tmp_path}/one", "/one")
    with pytest.raises(ConflictError, match="mounted read-only"):
        container.copy_in(f"{tmp_path}/one", "/ro")
    if container.status == "running":
        with pytest.raises(ConflictError, match="read-only"):
            container.copy_in(f"{tmp_path}/one", "/etc/hosts")
    container.remove(force=True)
    lamina("volume", "rm", "vol")
    (lamina.root / "volumes/.removed").rmdir()  # where the local driver deletes volumes: it must be empty
    assert not [each for each in mountinfo.mounts() if str(tmp_path / "bound") in each.target]


def test_what_is_the_kernels_is_refused_and_left_empty_in_a_copy(running: ContainerHandle, tmp_path: Path) -> None:
    make(tmp_path, {"one": "one\n"})
    for path in (
        "/proc/version",
        "/proc/self/root",
        "/proc/1/root/etc",
        "/sys/kernel",
        "/dev/null",
        "/dev/pts/ptmx",
        "/proc",
        "/dev/.",
    ):
        with pytest.raises(LaminaError):
            running.copy_out(path, f"{tmp_path}/out")
    for path in ("/proc/x", "/proc/sys/kernel/core_pattern", "/sys/x", "/dev/x", "/dev/null", "/dev/stdin"):
        with pytest.raises(LaminaError):
            running.copy_in(f"{tmp_path}/one", path)
    with pytest.raises(ConflictError, match="something is mounted"):
        running.copy_in(f"{tmp_path}/one", "/etc/hosts")
    assert running.exec_output(["cat", "/etc/hosts"]).startswith("127.0.0.1"), "the mount is still there"
    running.copy_in(f"{tmp_path}/one", "/dev/shm")
    assert running.exec_output(["cat", "/dev/shm/one"]) == "one\n"
    running.copy_out("/", f"{tmp_path}/all")
    assert [os.listdir(tmp_path / "all" / name) for name in ("proc", "sys", "dev")] == [[], [], []]
    assert (tmp_path / "all/etc/hosts").read_text().startswith("127.0.0.1")


def test_a_paused_container_is_copied_from_and_to(running: ContainerHandle, tmp_path: Path) -> None:
    make(tmp_path, {"one": "one\n"})
    running.pause()
    running.copy_in(f"{tmp_path}/one", "/one")
    running.copy_out("/one", f"{tmp_path}/back")
    running.unpause()
    assert running.exec_output(["cat", "/one"]) == (tmp_path / "back").read_text() == "one\n"


def test_what_was_copied_into_a_stopped_container_is_there_when_it_runs_and_in_its_diff(engine: Engine, tmp_path: Path) -> None:
    make(tmp_path, {"one": "one\n"})
    with engine.containers.create("busybox", list(FOREVER)) as container:
        container.copy_in(f"{tmp_path}/one", "/tmp/one")
        assert [f"{each.kind.value} {each.path}" for each in container.diff()] == ["C tmp", "A tmp/one"]
        container.start()
        assert container.exec_output(["cat", "/tmp/one"]) == "one\n"
        container.kill()
        container.copy_in(f"{tmp_path}/one", "/tmp/two")
        container.start()
        assert container.exec_output(["cat", "/tmp/two"]) == "one\n"


def test_a_stopped_container_may_be_both_ends_of_a_pipe(lamina: Lamina, engine: Engine, tmp_path: Path) -> None:
    with engine.containers.create("busybox", list(FOREVER)) as container:
        (tmp_path / "big").write_bytes(bytes(range(256)) * 4096 * 4)
        container.copy_in(f"{tmp_path}/big", "/big")
        cp, name = " ".join(lamina.command("cp")), container.id
        subprocess.run(f"{cp} {name}:/big - | {cp} - {name}:/tmp", shell=True, check=True, timeout=60)
        container.copy_out("/tmp/big", f"{tmp_path}/back")
        assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()


def test_a_killed_cp_leaves_no_mount_and_no_lock(lamina: Lamina, engine: Engine) -> None:
    with engine.containers.create("busybox", list(FOREVER)) as container:
        process = subprocess.Popen(lamina.command("cp", "-", f"{container.id}:/tmp"), stdin=subprocess.PIPE)
        wait_until(lambda: "container root" in _threads(process.pid), "the thread that keeps the mounts")
        wait_until(lambda: _has_other_mounts(process.pid), "its mount namespace")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
        assert not [each for each in mountinfo.mounts() if str(lamina.root) in each.target]
        lamina("start", container.id)
        assert container.exec_output(["echo", "runs"]) == "runs\n"


def _threads(pid: int) -> str:
    try:
        return "container root" if len(os.listdir(f"/proc/{pid}/task")) > 1 else ""
    except FileNotFoundError:
        return ""


def _has_other_mounts(pid: int) -> bool:
    links = {os.readlink(f"/proc/{pid}/task/{task}/ns/mnt") for task in os.listdir(f"/proc/{pid}/task")}
    return len(links) > 1


@pytest.mark.parametrize("driver", ["overlay"], indirect=True)
def test_the_command_line_and_its_errors(lamina: Lamina, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, {"one": "one\n", "a:b": "colon\n", "hd/": ""})
    lamina("run", "-d", "--name", "box", "busybox", *FOREVER)
    lamina("cp", "./a:b", "box:/tmp")
    lamina("cp", f"{tmp_path}/a:b", "box:tmp/c")
    assert lamina("exec", "box", "cat", "/tmp/a:b", "/tmp/c") == "colon\ncolon"
    lamina("cp", "box:/tmp/c", "./b:c")
    assert (tmp_path / "b:c").read_text() == "colon\n"
    assert lamina("cp", "-q", "one", "box:/tmp") == ""
    lamina("container", "cp", "box:/tmp/one", "two")
    errors = {
        ("one", "two"): "neither side is in a container",
        ("-", "-"): "neither side is in a container",
        ("a:b", "box:/"): "copying between containers is not supported",
        ("", "box:/"): "the source is empty",
        ("one", "nosuch:/"): "no such container: 'nosuch'",
        ("nosuch:/x", "."): "no such container: 'nosuch'",
        ("box:/nope", "."): "no such file or directory: 'box:/nope'",
        ("nope", "box:/"): "no such file or directory: 'nope'",
        ("one", "box:/no/x"): "no such directory for 'box:/no/x'",
        ("box:/tmp/one", "no/x"): "no such directory for 'no/x'",
        ("box:/tmp", "one"): "can't copy a directory to 'one', which is a file",
        ("hd", "box:/tmp/one"): "can't copy a directory to 'box:/tmp/one', which is a file",
        ("box:/tmp/one", "/dev/null"): "must be a directory or a regular file",
        ("-", "box:/tmp/one"): "the destination 'box:/tmp/one' must be a directory",
        ("one", "box:"): "the container's path is empty",
    }
    for words, message in errors.items():
        assert message in lamina.error("cp", *words, code=1), words
    lamina("rm", "-f", "box")


# Races.

RENAME_EXCHANGE = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _race(pid: int, place: str) -> int:
    """Fork a process into the container that swaps `x`, a directory, and `link`, a symlink to a path of the host's, for ever."""
    child = os.fork()
    if child:
        return child
    try:
        namespace.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), namespace.CLONE_NEWNS)
        os.chdir(place)
        while True:
            _libc.renameat2(-100, b"x", -100, b"link", RENAME_EXCHANGE)
            _libc.renameat2(-100, b"deep/x", -100, b"deep/link", RENAME_EXCHANGE)
    finally:
        os._exit(1)


def test_a_container_that_swaps_symlinks_never_gets_at_the_hosts_files(running: ContainerHandle, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    make(canary, {"data": "canary\n", "sub/": "", "sub/data": "canary\n"})
    make(
        tmp_path / "race",
        {"x/": "", "x/data": "inside\n", "link": f"-> {canary}", "deep/": "", "deep/x/": "", "deep/x/data": "inside\n"},
    )
    make(tmp_path / "race", {"deep/link": f"-> {'../' * 20}{str(canary)[1:]}"})
    make(tmp_path / "in", {"data": "written\n", "new/": "", "new/f": "written\n"})
    running.copy_in(f"{tmp_path}/race", "/race")
    before = {path: os.stat(canary / path).st_ctime_ns for path in ("", "data", "sub", "sub/data")}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x/evil"))
        tar.addfile(tarfile.TarInfo("deep/x/evil"))
    racer = _race(running.pid, "/race")
    done = refused = 0
    try:
        for turn in range(COPIES):
            out = tmp_path / f"out{turn}"
            try:
                match turn % 6:
                    case 0:
                        running.copy_out("/race/x/data", str(out))
                    case 1:
                        running.copy_out("/race", str(out))
                    case 2:
                        running.copy_out("/race/deep/x/.", str(out), follow=True)
                    case 3:
                        running.copy_in(f"{tmp_path}/in/data", "/race/x/data")
                    case 4:
                        running.copy_in(f"{tmp_path}/in/.", "/race/deep/x")
                    case 5:
                        running.copy_in(io.BytesIO(archive.getvalue()), "/race")
                done += 1
            except (LaminaError, OSError):
                refused += 1
            texts = [text for text in seen(out).values() if not text.startswith("->")] if out.is_dir() else []
            texts += [out.read_text()] if out.is_file() and not out.is_symlink() else []
            assert "canary\n" not in texts, turn
            assert {path: os.stat(canary / path).st_ctime_ns for path in before} == before, turn
    finally:
        os.kill(racer, signal.SIGKILL)
        os.waitpid(racer, 0)
    assert done > COPIES // 6 and refused > COPIES // 30, (done, refused)  # both faces of the swap were met
    assert seen(canary) == {"data": "canary\n", "sub/": "", "sub/data": "canary\n"}
