"""A union written to: what happens to a file of a layer below when it is first changed, against what a plain file would do."""

import errno
import fcntl
import mmap
import os
import socket
import stat
from collections.abc import Callable

from lamina.api.types import Behaviour, Fidelity
from lamina.testing import tree
from lamina.testing.bench import Bench
from lamina.testing.check import Claim, Skipped, check, require, same
from lamina.testing.checks.fidelity import require_equal, require_hole
from lamina.testing.samples import BASE, SAMPLES, Sample
from lamina.testing.tree import ACCESS_ACL, ACL, Directory, File


def text_of(path: str) -> str:
    """Read a small file."""
    with open(path, encoding="ascii") as file:
        return file.read()


def _claim(sample: Sample) -> Claim | None:
    """The names of a file come up one by one; that they stay names of one file is for a driver to claim."""
    return Fidelity.HARD_LINKS if any(node.kind is tree.Kind.LINK for node in sample.tree.values()) else sample.claim


@check("copy-up", params=SAMPLES, claims=_claim)
def kept_on_copy_up(bench: Bench, sample: Sample) -> None:
    """Setting an access time brings a file into the writable layer: whatever else it has must come along."""
    base = bench.made(sample.tree)
    wanted = bench.tree(base)
    child = bench.prepare(base)
    with bench.writing(child) as root:
        for path, facts in wanted.items():
            os.utime(f"{root}/{path}" if path else root, ns=(1, facts.mtime_ns), follow_symlinks=False)
        require_equal(tree.read(root), wanted, "mounted")
        require_hole(root, sample)
    require_equal(bench.tree(child), wanted, "at rest")


_OPENS: dict[str, tuple[int, str, int]] = {
    "append": (os.O_WRONLY | os.O_APPEND, "fileNEW", 0),
    "truncate": (os.O_WRONLY | os.O_TRUNC, "NEW", 0),
    "write": (os.O_WRONLY, "NEWe", 0),
    "read and write": (os.O_RDWR, "NEWe", 0),
    "create": (os.O_WRONLY | os.O_CREAT, "NEWe", 0),
    "create and truncate": (os.O_RDWR | os.O_CREAT | os.O_TRUNC, "NEW", 0),
    "create exclusively": (os.O_WRONLY | os.O_CREAT | os.O_EXCL, "file", errno.EEXIST),
    "as a directory": (os.O_RDONLY | os.O_DIRECTORY, "file", errno.ENOTDIR),
}


@check("copy-up", params=_OPENS)
def opening_a_file_of_below(bench: Bench, case: tuple[int, str, int]) -> None:
    """unionmount-testsuite: each way of opening, then what the file holds, mounted and at rest."""
    flags, wanted, error_number = case
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        try:
            fd = os.open(f"{root}/file", flags)
        except OSError as error:
            same(error.errno, error_number, "the error")
        else:
            same(error_number, 0, "the error that should have come")
            os.write(fd, b"NEW")
            os.close(fd)
        same(text_of(f"{root}/file"), wanted, "content")
    with bench.reading(child) as root:
        same(text_of(f"{root}/file"), wanted, "content at rest")


@check("copy-up", params={"symlink": "link", "directory symlink": "linkdir/one"})
def writing_through_a_symlink_of_below(bench: Bench, path: str) -> None:
    """The link stays a link, and its target changes."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        with open(f"{root}/{path}", "w", encoding="ascii") as file:
            file.write("new")
        same(text_of(f"{root}/dir/one"), "new", "the target")
        require(os.path.islink(f"{root}/{path.partition('/')[0]}"), "the symlink is none any more")


_SETS: dict[str, Callable[[str], object]] = {
    "chmod": lambda path: os.chmod(path, 0o4711),
    "chown": lambda path: os.chown(path, 21, 22),
    "time": lambda path: os.utime(path, ns=(5, 1_000_000_000_000_000_005)),
    "xattr": lambda path: os.setxattr(path, "user.new", b"1"),
    "ACL": lambda path: os.setxattr(path, ACCESS_ACL, ACL),
}


@check("copy-up", params=_SETS)
def only_what_is_set_changes(bench: Bench, change: Callable[[str], object]) -> None:
    """On a file and on a directory; content and everything else stay, as on a plain file."""
    declared = {
        "f": File("content", mode=0o640, uid=3, gid=4, xattrs={"user.old": b"0"}),
        "d": Directory(mode=0o750),
        "d/x": File("x"),
    }
    place = f"{bench.dir}/plain"
    os.mkdir(place, 0o755)
    tree.make(place, declared)
    child = bench.prepare(bench.made(declared))
    with bench.writing(child) as root:
        for path in ("f", "d"):
            try:
                change(f"{place}/{path}")
            except OSError as error:
                raise Skipped(f"a plain file doesn't take that here either: {error.strerror}") from error
            change(f"{root}/{path}")
        require_equal(tree.read(root), tree.read(place), "mounted")
    require_equal(bench.tree(child), tree.read(place), "at rest")


@check("copy-up")
def taking_an_xattr_of_below_away(bench: Bench) -> None:
    """It must not shine through."""
    child = bench.prepare(bench.made({"f": File("x", xattrs={"user.a": b"1", "user.b": b"2"})}))
    with bench.writing(child) as root:
        os.removexattr(f"{root}/f", "user.a")
        same(os.listxattr(f"{root}/f"), ["user.b"], "xattrs")
    same(bench.tree(child)["f"].xattrs, (("user.b", b"2"),), "xattrs at rest")


@check("copy-up", claims=Behaviour.OPEN_FILES)
def a_file_open_before_its_first_change_sees_it(bench: Bench) -> None:
    """moby#12327: a log reader that opened the file before its writer did sees nothing, ever."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        fd = os.open(f"{root}/file", os.O_RDONLY)
        try:
            with open(f"{root}/file", "r+", encoding="ascii") as file:
                file.write("FILE")
            same(os.pread(fd, 10, 0), b"FILE", "what the file that was open before says")
        finally:
            os.close(fd)


