"""The images that containers are made from: known files in `/lab`, in layers, over the host's own programs.

The two layers of the probes' image are those that aufs itself was asked about (`data/aufs.json`): files, directories that both
layers have, hard links, a symlink, a fifo, a device, a sparse file. What the record has no word for is in a third.
"""

import os
from collections.abc import Callable
from contextlib import suppress

from lamina.archive.compression import Writable
from lamina.archive.writer import write_tree
from lamina.engine import Engine
from lamina.linux.fs import remove_tree
from lamina.model.reference import Reference
from lamina.store.image_build import add_layer_image

LAB = "/lab"
PROBED, STORED, BIG, SMALL = "compare-probed", "compare-stored", "compare-big", "compare-small"
OLD_S = 1_500_000_000
OLD_NS = OLD_S * 10**9 + 123_456_789
BIG_BYTES = 1 << 19
SPARSE_BYTES, SPARSE_AT, SPARSE_DATA_BYTES = 16 << 20, 4 << 20, 4096
MANY = 100
COPIES = 14
"""How often the tree is in the probes' image, at `/lab/0` and so on: so many probes share a container, each with its own."""

ACCESS_ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
# linux/posix_acl_xattr.h, version 2: user::rw-, user:1234:rw-, group::r--, mask::rw-, other::r--
ACL = bytes.fromhex("0200000001000600ffffffff02000600d204000004000400ffffffff10000600ffffffff20000400ffffffff")
# linux/capability.h: vfs_cap_data revision 2, cap_net_raw permitted and effective
FILE_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def pattern(size_bytes: int) -> bytes:
    """Bytes none of whose blocks is empty, the same each time."""
    return b"".join(number.to_bytes(8, "big") * 512 for number in range(1, size_bytes // 4096 + 1))


def make_probed(engine: Engine, scratch_dir: str) -> None:
    """Make the image of the probes."""
    engine.images.bootstrap("compare-base")
    for number, fill in enumerate((_lower, _upper, _more)):
        _add_layer(engine, scratch_dir, "compare-base" if number == 0 else PROBED, PROBED, _each_copy(fill))
    add_layer_image(
        engine.images.store,
        base=engine.images.get(PROBED),
        write_layer=_write_sparse,
        names=[Reference.parse(PROBED)],
    )


def copy_dir(number: int) -> str:
    """Name the directory of a copy of the tree, as a container sees it."""
    return f"{LAB}/{number}"


def _each_copy(fill: Callable[[str], None]) -> Callable[[str], None]:
    def fill_all(top: str) -> None:
        for number in range(COPIES):
            os.mkdir(f"{top}/{number}")
            fill(f"{top}/{number}")

    return fill_all


def make_filled(engine: Engine, scratch_dir: str, name: str, size_bytes: int) -> None:
    """Make an image with one file `/lab/file` of that size, every block of it in use."""

    def fill(top: str) -> None:
        with open(f"{top}/file", "wb") as file:
            for start in range(0, size_bytes, 1 << 20):
                file.write(pattern(min(1 << 20, size_bytes - start)))

    engine.images.bootstrap("compare-base")
    _add_layer(engine, scratch_dir, "compare-base", name, fill)


def make_second(engine: Engine, scratch_dir: str, base: str, name: str) -> None:
    """Make an image of another one and a small layer more."""

    def fill(top: str) -> None:
        put(f"{top}/second", "one more\n")

    _add_layer(engine, scratch_dir, base, name, fill)


def _add_layer(engine: Engine, scratch_dir: str, base: str, name: str, fill: Callable[[str], None]) -> None:
    tree = os.path.join(scratch_dir, "layer")
    top = tree + LAB
    os.makedirs(top)
    try:
        fill(top)
        _age(top)
        add_layer_image(
            engine.images.store,
            base=engine.images.get(base),
            write_layer=lambda out: write_tree(out, tree),
            names=[Reference.parse(name)],
        )
    finally:
        remove_tree(tree)


def _write_sparse(out: Writable) -> None:
    """Write the layer with `sparse`, in GNU tar's form for files with holes, which a layer made of a tree doesn't have."""
    from tarfile import GNU_FORMAT, TarInfo  # 14 ms

    for number in range(COPIES):
        info = TarInfo(f"{copy_dir(number)[1:]}/sparse")
        info.type, info.size, info.mtime = b"S", SPARSE_DATA_BYTES, OLD_S
        header = bytearray(info.tobuf(GNU_FORMAT))
        for at, value in ((386, SPARSE_AT), (398, SPARSE_DATA_BYTES), (410, SPARSE_BYTES), (422, 0), (483, SPARSE_BYTES)):
            header[at : at + 12] = b"%011o\0" % value  # where data begins and how much it is, twice; the whole size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        out.write(bytes(header) + pattern(SPARSE_DATA_BYTES))
    out.write(bytes(1024))


def _age(top: str) -> None:
    for directory, directories, files in os.walk(top, topdown=False):
        for each in (*files, *directories):
            os.utime(os.path.join(directory, each), ns=(OLD_NS, OLD_NS), follow_symlinks=False)
    os.utime(top, ns=(OLD_NS, OLD_NS))


def put(path: str, text: str, *, mode: int = 0o644) -> None:
    """Write a small file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def _directories(top: str) -> None:
    os.mkdir(f"{top}/d1")
    os.chown(f"{top}/d1", 1000, 1001)
    os.chmod(f"{top}/d1", 0o750)


def _set_xattr(path: str, name: str, value: bytes) -> None:
    with suppress(OSError):  # a scratch directory on a file system without: then no container here has them either
        os.setxattr(path, name, value, follow_symlinks=False)


def _lower(top: str) -> None:
    """The record's `ro2`."""
    put(f"{top}/f1", "f1-from-ro2\n", mode=0o640)
    os.chown(f"{top}/f1", 1000, 1001)
    _set_xattr(f"{top}/f1", "user.low", b"lowval")
    put(f"{top}/f2", "f2-from-ro2\n")
    _directories(top)
    _set_xattr(f"{top}/d1", "user.dirlow", b"from-ro2")
    put(f"{top}/d1/a", "d1/a\n")
    put(f"{top}/d1/b", "d1/b\n")
    os.makedirs(f"{top}/d1/sub/deep")
    put(f"{top}/d1/sub/c", "c\n")
    put(f"{top}/d1/sub/deep/e", "e\n")
    os.chmod(f"{top}/d1/sub", 0o2711)
    os.mkdir(f"{top}/empty")
    os.symlink("f1", f"{top}/ln")
    os.mkfifo(f"{top}/fifo", 0o666)
    put(f"{top}/h1", "hard\n")
    os.link(f"{top}/h1", f"{top}/h2")
    os.link(f"{top}/h1", f"{top}/d1/h3")
    os.mknod(f"{top}/null", 0o020666, os.makedev(1, 3))
    with open(f"{top}/big", "wb") as file:
        file.write(pattern(BIG_BYTES))
    put(f"{top}/suid", "#!\n", mode=0o4755)


def _upper(top: str) -> None:
    """The record's `ro1`."""
    put(f"{top}/f2", "f2-from-ro1\n")
    _directories(top)
    _set_xattr(f"{top}/d1", "user.dirlow", b"from-ro1")
    put(f"{top}/d1/x", "d1/x from ro1\n")


def _more(top: str) -> None:
    put(f"{top}/acl", "acl\n")
    _set_xattr(f"{top}/acl", ACCESS_ACL, ACL)
    put(f"{top}/cap", "#!\n", mode=0o755)
    _set_xattr(f"{top}/cap", "security.capability", FILE_CAPABILITY)
    put(f"{top}/trusted", "t\n")
    _set_xattr(f"{top}/trusted", "trusted.sample", b"1")
    os.mkdir(f"{top}/many")
    for number in range(MANY):
        put(f"{top}/many/{number:04}", "")
    os.mkdir(f"{top}/open", 0o777)
    os.chmod(f"{top}/open", 0o777)
