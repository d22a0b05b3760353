"""What EXPOSE names: `80`, `53/udp`, `8000-8010`. Docker also takes what `run -p` takes (`127.0.0.1:80:80`) and keeps the last
number.
"""

import re

from lamina.dockerfile.errors import ExpandError
from lamina.dockerfile.words import shown

_PORTS = re.compile(
    r"(?:(?P<host>[^/]*):)?(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?(?:/(?P<protocol>[a-z]*))?", re.ASCII | re.IGNORECASE
)


def parse_ports(text: str) -> list[tuple[int, str]]:
    """Read one word of EXPOSE as ports, each with its protocol. Raise ExpandError."""
    match = _PORTS.fullmatch(text)
    first, last = (int(match["first"]), int(match["last"] or match["first"])) if match else (1, 0)
    protocol = ((match["protocol"] if match else "") or "tcp").lower()
    if first > last or last > 65535 or protocol not in {"tcp", "udp", "sctp"}:
        raise ExpandError(
            f"'{shown(text)}' is no port", hint="write PORT, PORT-PORT, each with /tcp, /udp or /sctp behind it if need be"
        )
    return [(port, protocol) for port in range(first, last + 1)]


def names_host(text: str) -> bool:
    """Tell whether a word names an address or port of the host, which EXPOSE can't do anything with."""
    match = _PORTS.fullmatch(text)
    return bool(match and match["host"] is not None)
