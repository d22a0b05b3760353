"""Where lamina can't work: without root's rights, and on a file system that the chosen driver can't use."""

import os
import subprocess
from pathlib import Path

from cases import PROGRAM

from lamina.engine import Engine
from lamina.errors import LaminaError
from lamina.linux import mount as lm


def test_without_roots_rights_it_is_one_line(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            Engine(root_dir=str(tmp_path / "root"))
        except LaminaError as error:
            os.write(write, f"{error.message} ({error.hint})".encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    assert os.read(read, 1000) == b"lamina must be run as root (use sudo)"
    os.close(read)
    assert not (tmp_path / "root").exists()


def test_a_driver_that_cannot_work_on_this_file_system_says_why_and_leaves_nothing(
    prepared_roots: dict[str, Path], tmp_path: Path, own_mounts: None
) -> None:
    """Overlayfs can't lie on overlayfs: the store is put on one."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = (("lowerdir+", str(tmp_path / "lower")), ("upperdir", str(tmp_path / "upper")), ("workdir", str(tmp_path / "work")))
    fd = lm.fsmount("overlay", options)
    lm.move_mount(fd, str(tmp_path / "merged"))
    os.close(fd)
    root = tmp_path / "merged" / "root"
    subprocess.run(["cp", "--archive", str(prepared_roots["vfs"]), str(root)], check=True)

    def lamina(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([PROGRAM, "--root", str(root), *words], capture_output=True, text=True, check=False)

    refused = lamina("run", "--rm", "--storage-driver", "overlay", "busybox", "true")
    assert refused.returncode == 125
    assert refused.stderr.startswith("error: storage driver 'overlay' can't work here: ")
    assert refused.stderr.count("\n") == 1
    assert lamina("ps", "-aq").stdout == ""
    assert not (root / "overlay").exists()
    assert lamina("run", "--rm", "--storage-driver", "vfs", "busybox", "echo", "whole").stdout == "whole\n"
    lm.unmount(str(tmp_path / "merged"), detach=True)
