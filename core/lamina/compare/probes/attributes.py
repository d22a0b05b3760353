"""Extended attributes, ACLs, file capabilities and flags."""

import os

from lamina.compare import samples
from lamina.compare.catalogue import inside
from lamina.linux import uncommon


def _first_change(path: str) -> None:
    os.utime(path, ns=(1, samples.OLD_NS))


def _kept(path: str, name: str, value: bytes) -> str:
    if name not in os.listxattr(path) or os.getxattr(path, name) != value:
        return "not in the image"
    _first_change(path)
    return "kept" if name in os.listxattr(path) and os.getxattr(path, name) == value else "lost"


@inside(
    "Setting an ACL on a file of the image",
    why="Samba, systemd-journald and build systems give single users access by ACLs.",
    plain="ok",
)
def acl_set() -> str:
    os.setxattr("f2", samples.ACCESS_ACL, samples.ACL)
    return "ok" if os.getxattr("f2", samples.ACCESS_ACL) == samples.ACL else "changed"


@inside(
    "An ACL of the image when the file is first changed",
    why="An ACL that gets lost takes access away, or gives it to the whole group.",
    plain="kept",
)
def acl_kept() -> str:
    return _kept("acl", samples.ACCESS_ACL, samples.ACL)


@inside(
    "A default ACL on a directory of the image, in a file made there",
    why="Shared directories rely on it, so that everything new is open to the same people.",
    plain="inherited",
)
def acl_inherited() -> str:
    os.setxattr("d1", samples.DEFAULT_ACL, samples.ACL)
    with open("d1/new", "w", encoding="utf-8"):
        pass
    return "inherited" if samples.ACCESS_ACL in os.listxattr("d1/new") else "not inherited"


@inside(
    "Setting a user.* attribute on a file of the image",
    why="Desktop search, Samba and download managers write them.",
    plain="ok",
)
def user_xattr_set() -> str:
    os.setxattr("f1", "user.new", b"1")
    return "ok" if set(os.listxattr("f1")) == {"user.low", "user.new"} else "others are lost"


@inside(
    "A user.* attribute of the image when the file is first changed",
    why="Checksums, MIME types and Samba's DOS attributes are kept there.",
    plain="kept",
)
def user_xattr_kept() -> str:
    return _kept("f1", "user.low", b"lowval")


@inside(
    "A user.* attribute of a directory that two layers have",
    why="The upper layer's must win; a mixture of both would be nobody's.",
    plain="the upper layer's",
)
def directory_xattr() -> str:
    with open("d1/new", "w", encoding="utf-8"):
        pass
    return {b"from-ro1": "the upper layer's", b"from-ro2": "the lower layer's"}.get(os.getxattr("d1", "user.dirlow"), "lost")


@inside(
    "Removing an attribute that a file of the image has",
    why="Security labels and quarantine marks are removed on purpose; one that stays, even empty, still counts.",
    plain="gone",
)
def xattr_removed() -> str:
    os.removexattr("f1", "user.low")
    if "user.low" not in os.listxattr("f1"):
        return "gone"
    return "stays empty" if os.getxattr("f1", "user.low") == b"" else "stays"


@inside(
    "Setting a trusted.* attribute (by a process with all capabilities)",
    why="Gluster, storage daemons and nested container engines keep their own marks there.",
    plain="ok",
    privileged=True,
)
def trusted_xattr_set() -> str:
    os.setxattr("f1", "trusted.mine", b"1")
    return "ok" if "trusted.mine" in os.listxattr("f1") else "not listed"


@inside(
    "A trusted.* attribute of the image when the file is first changed",
    why="The same programs lose what they know of the file.",
    plain="kept",
    privileged=True,
)
def trusted_xattr_kept() -> str:
    return _kept("trusted", "trusted.sample", b"1")


@inside(
    "Setting trusted.overlay.opaque (by a process with all capabilities)",
    why="A container engine in a container marks its directories by it, if it stacks overlayfs itself.",
    plain="ok",
    privileged=True,
)
def overlay_xattr_set() -> str:
    os.mkdir("mine")
    os.setxattr("mine", "trusted.overlay.opaque", b"y")
    return "ok" if os.getxattr("mine", "trusted.overlay.opaque") == b"y" else "lost"


@inside(
    "A file capability of the image when the file is first changed",
    why="ping and servers on low ports run without root by it; without it they stop working.",
    plain="kept",
)
def capability_kept() -> str:
    return _kept("cap", "security.capability", samples.FILE_CAPABILITY)


@inside(
    "A file capability when the file is written to",
    why="It has to go, or who may write to a program could give himself its rights.",
    plain="is cleared",
)
def capability_cleared() -> str:
    with open("cap", "a", encoding="utf-8") as file:
        file.write("x")
    return "stays" if "security.capability" in os.listxattr("cap") else "is cleared"


@inside(
    "Making a file of the image immutable (chattr +i, by a process with all capabilities)",
    why="Hardening scripts and DHCP clients protect resolv.conf and the like with it.",
    plain="ok",
    privileged=True,
)
def immutable() -> str:
    fd = os.open("f2", os.O_RDONLY)
    uncommon.set_immutable(fd, True)
    try:
        os.close(os.open("f2", os.O_WRONLY))
    except PermissionError:
        return "ok"
    finally:
        uncommon.set_immutable(fd, False)
    return "no effect"
