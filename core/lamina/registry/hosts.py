"""Where a registry is reached: mirrors first, over TLS or where that is allowed without, by which certificates. Connects nothing.

    [registries]
    insecure = ["10.0.0.5:5000", "10.1.0.0/16", "*.test.example"]    # TLS without verification, or plain HTTP
    certs-dir = "/etc/lamina/certs.d"                                # HOST[:PORT]/*.crt, *.cert and *.key, as for Docker
    timeout = 60                                                     # seconds without a byte
    attempts = 5                                                     # for what may be tried again

    [registries.mirrors]
    "docker.io" = ["https://mirror.example", "http://127.0.0.1:5001"]

Loopback is insecure by itself, as for Docker (moby: registry/config.go), unless a CA is given for it.
"""

import ipaddress
import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from lamina.dataclasses import dataclass, field
from lamina.errors import UsageError
from lamina.model.reference import HUB
from lamina.store.configfile import config_path, read_config_file

HUB_HOST = "registry-1.docker.io"
CERTS_DIRS = ("/etc/lamina/certs.d", "/etc/docker/certs.d")
_KEYS = frozenset({"insecure", "mirrors", "certs-dir", "timeout", "attempts"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What a host's directory of certificates holds: paths."""

    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()
    """Certificate and key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One way to reach a host."""

    scheme: str
    host: str
    """With the port, if one is given."""
    prefix: str = ""
    """The path before `/v2/`."""
    is_verified: bool = True
    certificates: Certificates = field(default_factory=Certificates)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryHost:
    """A registry or a mirror, and the ways to reach it in the order to try them."""

    name: str
    """What people call it, and by which its account is looked up."""
    endpoints: tuple[Endpoint, ...]
    is_mirror: bool = False

    @property
    def is_insecure(self) -> bool:
        """Whether it may be reached without anything that proves who answers."""
        return any(each.scheme == "http" or not each.is_verified for each in self.endpoints)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistriesSettings:
    """The table `[registries]`."""

    insecure: tuple[str, ...] = ()
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    certs_dirs: tuple[str, ...] = CERTS_DIRS
    timeout_s: float = 60.0
    attempts: int = 5

    def hosts(self, domain: str) -> list[RegistryHost]:
        """Give the hosts for reading from a registry: its mirrors, then itself."""
        return [*(self._mirror(url) for url in self.mirrors.get(domain, ())), self.host(domain)]

    def host(self, domain: str) -> RegistryHost:
        """Give the registry itself."""
        host = HUB_HOST if domain == HUB else domain
        certificates = self._certificates(host)
        first = Endpoint(scheme="https", host=host, certificates=certificates)
        if not self.is_insecure(host) or certificates.ca:
            return RegistryHost(name=domain, endpoints=(first,))
        unverified = Endpoint(scheme="https", host=host, is_verified=False, certificates=certificates)
        return RegistryHost(name=domain, endpoints=(unverified, Endpoint(scheme="http", host=host)))

    def _mirror(self, url: str) -> RegistryHost:
        parts = urlsplit(url)
        insecure = self.is_insecure(parts.netloc)
        certificates = self._certificates(parts.netloc)
        endpoint = Endpoint(
            scheme=parts.scheme,
            host=parts.netloc,
            prefix=parts.path.rstrip("/"),
            is_verified=not insecure or bool(certificates.ca),
            certificates=certificates,
        )
        return RegistryHost(name=parts.netloc, endpoints=(endpoint,), is_mirror=True)

    def is_insecure(self, host: str) -> bool:
        """Whether a host may be reached without TLS, or with a certificate that nothing vouches for."""
        name = host_name(host)
        if is_loopback(name):
            return True
        return any(_matches(pattern, host, name) for pattern in self.insecure)

    def certificates(self, host: str) -> Certificates:
        """Find what a host's directory of certificates holds."""
        return self._certificates(host)

    def _certificates(self, host: str) -> Certificates:
        ca: list[str] = []
        client: list[tuple[str, str]] = []
        for directory in self.certs_dirs:
            folder = os.path.join(directory, host)
            try:
                names = sorted(os.listdir(folder))
            except OSError:
                continue
            for name in names:
                path, (stem, kind) = os.path.join(folder, name), os.path.splitext(name)
                if kind == ".crt":
                    ca.append(path)
                elif kind == ".cert":
                    key = f"{stem}.key"
                    if key not in names:
                        raise UsageError(f"the certificate '{path}' has no key", hint=f"put '{key}' beside it")
                    client.append((path, os.path.join(folder, key)))
                elif kind == ".key" and f"{stem}.cert" not in names:
                    raise UsageError(
                        f"the key '{path}' has no certificate", hint="a client's certificate ends in .cert, a CA's in .crt"
                    )
            break
        return Certificates(ca=tuple(ca), client=tuple(client))


def host_name(host: str) -> str:
    """Give a host without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and ":" in host else host


def is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine by definition. Nothing is looked up (RFC 6761, 6.3)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _matches(pattern: str, host: str, name: str) -> bool:
    if "/" in pattern:
        try:
            return ipaddress.ip_address(name) in ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return False
    return fnmatchcase(host, pattern) or fnmatchcase(name, pattern)


def read_registries(environment: Mapping[str, str] = os.environ) -> RegistriesSettings:
    """Read the table of the configuration file. Raises `UsageError` for what can't be meant."""
    table = read_config_file(environment).get("registries", {})
    where = f"'{config_path(environment)}': registries"
    for key in table:
        if key not in _KEYS:
            raise UsageError(f"{where}: unknown setting '{key}'", hint=f"known are {', '.join(sorted(_KEYS))}")
    mirrors = table.get("mirrors", {})
    if not isinstance(mirrors, dict):
        raise UsageError(f"{where}: 'mirrors' is not a table", hint='write [registries.mirrors] and "docker.io" = ["https://…"]')
    certs_dir = table.get("certs-dir", "")
    if not isinstance(certs_dir, str):
        raise UsageError(f"{where}: 'certs-dir' is not a text")
    return RegistriesSettings(
        insecure=_texts(table.get("insecure", []), f"{where}: 'insecure'"),
        mirrors={
            name: tuple(_mirror_url(url, where) for url in _texts(urls, f"{where}: mirror '{name}'"))
            for name, urls in mirrors.items()
        },
        certs_dirs=(certs_dir,) if certs_dir else CERTS_DIRS,
        timeout_s=float(_number(table, "timeout", 60, where)),
        attempts=_number(table, "attempts", 5, where),
    )


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise UsageError(f"{where} is not a list of texts")
    return tuple(value)


def _number(table: Mapping[str, Any], name: str, default: int, where: str) -> int:
    value = table.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{where}: '{name}' is not a whole number of 1 or more")
    return value


def _mirror_url(url: str, where: str) -> str:
    text = url if "://" in url else f"https://{url}"
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
        raise UsageError(
            f"{where}: '{url}' is not a mirror's address", hint="write https://HOST[:PORT]; accounts come by `lamina login`"
        )
    return text
