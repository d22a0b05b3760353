"""Proving who asks: challenges of registries, Basic, and Bearer tokens with their scopes (distribution: docs/spec/auth).

Nothing is sent before a registry asks for it, and then to that host alone; a token's realm gets an account only over TLS, on
loopback, or on the registry's own host where that is allowed to be insecure. What is secret is `redact`ed from what others say.
"""

import base64
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from lamina.dataclasses import dataclass, field
from lamina.errors import LaminaError, TransferError
from lamina.registry.credentials import Credential
from lamina.registry.hosts import Endpoint, RegistriesSettings, host_name, is_loopback
from lamina.registry.http import MAX_ERROR_BYTES, Http, drop, read_limited

CLIENT_ID = "lamina"
_MAX_TOKEN_BYTES = 1 << 20
_DEFAULT_LIFE_S = 60
_EARLIER_S = 5
"""A token is renewed so long before its end."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PAIR = re.compile(r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*))""")


class UnauthorizedError(LaminaError):
    """The registry wants another account than it was given, or one at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One challenge of a `WWW-Authenticate` header; names are lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read challenges (RFC 9110, 11.6.1): several to a header, quoted or not, oddly spaced. What can't be read is passed over."""
    found: list[Challenge] = []
    for text in headers:
        at = 0
        parameters: dict[str, str] | None = None
        while at < len(text):
            if text[at] in ", \t":
                at += 1
                continue
            pair = _PAIR.match(text, at)
            if pair is not None and parameters is not None:
                quoted = pair[2]
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else pair[3]
                parameters.setdefault(pair[1].lower(), value)
                at = pair.end()
                continue
            word = _TOKEN.match(text, at)
            if word is None:
                at += 1
                continue
            parameters = {}
            found.append(Challenge(scheme=word[0].lower(), parameters=parameters))
            at = word.end()
    return found


@dataclass(slots=True)
class _Token:
    text: str = field(repr=False)
    ends_s: float = 0.0
    is_new: bool = True


