"""A network's options: `mtu`, `name`, `masquerade`, `icc`, each also by Docker's long name. Checked once, read again each time."""

from collections.abc import Mapping
from typing import NamedTuple

from lamina.errors import UsageError

LONG_NAMES = {
    "com.docker.network.driver.mtu": "mtu",
    "com.docker.network.bridge.name": "name",
    "com.docker.network.bridge.enable_ip_masquerade": "masquerade",
    "com.docker.network.bridge.enable_icc": "icc",
}
NAMES = ("mtu", "name", "masquerade", "icc")
MIN_MTU, MAX_MTU = 68, 65535
IPV6_MIN_MTU = 1280


class Options(NamedTuple):
    """What the options say."""

    mtu: int = 0
    """0 is the kernel's 1500."""
    name: str = ""
    """The bridge's name; "" makes one of the network's id."""
    masquerade: bool = True
    """Give packets that leave the host its address."""
    icc: bool = True
    """Let the network's containers reach each other through the host; Docker's word, inter-container communication."""


def read_options(options: Mapping[str, str], *, ipv6: bool) -> Options:
    """Read a network's options; raises `UsageError`."""
    found: dict[str, str] = {}
    for key, value in options.items():
        name = LONG_NAMES.get(key, key)
        if name not in NAMES:
            raise UsageError(f"network driver 'bridge' has no option '{key}'", hint=f"its options are {', '.join(NAMES)}")
        found[name] = value
    return Options(
        mtu=_mtu(found.get("mtu", ""), ipv6=ipv6),
        name=_link_name(found.get("name", "")),
        masquerade=_truth("masquerade", found.get("masquerade", "true")),
        icc=_truth("icc", found.get("icc", "true")),
    )


def _mtu(text: str, *, ipv6: bool) -> int:
    least = IPV6_MIN_MTU if ipv6 else MIN_MTU
    if text in {"", "0"}:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and least <= int(text) <= MAX_MTU):
        raise UsageError(f"option 'mtu': '{text}' is not a number from {least} to {MAX_MTU}")
    return int(text)


def _link_name(text: str) -> str:
    if text and not (
        len(text) < 16 and text.isascii() and text[0].isalpha() and all(char.isalnum() or char in "-_." for char in text)
    ):
        raise UsageError(f"option 'name': '{text}' is no name of a bridge", hint="at most 15 of [a-zA-Z0-9._-], a letter first")
    return text


def _truth(name: str, text: str) -> bool:
    if text.lower() in {"true", "1", "t"}:
        return True
    if text.lower() in {"false", "0", "f"}:
        return False
    raise UsageError(f"option '{name}': '{text}' is not true or false")
