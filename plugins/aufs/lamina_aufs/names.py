"""Names: aufs's reserved ones (aufs(5)), the driver's folder.

home/diff/KEY/                the layer's files in aufs's format (Docker's)
home/layers/KEY               the parents' keys, nearest first, one a line (Docker's)
home/mnt/KEY/                 where the union is mounted (Docker's)
home/{diff,mnt,...}/KEY-removing   on its way out (Docker's)
home/work/KEY/                of a layer that was made here: overlayfs's workdir, and
    form -> NAME              in which form diff/KEY is (`Form`); not there: aufs's, or a mix after a crash
    aside/                    aufs's bookkeeping entries while the layer is mounted
    refused/                  names beginning with `.wh.` that a container made
home/companions/KEY/          of a layer that is final, or at rest: see companions.py
    above/, below/
home/quota/KEY                of a layer whose size is limited: see lamina.api.quota
home/empty/                   a lower layer for a layer that has none
home/new/                     half-made things, each with its maker's pid
"""

from enum import StrEnum

PREFIX = ".wh."
OPAQUE = ".wh..wh..opq"
BASE = ".wh..wh.aufs"
"""The file that all whiteouts are hard links of."""
ORPHANS, PSEUDO_LINKS = ".wh..wh.orph", ".wh..wh.plnk"
BOOKKEEPING = (BASE, ORPHANS, PSEUDO_LINKS)
MAX_NAME_BYTES = 242
MAX_DEPTH = 127
REMOVING = "-removing"

OVERLAY_XATTRS = "trusted.overlay."
OVERLAY_OPAQUE = "trusted.overlay.opaque"
OVERLAY_ESCAPED = "trusted.overlay.overlay."
"""A container's own `trusted.overlay.*` attribute, as overlayfs keeps it (Linux 6.7)."""
FUSE_XATTRS = "user.fuseoverlayfs."
MTIME_XATTR = "trusted.overlay.lamina.times"
"""A directory's times while its entries are converted. In overlayfs's own name space, so that no container sees or sets it."""


class Form(StrEnum):
    """In which form a layer's `diff/KEY` is."""

    PLAIN = "plain"
    """No whiteout, no opaque directory, no attribute of overlayfs's: the same in every form, but for the bookkeeping entries."""
    AUFS = "aufs"
    OVERLAY = "overlay"
    FUSE = "fuse-overlayfs"
    OVERLAY_ENDING = "overlay-ending"
    """As `OVERLAY`, while the names that a container should not have made are taken away."""
    FUSE_ENDING = "fuse-overlayfs-ending"

    @property
    def is_mounted(self) -> bool:
        """Whether device 0:0 is the only whiteout in this form."""
        return self not in {Form.PLAIN, Form.AUFS}

    @property
    def is_fuse(self) -> bool:
        """Whether fuse-overlayfs wrote it."""
        return self in {Form.FUSE, Form.FUSE_ENDING}


def diff_dir(home: str, key: str) -> str:
    """Where the layer's files are."""
    return f"{home}/diff/{key}"


def layers_path(home: str, key: str) -> str:
    """The file that lists the layer's parents."""
    return f"{home}/layers/{key}"


def mnt_dir(home: str, key: str) -> str:
    """Where the layer's union is mounted."""
    return f"{home}/mnt/{key}"


def work_dir(home: str, key: str) -> str:
    """The directory of ours and overlayfs's that belongs to a writable layer."""
    return f"{home}/work/{key}"


def companions_dir(home: str, key: str) -> str:
    """The directory of a layer's companions; it is there, perhaps empty, once the layer has been searched for whiteouts."""
    return f"{home}/companions/{key}"


def empty_dir(home: str) -> str:
    """A directory that stays empty."""
    return f"{home}/empty"
