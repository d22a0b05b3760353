"""Run a command in a virtual machine that boots Debian's own kernel: `machine.py COMMAND [ARGUMENT…]`.

The machine's files are this machine's: `/` is shared read-only (virtiofs) and covered by an empty disk that takes what is written
and ends with the machine, so nothing is installed, copied or changed. Only the kernel is another: the package that
`set-up.sh vm` unpacked into .venv/vm. The command runs as root in this directory, with all controllers of cgroup v2 at
/sys/fs/cgroup, an ext4 for temporary files and no network but the loopback; its output and its exit status are ours.

What happens in there, from the kernel's first process on, is in `init`. Without hardware that virtualises, the processor is
emulated: a tenth of the speed, and good enough.
"""

import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TOP = HERE.parent.parent
KERNELS = TOP / ".venv/vm"
SECURITY = os.environ.get("VM_SECURITY", "apparmor")
"""The security module that is to be the kernel's, as only one of `apparmor` and `selinux` can be."""
MEMORY, DISK_BYTES = "3G", 32 << 30
TIMEOUT_S = float(os.environ.get("VM_TIMEOUT_S", "3600"))
MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "virtiofs", "overlay", "ext4")
"""What it takes to reach the root: the rest is loaded from there when the kernel asks for it."""
VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
DIED = 70
"""The exit status if the machine ended without saying how the command did."""


def main(command: list[str]) -> int:
    """Boot, run the command, and give its exit status."""
    if platform.machine() != "x86_64" or os.geteuid() != 0:
        sys.exit("machine.py: needs root, and an x86_64 to run Debian's kernel for it")
    kernels = sorted(KERNELS.glob("*/boot/vmlinuz-*"))
    if not kernels:
        sys.exit("machine.py: no kernel in .venv/vm: run 'sh scripts/set-up.sh vm'")
    kernel = kernels[-1]
    release = kernel.name.removeprefix("vmlinuz-")
    modules = kernel.parent.parent / "lib/modules" / release
    with tempfile.TemporaryDirectory(prefix="lamina-vm-") as name:
        place = Path(name)
        (place / "initramfs").write_bytes(initramfs(modules, command))
        with (place / "disk").open("wb") as disk:
            disk.truncate(DISK_BYTES)
        make = ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(place / "disk")]
        subprocess.run(make, check=True, env={**os.environ, "PATH": PATH})
        return boot(kernel, place)


def boot(kernel: Path, place: Path) -> int:
    """Start the file server and the machine, and wait for both."""
    server = next((path for path in VIRTIOFSD if os.access(path, os.X_OK)), None) or shutil.which("virtiofsd")
    if server is None:
        sys.exit("machine.py: virtiofsd is not installed: run 'sh scripts/set-up.sh vm'")
    shared = place / "files"
    with socket.socket(socket.AF_UNIX) as listening, (place / "virtiofsd.log").open("wb") as log:
        listening.bind(str(shared))
        listening.listen()
        files = subprocess.Popen(
            [server, f"--fd={listening.fileno()}", "-o", "source=/,sandbox=chroot,cache=always"],
            pass_fds=[listening.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        status = subprocess.run(qemu(kernel, place, shared), check=False, timeout=TIMEOUT_S).returncode
    finally:
        files.terminate()
        files.wait()
    if (said := (place / "status").read_text(encoding="ascii").strip()).isdigit():
        return int(said)
    print(f"machine.py: the machine ended (qemu: {status}) before the command did", file=sys.stderr)
    print((place / "virtiofsd.log").read_text(errors="replace")[-2000:], end="", file=sys.stderr)
    return DIED


def qemu(kernel: Path, place: Path, shared: Path) -> list[str]:
    """The machine: two processors, the shared root, a disk, and a serial line that is our terminal."""
    return [
        "qemu-system-x86_64", *processor(), "-smp", str(min(os.cpu_count() or 1, 4)), "-m", MEMORY,
        "-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on", "-machine", "q35,memory-backend=memory",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-kernel", str(kernel), "-initrd", str(place / "initramfs"), "-append",
        f"console=ttyS0 panic=-1 loglevel=3 security={SECURITY}",
        "-chardev", f"socket,id=files,path={shared}", "-device", "vhost-user-fs-pci,chardev=files,tag=files,queue-size=1024",
        "-drive", f"file={place}/disk,format=raw,if=virtio,cache=unsafe,discard=unmap",
        "-device", "virtio-serial-pci", "-chardev", f"file,id=status,path={place}/status",
        "-device", "virtserialport,chardev=status,name=status", "-device", "virtio-rng-pci",
    ]  # fmt: skip


def processor() -> list[str]:
    """Let the processor virtualise if it says that it can; there are machines that have /dev/kvm and can't."""
    words = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    if ("vmx" in words or "svm" in words) and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max"]


def initramfs(modules: Path, command: list[str]) -> bytes:
    """Pack what the kernel starts with: busybox, the modules to get at the root, `init`, and what to run."""
    busybox = shutil.which("busybox")
    if busybox is None:
        sys.exit("machine.py: busybox is not installed")
    order = in_order(modules, MODULES)
    term = os.environ.get("TERM", "dumb") if sys.stdout.isatty() else "dumb"
    todo = {"modules": str(modules), "directory": os.getcwd(), "command": shlex.join(command), "path": PATH, "term": term}
    todo |= {"security": SECURITY, "policy": str(KERNELS / "selinux")}
    folders = ("bin", "dev", "proc", "sys", "root", "files", "disk", "modules")
    entries: list[tuple[str, int, bytes]] = [(name, 0o040755, b"") for name in folders]
    entries += [("bin/busybox", 0o100755, Path(busybox).read_bytes()), ("init", 0o100755, (HERE / "init").read_bytes())]
    entries += [(f"modules/{number:02}", 0o100644, path.read_bytes()) for number, path in enumerate(order)]
    entries += [("todo", 0o100644, "".join(f"{key}={shlex.quote(value)}\n" for key, value in todo.items()).encode())]
    return b"".join(cpio(*entry) for entry in [*entries, ("TRAILER!!!", 0, b"")])


def in_order(modules: Path, wanted: tuple[str, ...]) -> list[Path]:
    """List the files of modules and of those they need, in the order to load them (modules.dep); those built in have none."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        needs[name] = rest.split()
    order: list[str] = []
    for module in wanted:
        for name, below in needs.items():
            if Path(name).name.partition(".")[0] == module:
                order += [each for each in (*reversed(below), name) if each not in order]
    return [modules / name for name in order]


def cpio(name: str, mode: int, content: bytes) -> bytes:
    """Make an entry of an archive in the form "newc" (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    path = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(DIED))  # so that nothing is left of a machine that is stopped
    sys.exit(main(sys.argv[1:]))
