"""Requests to one host about one repository: which way to reach it, who asks, redirects, trying again, and refusals in words.

Not here: what the requests mean (`remote.py`).
"""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin, urlsplit

from lamina.dataclasses import dataclass, replace
from lamina.errors import LaminaError, NotFoundError, TransferError
from lamina.registry.auth import Authenticator, UnauthorizedError, parse_challenges
from lamina.registry.hosts import Endpoint, RegistriesSettings, RegistryHost
from lamina.registry.http import MAX_ERROR_BYTES, Http, UnreachableError, UntrustedError, drop, read_limited

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from lamina.registry.credentials import Credential

MAX_REDIRECTS = 5
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGAIN = frozenset({429, 500, 502, 503, 504})


class DeniedError(LaminaError):
    """The registry knows who asks, and says no."""


class LimitedError(TransferError):
    """The registry wants to be asked less often."""


class Accounts(Protocol):
    """Who knows accounts, such as `Credentials`."""

    def find(self, registry: str, repository: str = "") -> "Credential | None":
        """Find the account at a registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What every connection to registries needs: settings, connections, accounts."""

    settings: RegistriesSettings
    http: Http
    credentials: Accounts


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    scopes: tuple[str, ...]
    headers: Mapping[str, str]
    body: Any
    timeout_s: float | None


