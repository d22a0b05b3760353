"""COPY and ADD laid out over an image's tree, as root: owners, modes, what is there already, archives.

Every layer is written as a tar and applied to a copy of the base, as an engine would; what counts is the tree that comes out.
"""

import ctypes
import os
import stat
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest
from copies import Place, make, make_dir, members, packed, shape

from lamina.dockerfile.errors import DockerfileError

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw+ep, as setcap(8) writes it."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_files_of_the_context_are_roots_with_their_modes(place: Place) -> None:
    make(place.context / "d/f", mode=0o4751, owner=(5, 6))
    make_dir(place.context / "d/sub", 0o2770, (7, 8))
    out = place.build("COPY d /n")
    assert shape(out / "n") == (0o755, 0, 0)
    assert shape(out / "n/f") == (0o4751, 0, 0)
    assert shape(out / "n/sub") == (0o2770, 0, 0)


def test_files_of_another_stage_keep_their_owners(place: Place) -> None:
    make(place.context / "d/f", mode=0o640, owner=(5, 6))
    (place.context / "d/l").symlink_to("f")
    os.lchown(place.context / "d/l", 5, 6)
    out = place.build("COPY --from=stage d /n")
    assert shape(out / "n/f") == (0o640, 5, 6)
    assert shape(out / "n/l")[1:] == (5, 6)
    assert shape(out / "n") == (0o755, 0, 0)


def test_an_owner_changes_the_digest(place: Place) -> None:
    make(place.context / "f")
    before = place.gather("COPY f /n").digest
    os.chown(place.context / "f", 5, 0)
    assert place.gather("COPY f /n").digest != before


def test_chown_is_for_all_that_is_made(place: Place) -> None:
    make(place.base / "etc/passwd", "app:x:1001:1002::/:\n")
    make(place.base / "etc/group", "staff:x:77:\n")
    make(place.context / "d/f")
    (place.context / "d/l").symlink_to("f")
    out = place.build("COPY --chown=app:staff d /a/b")
    assert [shape(out / path)[1:] for path in ("a", "a/b", "a/b/f", "a/b/l")] == [(1001, 77)] * 4
    assert shape(out / "etc") == shape(place.base / "etc")
    assert place.error("COPY --chown=nobody9 d /a").message == (
        "Dockerfile:2: COPY: there is no user 'nobody9' in /etc/passwd in the image"
    )


def test_chmod_is_for_files_and_directories_but_not_symlinks(place: Place) -> None:
    make(place.context / "d/f", mode=0o600)
    make(place.context / "d/x", mode=0o700)
    make_dir(place.context / "d/s", 0o700)
    (place.context / "d/l").symlink_to("/outside")
    out = place.build("COPY --chmod=u=rwX,go=rX d /n")
    assert [shape(out / "n" / name)[0] for name in ("f", "x", "s")] == [0o644, 0o755, 0o755]
    assert os.readlink(out / "n/l") == "/outside"
    out = place.build("COPY --chmod=4710 d /n")
    assert [shape(out / "n" / name)[0] for name in ("f", "x", "s")] == [0o4710] * 3
    assert shape(out / "n")[0] == 0o710  # as BuildKit: what is made on the way has the bits of chmod(2) alone


def test_file_capabilities_come_along_and_other_attributes_do_not(place: Place) -> None:
    make(place.context / "f", mode=0o755)
    os.setxattr(place.context / "f", "security.capability", CAPABILITY)
    before = place.gather("COPY f /n").digest
    os.setxattr(place.context / "f", "user.note", b"x")
    assert place.gather("COPY f /n").digest == before
    out = place.build("COPY --chown=5 f /n")
    assert os.getxattr(out / "n", "security.capability") == CAPABILITY
    assert "user.note" not in os.listxattr(out / "n")
    os.removexattr(place.context / "f", "security.capability")
    assert place.gather("COPY f /n").digest != before


def test_times_are_the_files_own_up_to_the_limit(place: Place) -> None:
    make(place.context / "d/old")
    make(place.context / "d/new")
    os.utime(place.context / "d/old", (1000, 1000))
    os.utime(place.context / "d/new", (5000, 5000))
    times = {member.name: member.mtime for member in members(place.layer("COPY d /n/m", limit_ns=2000 * 10**9))}
    assert times == {"n": 2000, "n/m": 2000, "n/m/new": 2000, "n/m/old": 1000}