@check("copy-up", claims=Behaviour.MAPPINGS)
def a_mapping_made_before_the_first_change_sees_it(bench: Bench) -> None:
    """overlayfs.rst, "Non-standard behavior": a shared mapping stays one of the file below."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        with open(f"{root}/file", "rb") as source:
            mapping = mmap.mmap(source.fileno(), 4, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        try:
            with open(f"{root}/file", "r+", encoding="ascii") as file:
                file.write("FILE")
            same(mapping[:], b"FILE", "what the mapping shows")
        finally:
            mapping.close()


@check("copy-up", claims=Behaviour.LOCKS, params={"flock": fcntl.flock, "fcntl": fcntl.lockf})
def a_lock_taken_before_the_first_change_holds(bench: Bench, lock: Callable[[int, int], object]) -> None:
    """Package managers lock a file of the image read-only, then write it."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        fd = os.open(f"{root}/file", os.O_RDONLY)
        try:
            lock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            pid = os.fork()
            if pid == 0:
                other = os.open(f"{root}/file", os.O_RDWR)
                try:
                    lock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os._exit(0)
                os._exit(1)
            same(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, "an exclusive lock beside the shared one was given (1)")
        finally:
            os.close(fd)


@check("copy-up", claims=Behaviour.STABLE_INODES, params={"file": "file", "directory": "dir", "symlink": "link"})
def device_and_inode_stay_when_first_changed(bench: Bench, path: str) -> None:
    """tar, rsync and inotify users take a new inode number for a new file (moby#19647)."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        before = os.lstat(f"{root}/{path}")
        os.utime(f"{root}/{path}", ns=(1, 1), follow_symlinks=False)
        after = os.lstat(f"{root}/{path}")
        same((after.st_dev, after.st_ino), (before.st_dev, before.st_ino), "device and inode")
    with bench.writing(child) as root:
        again = os.lstat(f"{root}/{path}")
        same(again.st_ino, before.st_ino, "the inode when mounted again")


@check("copy-up", claims=Fidelity.HARD_LINKS)
def a_write_through_one_name_is_seen_through_all(bench: Bench) -> None:
    """overlayfs.rst: copying up one name of a file with several breaks the link."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        with open(f"{root}/names/first", "r+", encoding="ascii") as file:
            file.write("NAMES")
        same(text_of(f"{root}/names/second"), "NAMES", "through the other name")
        same(os.stat(f"{root}/names/first").st_nlink, 2, "links of the one")
        same(os.stat(f"{root}/names/first").st_ino, os.stat(f"{root}/names/second").st_ino, "inode of the other")


@check("copy-up")
def a_new_name_for_a_file_of_below(bench: Bench) -> None:
    """link(2) of a file that has to come up first: both names are one file."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        os.link(f"{root}/file", f"{root}/dir/sub/link")
        with open(f"{root}/dir/sub/link", "r+", encoding="ascii") as file:
            file.write("LINK")
        same(text_of(f"{root}/file"), "LINK", "through the old name")
        same(os.stat(f"{root}/file").st_nlink, 2, "links")
        os.unlink(f"{root}/file")
        same(text_of(f"{root}/dir/sub/link"), "LINK", "after the old name is gone")
    with bench.reading(child) as root:
        same(text_of(f"{root}/dir/sub/link"), "LINK", "at rest")
        require(not os.path.lexists(f"{root}/file"), "the old name is back")


@check("copy-up")
def hard_links_made_in_the_layer_hold(bench: Bench) -> None:
    """Both files and the links are the layer's own."""
    child = bench.prepare(bench.made(BASE))
    bench.write(child, {"dir/new": File("x"), "other": tree.Link("dir/new")})
    with bench.writing(child) as root:
        with open(f"{root}/other", "r+", encoding="ascii") as file:
            file.write("Y")
        same(text_of(f"{root}/dir/new"), "Y", "through the other name")
    same(bench.tree(child)["other"].names, ("dir/new", "other"), "names at rest")


