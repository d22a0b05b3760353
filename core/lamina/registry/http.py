"""HTTP for registries on urllib3: connections, TLS, proxies, time limits, and what went wrong in words. No retries and no accounts.

urllib3 costs 100 ms to import, so that happens in the functions here that open a connection. A message never has a URL's path or
query in it, nor an exception's own text: both may hold what somebody may log in with.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from lamina import __version__
from lamina.errors import IntegrityError, LaminaError, TransferError
from lamina.registry.hosts import Certificates, Endpoint, host_name, is_loopback

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool, PoolManager

CONNECT_S = 15.0
CHUNK_BYTES = 1 << 17
MAX_ERROR_BYTES = 1 << 16
USER_AGENT = f"lamina/{__version__}"


class UnreachableError(TransferError):
    """No connection came about, so that nothing was sent: another way to the same host may work."""


class UntrustedError(UnreachableError):
    """The TLS connection failed: no TLS there, or a certificate that nothing vouches for."""


class Http:
    """Connections, kept open and used by several threads. `close` ends them, and whatever is being read."""

    def __init__(self, *, timeout_s: float, environment: Mapping[str, str] = os.environ) -> None:
        self._timeout_s = timeout_s
        self._environment = environment
        self._managers: dict[tuple[Any, ...], PoolManager] = {}
        self._pools: set[HTTPConnectionPool] = set()
        self._lock = threading.Lock()

    def send(
        self,
        method: str,
        url: str,
        endpoint: Endpoint,
        *,
        headers: Mapping[str, str],
        body: Any = None,
        timeout_s: float | None = None,
    ) -> "BaseHTTPResponse":
        """Send a request and give the answer once its head is there; the caller reads and releases it. Raises `TransferError`.

        `endpoint` says by which certificates the host is known.
        """
        import urllib3

        parts = urlsplit(url)
        timeout = urllib3.Timeout(connect=min(CONNECT_S, self._timeout_s), read=timeout_s or self._timeout_s)
        try:
            manager = self._manager(parts.scheme, parts.netloc, endpoint)
            with self._lock:
                self._pools.add(manager.connection_from_url(url))
            return manager.request(
                method,
                url,
                headers={"User-Agent": USER_AGENT, **headers},
                body=body,
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise explained(error) from None

    def _manager(self, scheme: str, host: str, endpoint: Endpoint) -> "PoolManager":
        import urllib3

        proxy = self._proxy(scheme, host)
        key = (proxy, endpoint.is_verified, endpoint.certificates) if scheme == "https" else (proxy,)
        with self._lock:
            manager = self._managers.get(key)
            if manager is None:
                tls = {"ssl_context": _tls_context(endpoint)} if scheme == "https" else {}
                if proxy:
                    parts = urlsplit(proxy)
                    account = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
                    manager = urllib3.ProxyManager(
                        f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
                        proxy_headers=urllib3.make_headers(proxy_basic_auth=account) if account else None, maxsize=8, **tls,
                    )  # fmt: skip
                else:
                    manager = urllib3.PoolManager(maxsize=8, **tls)
                self._managers[key] = manager
            return manager

    def _proxy(self, scheme: str, host: str) -> str:
        """Find the proxy by the variables that curl and Go know. This machine itself is never asked for through one."""
        env = self._environment
        name = host_name(host)
        if is_loopback(name) or _is_exempt(env.get("no_proxy", "") or env.get("NO_PROXY", ""), host):
            return ""
        found = (
            env.get(f"{scheme}_proxy", "") or env.get(f"{scheme.upper()}_PROXY", "")
            if scheme == "https"
            else env.get("http_proxy", "")
        )
        found = found or env.get("all_proxy", "") or env.get("ALL_PROXY", "")  # not HTTP_PROXY: httpoxy.org
        if found and "://" not in found:
            found = f"http://{found}"
        if found and urlsplit(found).scheme not in {"http", "https"}:
            raise LaminaError(
                f"the proxy's kind '{urlsplit(found).scheme}' is not supported", hint="use an http:// or https:// proxy"
            )
        return found

    def close(self) -> None:
        """End the connections that are idle.

        Each pool by itself: a manager that is cleared leaves its sockets to the garbage collector, and in a forked child that
        would close what has the descriptor's number by then.
        """
        with self._lock:
            for pool in self._pools:
                pool.close()
            self._pools.clear()
            self._managers.clear()


def _is_exempt(no_proxy: str, host: str) -> bool:
    """Whether `no_proxy` lists a host: names with what lies below them, addresses, ranges, `*`."""
    import ipaddress

    name = host_name(host).lower()
    for each in (part.strip().lower() for part in no_proxy.split(",")):
        if each == "*" or (each and each in {name, host.lower()}):
            return True
        if "/" in each:
            with contextlib.suppress(ValueError):
                if ipaddress.ip_address(name) in ipaddress.ip_network(each, strict=False):
                    return True
        elif each and name.endswith(f".{each.lstrip('*').lstrip('.')}"):
            return True
    return False


def _tls_context(endpoint: Endpoint) -> Any:
    import ssl

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificates: Certificates = endpoint.certificates
    try:
        path = ""
        for path in certificates.ca:
            context.load_verify_locations(path)
        for path, key in certificates.client:
            context.load_cert_chain(path, key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise LaminaError(
            f"the certificate '{path}' can't be used: {_told(error)}", hint="it must be PEM, its key without a password"
        ) from None
    if not endpoint.is_verified:
        import urllib3

        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # that it isn't verified is what the settings say
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _no_password() -> bytes:
    raise ValueError("it has a password")  # else OpenSSL would ask for it on the terminal


def explained(error: Exception) -> TransferError:
    """Say in words what broke."""
    import ssl

    from urllib3 import exceptions

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (ssl.SSLError, ConnectionError)):
        following = cause.__cause__ or cause.__context__
        if following is None and cause.args and isinstance(cause.args[-1], BaseException):
            following = cause.args[-1]
        cause = following
    if isinstance(error, exceptions.ProxyError):
        return UnreachableError(
            "the proxy can't be reached, or refuses", hint="https_proxy, http_proxy and no_proxy say which it is"
        )
    if isinstance(error, exceptions.NameResolutionError):
        return UnreachableError(
            "there is no host of that name, or no name server answers", hint="correct the name, or look at /etc/resolv.conf"
        )
    if isinstance(cause, ssl.SSLCertVerificationError):
        return UntrustedError(
            f"its certificate is not trusted: {_told(cause)}",
            hint="put its CA into /etc/lamina/certs.d/HOST:PORT/ca.crt, or list it as insecure in /etc/lamina/config.toml",
        )
    if isinstance(error, exceptions.SSLError) or (
        isinstance(cause, ssl.SSLError) and not isinstance(error, exceptions.ProtocolError)
    ):
        return UntrustedError(
            f"it doesn't speak TLS: {_told(cause or error)}",
            hint="list it as insecure in /etc/lamina/config.toml if plain HTTP is right",
        )
    if isinstance(error, (exceptions.ConnectTimeoutError,)) and not isinstance(error, exceptions.NewConnectionError):
        return UnreachableError("it doesn't answer in time", hint="is it running, and is a firewall between?")
    if isinstance(error, exceptions.NewConnectionError):
        return UnreachableError(f"no connection: {_told(cause or error)}", hint="is it running, and is the port right?")
    if isinstance(error, (exceptions.ReadTimeoutError, TimeoutError)):
        return TransferError("it sent nothing for too long", hint="try again later")
    if isinstance(error, (exceptions.LocationParseError, ValueError)) and not isinstance(error, exceptions.ProtocolError):
        return UnreachableError("its address can't be understood", hint="correct the name")
    if isinstance(error, exceptions.IncompleteRead):
        return TransferError("the connection broke off", hint="try again")
    if cause is not None or isinstance(error, (exceptions.ProtocolError, OSError)):
        return TransferError(f"the connection broke off{f': {_told(cause)}' if cause is not None else ''}", hint="try again")
    return TransferError(f"the transfer failed: {type(error).__name__}", hint="try again")


def _told(error: BaseException) -> str:
    """An error of the system or of OpenSSL in words: none of these holds more than what went wrong."""
    message = getattr(error, "verify_message", "") or getattr(error, "reason", "") or getattr(error, "strerror", "") or ""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number in errno.errorcode and not getattr(error, "reason", ""):
        message = os.strerror(number)
    text = message if isinstance(message, str) and message else type(error).__name__
    return text.lower().replace("_", " ")


def read_limited(response: "BaseHTTPResponse", limit_bytes: int, what: str) -> bytes:
    """Read a small body whole and let go of its connection. Raises `IntegrityError` for a longer one, `TransferError`."""
    import urllib3

    parts: list[bytes] = []
    size = 0
    try:
        while data := response.read(min(CHUNK_BYTES, limit_bytes + 1 - size)):
            parts.append(data)
            size += len(data)
            if size > limit_bytes:
                raise IntegrityError(f"{what} is longer than {limit_bytes} bytes")
    except (urllib3.exceptions.HTTPError, OSError) as error:
        response.close()
        raise explained(error) from None
    except BaseException:
        response.close()
        raise
    response.release_conn()
    return b"".join(parts)


def drop(response: "BaseHTTPResponse") -> None:
    """Let go of an answer whose body nobody wants: a short one is read, so that its connection can be used again."""
    if response.headers.get("Content-Length") is None and response.headers.get("Transfer-Encoding") is None:
        response.close()  # it ends with the connection, or never
        return
    try:
        read_limited(response, MAX_ERROR_BYTES, "")
    except LaminaError:
        pass


class BodyReader:
    """A blob's body: exactly so many bytes. Raises `TransferError` when it breaks off, `IntegrityError` when it is longer."""

    def __init__(
        self, response: "BaseHTTPResponse", size_bytes: int, what: str, failed: Callable[[TransferError], TransferError]
    ) -> None:
        self._response, self._left, self._what, self._failed = response, size_bytes, what, failed

    def read(self, size: int = -1, /) -> bytes:
        """Give the next bytes."""
        import urllib3

        want = CHUNK_BYTES if size < 0 else min(size, CHUNK_BYTES)
        try:
            data = self._response.read(min(want, self._left + 1))
        except (
            urllib3.exceptions.HTTPError,
            OSError,
            ValueError,
            AttributeError,
        ) as error:  # the last two: closed by another thread
            raise self._failed(explained(error)) from None
        self._left -= len(data)
        if self._left < 0:
            raise IntegrityError(f"{self._what} is longer than the registry announced")
        if not data and self._left:
            raise self._failed(TransferError(f"the connection broke off {self._left} bytes before the end", hint="try again"))
        return data

    def interrupt(self) -> None:
        """Let a thread that waits in `read` come back with an error."""
        with contextlib.suppress(Exception):
            self._response.shutdown()

    def close(self) -> None:
        """Let go of the connection: for others if all was read."""
        if self._left:
            self._response.close()
        else:
            drop(self._response)