def test_the_same_sources_give_the_same_layer(place: Place, tmp_path: Path) -> None:
    make(place.context / "d/b")
    make(place.context / "d/a")
    os.link(place.context / "d/a", place.context / "d/c")
    subprocess.run(["cp", "-a", str(place.context), str(tmp_path / "again")], check=True)
    text = "COPY d <<doc /n/\nhello\ndoc"
    assert place.layer(text, limit_ns=0) == place.layer(text, limit_ns=0, tree=tmp_path / "again")


def test_devices_and_fifos_are_copied_as_what_they_are(place: Place) -> None:
    os.mknod(place.context / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(place.context / "fifo")
    out = place.build("COPY . /n")
    assert (out / "n/null").lstat().st_rdev == os.makedev(1, 3)
    assert (out / "n/fifo").is_fifo()
    os.mknod(place.context / "white", stat.S_IFCHR, os.makedev(0, 0))
    assert "'white' can't be in a layer" in place.error("COPY . /n").message


@pytest.mark.parametrize("is_directory", [False, True])
def test_nothing_from_outside_comes_in_while_names_are_swapped(place: Place, tmp_path: Path, *, is_directory: bool) -> None:
    """Somebody exchanges a file, or a directory, of the context with a symlink to outside, again and again (as CVE-2018-15664)."""
    make(tmp_path / "outside/f", "secret!")
    make(place.context / "d/f", "public!")
    victim = place.context / ("d" if is_directory else "d/f")
    lure = place.context / "lure"
    lure.symlink_to(tmp_path / ("outside" if is_directory else "outside/f"))
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            exchange(victim, lure)

    thread = threading.Thread(target=swap)
    thread.start()
    came = 0
    try:
        for _ in range(200):
            for text in ("COPY d /n/", "COPY d/f /n/", "COPY */f /n/"):
                try:
                    layer = place.layer(text)
                except DockerfileError:
                    continue
                came += b"public!" in layer
                assert b"secret!" not in layer
    finally:
        stop.set()
        thread.join()
    assert came, "the context was never seen as it should be"


def exchange(one: Path, other: Path) -> None:
    """Swap two names at once (renameat2(2), RENAME_EXCHANGE)."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0, os.strerror(ctypes.get_errno())


class TestDestinations:
    """What is in the image already."""

    def test_a_directory_that_is_there_keeps_what_it_is(self, place: Place) -> None:
        make_dir(place.base / "opt", 0o1777, (5, 6))
        make(place.context / "f")
        make(place.context / "d/g")
        for text in ("COPY f /opt", "COPY f /opt/", "COPY d /opt", "COPY --chown=9 --chmod=600 f /opt/"):
            assert shape(place.build(text) / "opt") == (0o1777, 5, 6)

    def test_what_lies_in_a_merged_directory_stays(self, place: Place) -> None:
        make(place.base / "d/sub/kept")
        make(place.base / "d/sub/replaced", "old", 0o600, (5, 5))
        make(place.context / "d/sub/replaced", "new", 0o644)
        out = place.build("COPY d /d")
        assert (out / "d/sub/kept").read_text() == "kept"
        assert (out / "d/sub/replaced").read_text() == "new"
        assert shape(out / "d/sub/replaced") == (0o644, 0, 0)

    def test_directories_below_the_source_bring_their_attributes(self, place: Place) -> None:
        make_dir(place.base / "d/sub", 0o700, (5, 5))
        make_dir(place.context / "d/sub", 0o751)
        assert shape(place.build("COPY d /d") / "d/sub") == (0o751, 0, 0)

    def test_symlinked_directories_are_followed_inside_the_image(self, place: Place) -> None:
        make_dir(place.base / "usr/lib")
        (place.base / "lib").symlink_to("usr/lib")
        (place.base / "up").symlink_to("../../../usr")
        make(place.context / "f")
        assert (place.build("COPY f /lib/") / "usr/lib/f").exists()
        assert (place.out / "lib").is_symlink()
        assert (place.build("COPY f /lib") / "usr/lib/f").exists()
        assert (place.build("COPY f /up/x/") / "usr/x/f").exists()
        assert place.names("COPY f /lib/") == ["usr", "usr/lib", "usr/lib/f"]

    def test_nothing_of_the_host_is_written_or_asked(self, place: Place, tmp_path: Path) -> None:
        make_dir(tmp_path / "host")
        (place.base / "evil").symlink_to(tmp_path / "host")
        make(place.context / "f")
        out = place.build("COPY f /evil/")
        assert not os.listdir(tmp_path / "host")
        assert (out / str(tmp_path / "host").lstrip("/") / "f").exists()

    def test_a_symlink_to_a_file_is_followed_and_one_to_nothing_too(self, place: Place) -> None:
        make(place.base / "data/file", "old")
        (place.base / "link").symlink_to("/data/file")
        (place.base / "dangling").symlink_to("nowhere/x")
        make(place.context / "f", "new")
        out = place.build("COPY f /link")
        assert (out / "link").is_symlink()
        assert (out / "data/file").read_text() == "new"
        assert (place.build("COPY f /dangling") / "nowhere/x").read_text() == "new"

    def test_a_symlink_in_a_merged_directory_is_replaced(self, place: Place) -> None:
        make(place.base / "target", "kept")
        make_dir(place.base / "d")
        (place.base / "d/f").symlink_to("/target")
        make(place.context / "d/f", "new")
        out = place.build("COPY d /d")
        assert not (out / "d/f").is_symlink()
        assert (out / "target").read_text() == "kept"

    def test_loops_are_an_error(self, place: Place) -> None:
        (place.base / "loop").symlink_to("loop")
        make(place.context / "f")
        assert "too many symlinks" in place.error("COPY f /loop/x").message

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("COPY f /file/", "'/file' is in the image and is no directory"),
            ("COPY f /file/x", "'/file' is in the image and is no directory"),
            ("COPY d /file", "'/file' is in the image and is no directory"),
            ("COPY clash /", "the directory 'clash/file' can't be copied to '/file', which is no directory"),
            ("COPY clash2 /", "'clash2/dir' can't be copied to '/dir': that is a directory"),
            ("COPY named/dir /", "'named/dir' can't be copied to '/dir': that is a directory"),
            ("COPY wh /x/", "'/x/.wh.f' can't be in an image"),
            ("COPY f /.wh.x/", "'/.wh.x' can't be in an image"),
        ],
    )
    def test_what_cannot_be_put_there_is_refused(self, place: Place, text: str, message: str) -> None:
        make(place.base / "file")
        make_dir(place.base / "dir")
        make(place.context / "f")
        make(place.context / "d/f")
        make_dir(place.context / "clash/file")
        make(place.context / "clash2/dir")
        make(place.context / "named/dir")
        make(place.context / "wh/.wh.f")
        assert message in place.error(text).message

    def test_the_root_is_a_destination(self, place: Place) -> None:
        make_dir(place.context / "d", 0o700, (5, 5))
        make(place.context / "d/f")
        for text in ("COPY d /", "COPY d/f /", "COPY d/f /.", "COPY d ../"):
            assert place.names(text) == ["f"]

    def test_with_link_nothing_of_the_base_is_known(self, place: Place) -> None:
        make_dir(place.base / "usr/lib")
        (place.base / "lib").symlink_to("usr/lib")
        make(place.context / "f")
        assert place.names("COPY --link f /lib/") == ["lib", "lib/f"]


_DIR = tarfile.DIRTYPE


class TestArchives:
    """What ADD unpacks."""

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
    def test_an_archive_is_known_by_its_content_and_unpacked_with_its_owners(self, place: Place, mode: str) -> None:
        (place.context / "anything").write_bytes(packed([("d", {"type": _DIR, "mode": 0o750}), ("d/f", {"content": b"x"})], mode))
        out = place.build("ADD anything /n/m")
        assert (out / "n/m/d/f").read_text() == "x"
        assert shape(out / "n/m/d/f") == (0o644, 33, 34)
        assert shape(out / "n/m/d") == (0o750, 33, 34)
        assert shape(out / "n/m") == (0o755, 0, 0)
        assert (out / "n/m/d/f").stat().st_mtime == 1000

    def test_zstd_is_unpacked(self, place: Place) -> None:
        plain = place.context / "plain"
        plain.write_bytes(packed([("f", {"content": b"x"})]))
        subprocess.run(["zstd", "-q", "--rm", str(plain), "-o", str(place.context / "a")], check=True)
        assert (place.build("ADD a /n") / "n/f").read_text() == "x"

    @pytest.mark.parametrize("content", [b"", b"no archive", bytes(1024), b"\x1f\x8bno gzip", b"x" * 2000])
    def test_what_only_looks_like_one_is_a_file(self, place: Place, content: bytes) -> None:
        (place.context / "a.tar.gz").write_bytes(content)
        assert (place.build("ADD a.tar.gz /n/") / "n/a.tar.gz").read_bytes() == content

    def test_copy_and_unpack_false_leave_it_whole(self, place: Place) -> None:
        content = packed([("f", {})])
        (place.context / "a.tar").write_bytes(content)
        for text in ("COPY a.tar /n/", "ADD --unpack=false a.tar /n/"):
            assert (place.build(text) / "n/a.tar").read_bytes() == content

    def test_chown_is_for_what_is_unpacked_too(self, place: Place) -> None:
        (place.context / "a").write_bytes(packed([("f", {})]))
        assert shape(place.build("ADD --chown=5:6 a /n") / "n/f") == (0o644, 5, 6)

    def test_what_is_in_the_way_is_replaced_and_directories_merge(self, place: Place) -> None:
        make(place.base / "d/kept")
        make(place.base / "file")
        make(place.base / "dir/lost")
        directory: dict[str, object] = {"type": _DIR, "mode": 0o755}
        (place.context / "a").write_bytes(
            packed([("d", directory), ("d/f", {}), ("file", directory), ("file/f", {}), ("dir", {"content": b"new"})])
        )
        out = place.build("ADD a /")
        assert sorted(os.listdir(out / "d")) == ["f", "kept"]
        assert (out / "file/f").exists()
        assert (out / "dir").read_text() == "new"

    def test_symlinks_are_followed_within_the_destination_alone(self, place: Place, tmp_path: Path) -> None:
        make_dir(place.base / "usr/lib")
        (place.base / "lib").symlink_to("usr/lib")
        make_dir(tmp_path / "host")
        links = [("evil", {"type": tarfile.SYMTYPE, "linkname": str(tmp_path / "host")}), ("evil/f", {}), ("lib/f", {})]
        (place.context / "a").write_bytes(packed(links))
        out = place.build("ADD a /")
        assert (out / "usr/lib/f").exists()
        assert not os.listdir(tmp_path / "host")
        out = place.build("ADD a /n")
        assert (out / "n" / str(tmp_path / "host").lstrip("/") / "f").exists()
        assert not os.listdir(tmp_path / "host")

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ([("../f", {})], "'..' in its path"),
            ([("a/../../f", {})], "'..' in its path"),
            ([("f", {"type": tarfile.LNKTYPE, "linkname": "../../etc/shadow"})], "'..' in its path"),
            ([("f", {"type": tarfile.LNKTYPE, "linkname": "etc/shadow"})], "which is no file"),
            ([(".wh.f", {})], "'/n/.wh.f' can't be in an image"),
            ([(".wh..wh..opq", {})], "can't be in an image"),
            ([("d/.wh.x/f", {})], "can't be in an image"),
            ([("dev", {"type": tarfile.CHRTYPE, "devmajor": 0, "devminor": 0})], "overlayfs's whiteout"),
        ],
    )
    def test_hostile_archives_are_refused_with_the_line(
        self, place: Place, members: list[tuple[str, dict[str, object]]], message: str
    ) -> None:
        (place.context / "a").write_bytes(packed([("ok", {}), *members]))
        error = place.error("ADD a /n")
        assert message in error.message
        assert error.message.startswith("Dockerfile:2: ADD: ")

    def test_a_truncated_archive_is_refused(self, place: Place) -> None:
        (place.context / "a").write_bytes(packed([("f", {"content": b"x" * 5000})])[:2000])
        assert "truncated" in place.error("ADD a /n").message

    def test_hard_links_within_an_archive_stay(self, place: Place) -> None:
        (place.context / "a").write_bytes(packed([("d/f", {"content": b"x"}), ("g", {"type": tarfile.LNKTYPE, "linkname": "d/f"})]))
        out = place.build("ADD a /n")
        assert (out / "n/g").stat().st_ino == (out / "n/d/f").stat().st_ino

    def test_a_directory_that_was_a_file_a_moment_ago_shows_nothing_of_the_base(self, place: Place) -> None:
        make(place.base / "n/d/old")
        (place.context / "a").write_bytes(packed([("d", {}), ("d", {"type": _DIR, "mode": 0o755}), ("d/f", {})]))
        assert os.listdir(place.build("ADD a /n") / "n/d") == ["f"]
        assert "n/d/.wh..wh..opq" in place.names("ADD a /n")
