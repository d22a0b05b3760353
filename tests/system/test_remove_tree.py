"""remove_tree: any depth, no mount crossed, immutable files too, several processes at once."""

import errno
import os
import resource
import subprocess

import pytest

from lamina.linux import mount
from lamina.linux.fs import remove_tree


def _nested(top: str, depth: int) -> None:
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for level in range(depth):
            os.mkdir("d", dir_fd=fd)
            os.close(os.open(f"f{level % 7}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
            deeper = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = deeper
    finally:
        os.close(fd)


def test_five_thousand_nested_directories_go_with_few_descriptors(root_dir: str) -> None:
    top = os.path.join(root_dir, "top")
    os.mkdir(top)
    _nested(top, 5000)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(name) for name in os.listdir("/proc/self/fd")) + 8, limits[1]))
    try:
        remove_tree(top)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        left = os.listdir(root_dir)
        subprocess.run(["rm", "-rf", top], check=True)  # pytest's own clean-up is recursive
    assert left == []


def test_wide_trees_files_and_missing_paths(root_dir: str) -> None:
    for name in range(300):
        os.makedirs(f"{root_dir}/wide/{name}/sub")
        with open(f"{root_dir}/wide/{name}/file", "w"):
            pass
    remove_tree(f"{root_dir}/wide/")
    with open(f"{root_dir}/one", "w"):
        pass
    remove_tree(f"{root_dir}/one")
    remove_tree(f"{root_dir}/none")
    remove_tree(f"{root_dir}/none/below")
    assert os.listdir(root_dir) == []


def test_symlinks_are_deleted_and_never_followed(root_dir: str) -> None:
    os.makedirs(f"{root_dir}/kept/dir")
    os.makedirs(f"{root_dir}/top")
    os.symlink(f"{root_dir}/kept", f"{root_dir}/top/link")
    os.symlink(f"{root_dir}/kept", f"{root_dir}/link")
    remove_tree(f"{root_dir}/top")
    remove_tree(f"{root_dir}/link")
    assert os.listdir(root_dir) == ["kept"]
    assert os.listdir(f"{root_dir}/kept") == ["dir"]


def test_immutable_files_and_directories_are_deleted(root_dir: str) -> None:
    os.makedirs(f"{root_dir}/top/dir/empty")
    with open(f"{root_dir}/top/dir/file", "w"):
        pass
    with open(f"{root_dir}/top/append", "w"):
        pass
    for flag, path in (("+i", "top/dir/file"), ("+i", "top/dir/empty"), ("+i", "top/dir"), ("+a", "top/append"), ("+a", "top")):
        subprocess.run(["chattr", flag, f"{root_dir}/{path}"], check=True)
    remove_tree(f"{root_dir}/top")
    assert os.listdir(root_dir) == []


@pytest.mark.parametrize("kind", ["another file system", "a directory of the same one", "a file"])
def test_what_is_mounted_below_is_refused_and_kept(root_dir: str, kind: str) -> None:
    os.makedirs(f"{root_dir}/top/a/point")
    os.makedirs(f"{root_dir}/source")
    target = f"{root_dir}/top/a/point"
    with open(f"{root_dir}/source/kept", "w"):
        pass
    if kind == "a file":
        target = f"{root_dir}/top/a/file"
        with open(target, "w"):
            pass
        mount.mount(f"{root_dir}/source/kept", target, None, mount.MS_BIND)
    elif kind == "another file system":
        mount.mount("none", target, "tmpfs")
        with open(f"{target}/kept", "w"):
            pass
    else:
        mount.mount(f"{root_dir}/source", target, None, mount.MS_BIND)
    try:
        with pytest.raises(OSError) as caught:
            remove_tree(f"{root_dir}/top")
        assert caught.value.errno == errno.EBUSY
        assert os.path.exists(f"{root_dir}/source/kept")
        assert kind == "a file" or os.path.exists(f"{target}/kept")
    finally:
        mount.unmount(target)
    remove_tree(f"{root_dir}/top")
    assert os.listdir(root_dir) == ["source"]


def test_two_processes_may_delete_one_tree_together(root_dir: str) -> None:
    for _ in range(5):
        for name in range(400):
            os.makedirs(f"{root_dir}/top/{name % 20}/{name}/x/y/z")
            with open(f"{root_dir}/top/{name % 20}/{name}/x/file", "w"):
                pass
        pids = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    remove_tree(f"{root_dir}/top")
                    code = 0
                finally:
                    os._exit(code)
            pids.append(pid)
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]
        assert os.listdir(root_dir) == []


def test_a_directory_that_is_moved_away_meanwhile_leads_nowhere_else(root_dir: str) -> None:
    """Somebody moves what we are in to another place: that place's other things must stay."""
    for name in range(10):
        os.makedirs(f"{root_dir}/elsewhere/{name}/kept")
    for _ in range(3):
        os.makedirs(f"{root_dir}/top/a/b")
        for name in range(10):
            os.makedirs(f"{root_dir}/top/a/{name}")
        for name in range(60):
            os.makedirs(f"{root_dir}/top/a/b/{name}/x")
        pid = os.fork()
        if pid == 0:
            try:
                while True:
                    for source, target in (("top/a/b", "elsewhere/b"), ("elsewhere/b", "top/a/b")):
                        try:
                            os.rename(f"{root_dir}/{source}", f"{root_dir}/{target}")
                        except OSError:
                            if not os.path.exists(f"{root_dir}/top"):
                                os._exit(0)
            finally:
                os._exit(0)
        remove_tree(f"{root_dir}/top")
        os.waitpid(pid, 0)
        assert all(os.path.isdir(f"{root_dir}/elsewhere/{name}/kept") for name in range(10))
        remove_tree(f"{root_dir}/elsewhere/b")
    assert sorted(os.listdir(root_dir)) == ["elsewhere"]