@check("copy-up")
def an_unlinked_file_stays_readable(bench: Bench) -> None:
    """As long as it is open; also one of the layers below."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        tree.make(root, {"own": File("own")})
        for name in ("file", "own"):
            fd = os.open(f"{root}/{name}", os.O_RDWR)
            os.unlink(f"{root}/{name}")
            same(os.pread(fd, 10, 0), name.encode(), "its content")
            os.write(fd, b"xxxx")
            same(os.pread(fd, 10, 0)[:4], b"xxxx", "what was written to it")
            os.close(fd)
            require(not os.path.lexists(f"{root}/{name}"), "it is still listed")


@check("copy-up")
def a_file_without_a_name_can_get_one(bench: Bench) -> None:
    """O_TMPFILE and linkat(2): how careful programs write."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        try:
            fd = os.open(f"{root}/dir", os.O_TMPFILE | os.O_RDWR, 0o640)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR}:
                raise
            raise Skipped(f"O_TMPFILE isn't supported: {error.strerror}") from error
        try:
            os.write(fd, b"unnamed")
            os.link(f"/proc/self/fd/{fd}", f"{root}/dir/named", src_dir_fd=fd, follow_symlinks=True)  # linkat(2), not link(2)
        finally:
            os.close(fd)
        same(text_of(f"{root}/dir/named"), "unnamed", "content")
    same(bench.said(child)[-1], "A dir/named", "the change")


@check("copy-up")
def a_socket_can_be_used(bench: Bench) -> None:
    """moby#12080: made in the layer, and connected to by its path."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        here = os.getcwd()
        os.chdir(f"{root}/dir")
        try:
            with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
                server.bind("s")
                server.listen()
                client.connect("s")
                server.accept()[0].sendall(b"hello")
                same(client.recv(5), b"hello", "what came through")
            require(stat.S_ISSOCK(os.stat("s").st_mode), "it is no socket")
            os.unlink("s")
        finally:
            os.chdir(here)


@check("copy-up")
def a_running_program_can_be_replaced_but_not_written(bench: Bench) -> None:
    """Package managers rename a new one over it; a write is ETXTBSY on a plain file, or goes to a copy of its own."""
    import shutil

    program = shutil.which("sleep")
    if program is None:
        raise Skipped("there is no program 'sleep'")
    with open(program, "rb") as file:
        base = bench.made({"bin/sleep": File(file.read(), mode=0o755)})
    child = bench.prepare(base)
    with bench.writing(child) as root:
        pid = os.posix_spawn(f"{root}/bin/sleep", ["sleep", "100"], dict(os.environ))
        try:
            tree.make(root, {"bin/new": File("new", mode=0o755)})
            os.rename(f"{root}/bin/new", f"{root}/bin/sleep")
            same(text_of(f"{root}/bin/sleep"), "new", "after the rename")
            same(os.waitpid(pid, os.WNOHANG), (0, 0), "the program, which should still run")
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


@check("copy-up")
def a_directory_that_is_read_while_it_changes_shows_each_name_once(bench: Bench) -> None:
    """What is deleted or added meanwhile may be there or not; the rest exactly once."""
    child = bench.prepare(bench.made({f"d/{number:03}": File("") for number in range(300)}))
    with bench.writing(child) as root:
        seen: list[str] = []
        with os.scandir(f"{root}/d") as entries:
            for number, entry in enumerate(entries):
                seen.append(entry.name)
                if number == 10:
                    for gone in range(200, 210):
                        os.unlink(f"{root}/d/{gone:03}")
                    tree.make(root, {"d/new": File("")})
                    with open(f"{root}/d/100", "w", encoding="ascii") as file:
                        file.write("changed")
        same(len(seen), len(set(seen)), "names seen, and different ones")
        wanted = {f"{number:03}" for number in range(300) if not 200 <= number < 210}
        same(wanted - set(seen), set(), "names that were there all the time and weren't seen")
        same(set(os.listdir(f"{root}/d")), wanted | {"new"}, "names afterwards")


@check("copy-up")
def a_name_in_several_layers_is_listed_once(bench: Bench) -> None:
    """Three layers with the same names, and each a directory's part."""
    layer = bench.made({"same": File("0"), "d/same": File("0"), "d/0": File("")})
    for number in (1, 2):
        layer = bench.made(lambda root, number=number: _write_again(root, number), layer)  # type: ignore[misc]
    top = bench.prepare(layer)
    with bench.writing(top) as root:
        same(sorted(os.listdir(root)), ["d", "same"], "names in the root")
        same(sorted(os.listdir(f"{root}/d")), ["0", "1", "2", "same"], "names in a directory of three layers")
        same(text_of(f"{root}/d/same"), "2", "the uppermost content")