class Authenticator:
    """What one host is told about who asks. Used by several threads."""

    def __init__(
        self, *, http: Http, settings: RegistriesSettings, find: Callable[[], Credential | None], is_insecure: bool, shown: str
    ) -> None:
        self._http, self._settings, self._find, self._is_insecure, self._shown = http, settings, find, is_insecure, shown
        self._credential: Credential | None = None
        self._is_looked_up = False
        self._basic = ""
        self._tokens: dict[tuple[str, ...], _Token] = {}
        self._lock = threading.Lock()

    def header(self, scopes: tuple[str, ...]) -> str:
        """Give what to send at once, from what the host has asked for before; "" for nothing."""
        with self._lock:
            if self._basic:
                return self._basic
            token = self._tokens.get(scopes)
            if token is None:
                return ""
            if token.ends_s < time.monotonic():
                del self._tokens[scopes]
                return ""
            token.is_new = False
            return f"Bearer {token.text}"

    def answer(self, challenges: list[Challenge], scopes: tuple[str, ...], endpoint: Endpoint, sent: str) -> str:
        """Give what to send after a 401 that came for `sent`. Raises `UnauthorizedError` if there is nothing else to say."""
        with self._lock:
            credential = self._account()
            bearer = next((each for each in challenges if each.scheme == "bearer" and each.parameters.get("realm")), None)
            if bearer is not None:
                token = self._tokens.get(scopes)
                if token is not None and f"Bearer {token.text}" != sent:
                    return f"Bearer {token.text}"  # another thread has just got it
                if token is not None and token.is_new:
                    raise self._refused(credential)
                self._tokens[scopes] = token = self._fetch(bearer, scopes, endpoint, credential)
                return f"Bearer {token.text}"
            if any(each.scheme == "basic" for each in challenges):
                if self._basic and self._basic != sent:
                    return self._basic
                if self._basic or credential is None or not credential.username:
                    raise self._refused(credential)
                self._basic = _basic(credential)
                return self._basic
        raise self._refused(credential)

    def redact(self, text: str) -> str:
        """Take out of a host's own words whatever it may have been told in confidence."""
        credential = self._credential
        secrets = [self._basic.partition(" ")[2], *(token.text for token in self._tokens.values())]
        if credential is not None:
            secrets += [credential.password, credential.identity_token, _basic(credential).partition(" ")[2]]
        for secret in secrets:
            if secret:
                text = text.replace(secret, "…")
        return text

    def _account(self) -> Credential | None:
        if not self._is_looked_up:
            self._credential, self._is_looked_up = self._find(), True
        return self._credential

    def _refused(self, credential: Credential | None) -> UnauthorizedError:
        if credential is None:
            return UnauthorizedError(
                "it wants to know who asks, or there is no such repository", hint=f"`lamina login {self._shown}`"
            )
        return UnauthorizedError("it refuses the account", hint=f"`lamina login {self._shown}` with another")

    def _fetch(self, challenge: Challenge, scopes: tuple[str, ...], endpoint: Endpoint, credential: Credential | None) -> _Token:
        """Get a token from the realm."""
        realm = challenge.parameters["realm"]
        parts = urlsplit(realm)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise LaminaError("it names no address to log in at")
        is_own = parts.hostname == host_name(endpoint.host)
        if parts.scheme == "http" and not is_loopback(parts.hostname) and not (is_own and self._is_insecure):
            raise LaminaError(
                f"it asks to log in at '{parts.hostname}' without TLS, which would give the account away", hint="use https"
            )
        wanted = challenge.parameters.get("scope", "").split() or list(scopes)
        if challenge.parameters.get("scope"):  # a mount needs more than the challenge may say
            wanted += [
                scope
                for scope in scopes
                if scope not in wanted and scope.rpartition(":")[0] not in {_repository(each) for each in wanted}
            ]
        query: list[tuple[str, str]] = []
        if challenge.parameters.get("service"):
            query.append(("service", challenge.parameters["service"]))
        query += [("scope", scope) for scope in wanted]
        host = parts.netloc.rpartition("@")[2]
        target = Endpoint(
            scheme=parts.scheme,
            host=host,
            is_verified=endpoint.is_verified if is_own else self._verified(host),
            certificates=self._settings.certificates(host),
        )
        answer = self._ask(realm, target, query, credential)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token or not token.isprintable() or not token.isascii():
            raise LaminaError(f"the login at '{parts.hostname}' gives no token")
        life = answer.get("expires_in")
        life_s = life if isinstance(life, int) and life > 0 else _DEFAULT_LIFE_S
        return _Token(token, time.monotonic() + max(life_s - _EARLIER_S, 1))

    def _verified(self, host: str) -> bool:
        return not self._settings.is_insecure(host) or bool(self._settings.certificates(host).ca)

    def _ask(self, realm: str, target: Endpoint, query: list[tuple[str, str]], credential: Credential | None) -> dict[str, Any]:
        from lamina import json

        if credential is not None and credential.identity_token:  # OAuth 2: distribution, docs/spec/auth/oauth.md
            form = [("grant_type", "refresh_token"), ("refresh_token", credential.identity_token), ("client_id", CLIENT_ID),
                    *((name, value) for name, value in query if name != "scope"),
                    ("scope", " ".join(value for name, value in query if name == "scope"))]  # fmt: skip
            headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
            response = self._http.send("POST", realm, target, headers=headers, body=urlencode(form))
        else:
            headers = {"Accept": "application/json"}
            if credential is not None:
                headers["Authorization"] = _basic(credential)
                query = [("account", credential.username), *query]
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}" if query else realm
            response = self._http.send("GET", url, target, headers=headers)
        shown = host_name(target.host)
        if response.status in {400, 401, 403}:
            drop(response)
            raise self._refused(credential)
        if response.status == 429 or response.status >= 500:
            drop(response)
            raise TransferError(f"the login at '{shown}' fails with status {response.status}", hint="try again later")
        if response.status != 200:
            drop(response)
            raise LaminaError(f"the login at '{shown}' gives status {response.status}")
        try:
            document = json.loads(read_limited(response, _MAX_TOKEN_BYTES, "the token"))
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise LaminaError(f"the login at '{shown}' gives no token but something else")
        return document


def _repository(scope: str) -> str:
    return scope.rpartition(":")[0]


def _basic(credential: Credential) -> str:
    return "Basic " + base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()


__all__ = ["MAX_ERROR_BYTES", "Authenticator", "Challenge", "UnauthorizedError", "parse_challenges"]