class Client:
    """One host, asked about one repository. Used by several threads. `described` is what messages say it is about."""

    def __init__(self, host: RegistryHost, repository: str, access: Access, *, described: str) -> None:
        self.host, self.repository, self.described = host, repository, described
        self._access = access
        self._endpoints = list(host.endpoints)
        self._lock = threading.Lock()
        self._auth = Authenticator(
            http=access.http, settings=access.settings, find=lambda: access.credentials.find(host.name, repository),
            is_insecure=host.is_insecure, shown=host.name,
        )  # fmt: skip

    def request(
        self, method: str, path: str, *, scopes: tuple[str, ...] = (), headers: Mapping[str, str] | None = None, body: Any = None,
        body_is_once: bool = False, timeout_s: float | None = None,
    ) -> "BaseHTTPResponse":  # fmt: skip
        """Send a request and give the answer, whatever its status; what may be tried again is. Raises `LaminaError`.

        `path` begins with `/v2/`, or is a whole URL that the host gave. A body that can be read once is never sent twice.
        """
        wait_s = FIRST_WAIT_S
        attempts = 1 if body_is_once else self._access.settings.attempts
        for attempt in range(1, attempts + 1):
            try:
                response = self._by_any_way(_Request(method, path, scopes, headers or {}, body, timeout_s))
            except (UnreachableError, UnauthorizedError):
                raise
            except TransferError as error:
                if attempt == attempts:
                    raise self.failed(error) from None
                time.sleep(wait_s)
            else:
                if response.status not in _AGAIN:
                    return response
                asked_s = _retry_after(response.headers.get("Retry-After"))
                if attempt == attempts or asked_s > LONGEST_WAIT_S:
                    raise self.refusal(response)
                drop(response)
                time.sleep(max(asked_s, wait_s))
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        raise AssertionError("there is at least one attempt")

    def read(
        self, path: str, *, scopes: tuple[str, ...], limit_bytes: int, what: str, headers: Mapping[str, str] | None = None
    ) -> "tuple[BaseHTTPResponse, bytes]":
        """Get something small whole. Raises what `request` does, and what makes `refusal` of another status than 200."""
        attempts = self._access.settings.attempts
        wait_s = FIRST_WAIT_S
        for attempt in range(1, attempts + 1):
            response = self.request("GET", path, scopes=scopes, headers=headers)
            if response.status != 200:
                raise self.refusal(response, what)
            try:
                return response, read_limited(response, limit_bytes, what)
            except TransferError as error:
                if attempt == attempts:
                    raise self.named(error) from None
                time.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            except LaminaError as error:
                raise self.named(error) from None
        raise AssertionError("there is at least one attempt")

    def url(self, path: str) -> str:
        """Make a path of this host a whole URL, by the way that works."""
        return f"{self._endpoints[0].scheme}://{self._endpoints[0].host}{path}"

    def _by_any_way(self, request: "_Request") -> "BaseHTTPResponse":
        """Use the way that worked before, or find out which does: TLS first."""
        with self._lock if len(self._endpoints) > 1 else contextlib.nullcontext():
            while True:
                endpoint = self._endpoints[0]
                try:
                    response = self._authorized(request, endpoint)
                except UntrustedError as error:
                    if len(self._endpoints) == 1:
                        raise self.failed(error, at=endpoint) from None
                    del self._endpoints[0]
                except UnreachableError as error:
                    if len(self._endpoints) == 1:
                        raise self.failed(error, at=endpoint) from None
                    del self._endpoints[0]
                except TransferError:
                    if len(self._endpoints) == 1:
                        raise
                    del self._endpoints[0]  # what speaks no TLS may hang up in any manner
                except (UnauthorizedError, LaminaError) as error:
                    raise self.named(error) from None
                else:
                    del self._endpoints[1:]
                    return response

    def _authorized(self, request: "_Request", endpoint: Endpoint) -> "BaseHTTPResponse":
        """Send it, and again with an account or a token if the host asks for that."""
        url = request.path if "://" in request.path else endpoint.url + request.path
        is_own = _origin(url) == _origin(endpoint.url)
        sent = self._auth.header(request.scopes) if is_own else ""
        for _ in range(3):
            extra = {"Authorization": sent} if sent else {}
            response, answered = self._followed(request, url, endpoint, {**request.headers, **extra})
            if response.status != 401 or not is_own or hasattr(request.body, "read"):
                return response
            if _origin(answered) != _origin(endpoint.url):
                return response  # where it has redirected to may name a realm of its own, and gets no account for that
            challenges = parse_challenges(response.headers.getlist("WWW-Authenticate"))
            drop(response)
            sent = self._auth.answer(challenges, request.scopes, endpoint, sent)
        raise UnauthorizedError("it asks for an account again and again", hint=f"`lamina login {self.host.name}`")

    def _followed(
        self, request: "_Request", url: str, endpoint: Endpoint, headers: Mapping[str, str]
    ) -> "tuple[BaseHTTPResponse, str]":
        """Send it, and follow redirects of what only reads; gives whose answer it is, too.

        An account goes to the host that it belongs to and no further.
        """
        target = endpoint if _origin(url) == _origin(endpoint.url) else self._elsewhere(url, endpoint)
        for _ in range(MAX_REDIRECTS + 1):
            response = self._access.http.send(
                request.method, url, target, headers=headers, body=request.body, timeout_s=request.timeout_s
            )
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or request.method not in {"GET", "HEAD"}:
                return response, url
            drop(response)
            following = urljoin(url, location)
            if not location or urlsplit(following).scheme not in {"http", "https"} or not urlsplit(following).hostname:
                raise LaminaError("it redirects to nowhere")
            if _origin(following) != _origin(url):
                headers = {name: value for name, value in headers.items() if name.lower() not in {"authorization", "cookie"}}
                target = self._elsewhere(following, endpoint)
            url = following
        raise LaminaError(f"it redirects more than {MAX_REDIRECTS} times")

    def _elsewhere(self, url: str, endpoint: Endpoint) -> Endpoint:
        """How another host is reached that this one names. From TLS nothing leads to where there is none, but on this machine."""
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        settings = self._access.settings
        insecure, certificates = settings.is_insecure(host), settings.certificates(host)
        if parts.scheme == "http" and endpoint.scheme == "https" and not insecure:
            raise LaminaError(f"it redirects to '{host}' without TLS", hint="list that host as insecure if it is to be trusted")
        return replace(
            endpoint,
            scheme=parts.scheme,
            host=host,
            prefix="",
            is_verified=not insecure or bool(certificates.ca),
            certificates=certificates,
        )

    def failed(self, error: TransferError, at: Endpoint | None = None) -> TransferError:
        """Name the image and the registry in an error of a connection."""
        del at
        return type(error)(f"'{self.described}': registry '{self.host.name}': {error.message}", hint=error.hint)

    def named(self, error: LaminaError) -> LaminaError:
        """Name them in any error."""
        if error.message.startswith("'"):
            return error
        return type(error)(f"'{self.described}': registry '{self.host.name}': {error.message}", hint=error.hint)

    def refusal(self, response: "BaseHTTPResponse", what: str = "") -> LaminaError:
        """Make an error of an answer that isn't what was asked for."""
        said = _said(response, self._auth.redact)
        start = f"'{self.described}': registry '{self.host.name}'"
        told = f": {said}" if said else ""
        if response.status == 401:
            return UnauthorizedError(f"{start} wants to know who asks{told}", hint=f"`lamina login {self.host.name}`")
        if response.status == 403:
            return DeniedError(f"{start} denies access{told}", hint="ask who owns the repository, or log in as somebody else")
        if response.status == 404:
            return NotFoundError(f"{start} doesn't have {what or 'it'}{told}", hint="correct the name or the tag")
        if response.status == 429:
            asked_s = _retry_after(response.headers.get("Retry-After"))
            when = f"in {asked_s:.0f} seconds" if asked_s else "later"
            return LimitedError(f"{start} limits how often it is asked{told}", hint=f"try again {when}, or log in: `lamina login`")
        if response.status >= 500:
            return TransferError(f"{start} fails with status {response.status}{told}", hint="try again later")
        return LaminaError(f"{start} answers with status {response.status}{told}", hint="is it a registry?")

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Name image and registry in the errors of the block."""
        try:
            yield
        except LaminaError as error:
            raise self.named(error) from None


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def _retry_after(text: str | None) -> float:
    """Read a `Retry-After`, seconds or a date; 0 without one."""
    if not text:
        return 0.0
    if re.fullmatch(r"\s*\d{1,6}\s*", text):
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _said(response: "BaseHTTPResponse", redact: Callable[[str], str]) -> str:
    """What a registry says about an error, in a few printable words, without what it may have been told in confidence."""
    from lamina import json

    try:
        body = read_limited(response, MAX_ERROR_BYTES, "the answer")
        first = json.loads(body)["errors"][0]
        texts = [first.get("code", ""), first.get("message", "")]
    except (LaminaError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return ""
    told = [redact(each).lower().replace("_", " ") for each in texts if isinstance(each, str) and each]
    text = ", ".join(dict.fromkeys(told))
    return "".join(char if char.isprintable() else " " for char in text)[:200]