def _write_again(root: str, number: int) -> None:
    for path in ("same", "d/same"):
        with open(f"{root}/{path}", "w", encoding="ascii") as file:
            file.write(str(number))
    tree.make(root, {f"d/{number}": File("")})


@check("copy-up", claims=Behaviour.DIRECTORY_LINKS)
def a_directorys_link_count_tells_its_subdirectories(bench: Bench) -> None:
    """find(1) relied on it (leaf optimisation); file systems may also say 1 for "don't know"."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        same(os.stat(f"{root}/dir").st_nlink, 3, "links of a directory with one subdirectory")
        os.mkdir(f"{root}/dir/new")
        same(os.stat(f"{root}/dir").st_nlink, 4, "links after mkdir")
        os.rmdir(f"{root}/dir/new")
        same(os.stat(f"{root}/dir").st_nlink, 3, "links after rmdir")


@check("copy-up")
def the_working_directory_may_be_removed(bench: Bench) -> None:
    """moby#19082: getcwd(2) fails with ENOENT, and not otherwise."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        here = os.getcwd()
        os.chdir(f"{root}/empty")
        try:
            same(os.getcwd(), f"{root}/empty", "the working directory")
            os.rmdir(f"{root}/empty")
            try:
                os.getcwd()
            except OSError as error:
                same(error.errno, errno.ENOENT, "the error")
            else:
                require(False, "a removed directory still has a path")
        finally:
            os.chdir(here)


@check("copy-up")
def what_is_listed_is_what_is_stated(bench: Bench) -> None:
    """The inode number and type that readdir(3) gives are those of stat(2), for files of below and of the layer."""
    child = bench.prepare(bench.made(BASE))
    with bench.writing(child) as root:
        tree.make(root, {"dir/new": File("x")})
        os.chmod(f"{root}/dir/one", 0o600)
        with os.scandir(f"{root}/dir") as entries:
            for entry in entries:
                info = os.lstat(entry.path)
                same(entry.is_dir(follow_symlinks=False), stat.S_ISDIR(info.st_mode), f"the type of '{entry.name}'")
                if not stat.S_ISDIR(info.st_mode):
                    same(entry.inode(), info.st_ino, f"the inode of '{entry.name}'")


@check("copy-up")
def chown_down_a_tree_reaches_everything(bench: Bench) -> None:
    """moby#20240, #24913, #28391: `chown -R` in a Dockerfile left directories out."""
    child = bench.prepare(bench.made(BASE))

    def chown(root: str) -> None:
        for at, folders, files in os.walk(root):
            for name in ("", *folders, *files):
                os.chown(f"{at}/{name}" if name else at, 31, 32, follow_symlinks=False)

    bench.write(child, chown)
    bench.driver.seal(child.key)
    found = bench.tree(bench.prepare(child))
    same({(facts.uid, facts.gid) for facts in found.values()}, {(31, 32)}, "owners in a child")
    same(sorted(found), sorted(bench.tree(child)), "paths")


@check("copy-up")
def directory_permissions_hold_over_three_layers(bench: Bench) -> None:
    """moby#27298: a directory's mode and owner after it was changed, removed, and made again."""
    import shutil

    base = bench.made({"one/f": File("x"), "two/f": File("x")})
    second = bench.prepare(base)

    def change(root: str) -> None:
        os.chown(f"{root}/one", 1, 2)
        os.chmod(f"{root}/one", 0o700)
        shutil.rmtree(f"{root}/two")

    bench.write(second, change)
    bench.driver.seal(second.key)
    third = bench.prepare(second)
    bench.write(third, {"two": Directory(mode=0o711, uid=3, gid=4), "one/g": File("g")})
    found = bench.tree(third)
    same((found["one"].mode, found["one"].uid, found["one"].gid), (0o700, 1, 2), "the changed one")
    same((found["two"].mode, found["two"].uid, found["two"].gid), (0o711, 3, 4), "the one made again")
    same(sorted(path for path in found if path.startswith("two")), ["two"], "what is in it")
