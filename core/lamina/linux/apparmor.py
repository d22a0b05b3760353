"""AppArmor: whether it is on, which profiles are loaded, and loading one.

Sources: apparmorfs (security/apparmor/apparmorfs.c), apparmor.d(5), apparmor_parser(8).
"""

import os

from lamina.errors import NotUsableError

FILE_SYSTEM = "/sys/kernel/security/apparmor"
PARSER_DIRS = "/usr/sbin:/sbin"
"""Where distributions have the parser; not every root's PATH has them."""


def is_enabled() -> bool:
    """Whether the kernel confines by AppArmor."""
    try:
        with open("/sys/module/apparmor/parameters/enabled", encoding="utf-8") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def is_loaded(name: str) -> bool:
    """Whether a profile is loaded; False also where the kernel's list of them is not to be seen."""
    try:
        listed = os.listdir(f"{FILE_SYSTEM}/policy/profiles")  # NAME.NUMBER
    except FileNotFoundError:
        return False
    return any(each.rpartition(".")[0] == name for each in listed)


def parser() -> str:
    """Give the path of the program that compiles and loads profiles; "" where none can be loaded."""
    if not os.path.isdir(f"{FILE_SYSTEM}/policy"):  # as in a container: another system has the kernel's AppArmor
        return ""
    from shutil import which

    return which("apparmor_parser", path=f"{os.environ.get('PATH', '')}:{PARSER_DIRS}") or ""


def load(path: str) -> None:
    """Load the profile in a file, in the place of one of its name. Raises `NotUsableError` that says why it can't be."""
    import subprocess  # 5 ms, once after a boot

    done = subprocess.run(
        [parser() or "apparmor_parser", "--replace", "--skip-cache", path],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or [f"apparmor_parser ended with exit code {done.returncode}"])[-1]
        raise NotUsableError(
            f"the AppArmor profile '{os.path.basename(path)}' can't be loaded: {why}",
            hint="--security-opt apparmor=unconfined runs without one",
        )
