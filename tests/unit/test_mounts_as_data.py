"""Mounts as values: how they are said, and what a user's tmpfs becomes."""

import pytest

from lamina.linux import mount as lm
from lamina.linux.mountinfo import _unescape
from lamina.model.mount import Mount, MountFlag
from lamina.usecases.mounting import tmpfs_mount

SAFE = MountFlag.NOEXEC | MountFlag.NOSUID | MountFlag.NODEV


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        (Mount(type="bind", source="/s", target="/t"), "mount --bind /s /t"),
        (Mount(type="bind", source="/s", target="/t", flags=MountFlag.BIND | MountFlag.REC), "mount --rbind /s /t"),
        (
            Mount(type="bind", source="/s", target="/t", flags=MountFlag.BIND | MountFlag.RDONLY),
            "mount --bind -o rdonly /s /t",
        ),
        (Mount(type="tmpfs", target="/t"), "mount -t tmpfs none /t"),
        (
            Mount(
                type="overlay", source="overlay", target="/m",
                options=(("lowerdir+", "/a"), ("lowerdir+", "/b"), ("upperdir", "/u"), ("metacopy", None)),
            ),
            "mount -t overlay -o lowerdir+=/a,lowerdir+=/b,upperdir=/u,metacopy overlay /m",
        ),
        (Mount(type="aufs", target="/m", options=(("br:", "/a=rw"),)), "mount -t aufs -o br:/a=rw none /m"),
    ],
)  # fmt: skip
def test_a_mount_says_itself_as_a_command_line(mount: Mount, text: str):
    assert mount.describe() == text


def test_the_flags_numbers_are_the_kernels():
    for flag in MountFlag:
        if flag:
            assert int(flag) == getattr(lm, f"MS_{flag.name}")


def test_equal_mounts_are_equal_and_can_be_keys():
    assert Mount(type="tmpfs", target="/t") == Mount(type="tmpfs", target="/t")
    assert len({Mount(type="tmpfs", target="/t"), Mount(type="tmpfs", target="/t")}) == 1


def test_a_users_tmpfs_is_safe_unless_he_says_otherwise():
    assert tmpfs_mount({}) == Mount(type="tmpfs", target="", flags=SAFE, options=(("mode", "1777"),))
    assert tmpfs_mount({"exec": "", "dev": ""}).flags == MountFlag.NOSUID
    assert tmpfs_mount({"noatime": ""}).flags == SAFE | MountFlag.NOATIME


def test_a_users_tmpfs_options_reach_the_file_system_and_its_flags_do_not():
    assert tmpfs_mount({"size": "64m", "mode": "700", "ro": "", "rw": "", "noexec": ""}).options == (
        ("mode", "700"),
        ("size", "64m"),
    )


@pytest.mark.parametrize(
    ("line", "path"),
    [("/a", "/a"), ("/a\\040b", "/a b"), ("/a\\012b\\011c", "/a\nb\tc"), ("/a\\134b", "/a\\b"), ("/a\\134040b", "/a\\040b")],
)
def test_mountinfo_paths_are_read_as_the_kernel_writes_them(line: str, path: str):
    assert _unescape(line) == path
