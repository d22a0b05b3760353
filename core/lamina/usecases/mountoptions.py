"""What mount options mean to the kernel, as data. Why a driver uses one is the driver's to say (`storage_explain`)."""

from lamina.model.mount import Mount, MountFlag

MEANINGS = {
    ("overlay", "lowerdir+"): "one lower layer; the first is the uppermost of them",
    ("overlay", "lowerdir"): "the lower layers, the uppermost first",
    ("overlay", "upperdir"): "the writable layer",
    ("overlay", "workdir"): "overlayfs's own directory, on the upper layer's file system",
    ("overlay", "index=off"): "hard links of lower files are broken when one of them is copied up",
    ("overlay", "index=on"): "hard links of lower files hold when one of them is copied up",
    ("overlay", "redirect_dir=nofollow"): "rename(2) of a lower directory is EXDEV, and redirects of others aren't followed",
    ("overlay", "redirect_dir=on"): "a lower directory can be renamed: the upper layer notes from where",
    ("overlay", "redirect_dir=off"): "rename(2) of a lower directory is EXDEV",
    ("overlay", "metacopy=off"): "the first change of a lower file, if only of its mode, copies all of it",
    ("overlay", "metacopy=on"): "a change of a lower file's mode or owner copies no bytes",
    ("overlay", "volatile"): "nothing is made durable: after a crash the layer can't be trusted",
    ("overlay", "userxattr"): "marks are user.overlay.* and not trusted.overlay.* attributes",
    ("overlay", "xino=off"): "inode numbers are those of the layers' files",
    ("overlay", "xino=auto"): "inode numbers tell the layers apart where there are bits left",
    ("overlay", "uuid=on"): "the union has a persistent file system id",
    ("overlay", "nfs_export=off"): "file handles of the union can't be made",
    ("aufs", "br:"): "the branches, the first one writable",
    ("aufs", "append:"): "one more branch below the others",
    ("aufs", "dio"): "O_DIRECT is allowed",
    ("aufs", "dirperm1"): "only the topmost branch's directory permissions count",
    ("aufs", "xino"): "where the table of inode numbers is",
    ("tmpfs", "size"): "the most that it may hold",
    ("tmpfs", "mode"): "the mode of its root",
    ("tmpfs", "nr_inodes"): "how many files it may hold",
    ("", "ro"): "nothing can be written",
    ("", "rw"): "it can be written",
    ("", "nosuid"): "set-user-ID and set-group-ID bits and file capabilities have no effect",
    ("", "nodev"): "device files can't be opened",
    ("", "noexec"): "programs can't be executed",
    ("", "noatime"): "reading leaves access times alone",
    ("", "relatime"): "an access time is written only if it is a day old or older than the last change",
    ("", "strictatime"): "every reading moves the access time",
}  # fmt: skip
"""(file system, option): meaning. "" is for every file system; an option is named alone or with its value."""

_FLAG_WORDS = {
    MountFlag.RDONLY: "ro", MountFlag.NOSUID: "nosuid", MountFlag.NODEV: "nodev", MountFlag.NOEXEC: "noexec",
    MountFlag.NOATIME: "noatime", MountFlag.STRICTATIME: "strictatime",
}  # fmt: skip


def options_of(mount: Mount) -> list[tuple[str, str | None]]:
    """List a mount's flags and options in one form."""
    return [(word, None) for flag, word in _FLAG_WORDS.items() if flag in mount.flags] + list(mount.options)


def meaning(fstype: str, key: str, value: str | None) -> str:
    """Say what an option means to the kernel; "" if that isn't known here."""
    names = [f"{key}={value}", key]
    return next((MEANINGS[kind, name] for kind in (fstype, "") for name in names if (kind, name) in MEANINGS), "")
