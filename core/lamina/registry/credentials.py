"""Accounts at registries: read from Docker's configuration and Podman's, asked of credential helpers, stored and erased.

`$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`: `auths`, `credsStore`, `credHelpers`; for reading then Podman's
`auth.json` (containers-auth.json(5)). A helper is `docker-credential-NAME`, which speaks JSON over its standard streams
(github.com/docker/docker-credential-helpers). No secret is ever part of a message or of a value's repr.
"""

import base64
import binascii
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lamina import json
from lamina.dataclasses import dataclass, field
from lamina.errors import LaminaError, UsageError
from lamina.model.reference import HUB

HUB_KEY = "https://index.docker.io/v1/"
"""By which Docker stores the account of its own registry."""
TOKEN_USER = "<token>"
"""The user name by which a helper says that its secret is an identity token."""
_HELPER_S = 60
_MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """An account: a name and a password, or an identity token."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """How an account was stored."""

    place: str
    """A file's path or a helper's program."""
    is_encrypted: bool


class Credentials:
    """The accounts of the user who runs this. `warn` is told of what stops nothing, such as a helper that isn't installed."""

    def __init__(self, environment: Mapping[str, str] = os.environ, *, warn: Callable[[str], None] = lambda _text: None) -> None:
        self._environment = environment
        self._warn = warn

    @property
    def path(self) -> str:
        """Docker's configuration file, which is written to."""
        directory = self._environment.get("DOCKER_CONFIG", "") or os.path.join(self._home, ".docker")
        return os.path.join(directory, "config.json")

    @property
    def _home(self) -> str:
        return self._environment.get("HOME", "") or os.path.expanduser("~")

    def find(self, registry: str, repository: str = "") -> Credential | None:
        """Find the account at a registry; Podman's file may have one for a part of it. None if there is none."""
        document = _read(self.path)
        helper = _helper(document, registry, self.path)
        if helper:
            found = self._ask(helper, _key(registry))
            if found is not None:
                return found
        for path, each in ((self.path, document), *((path, _read(path)) for path in self._podman_paths())):
            found = _from_auths(each, path, registry, repository)
            if found is not None:
                return found
        return None

    def store(self, registry: str, credential: Credential) -> Stored:
        """Keep an account, with the helper that the configuration names or else in its file, all else in which stays as it is."""
        document = _read(self.path)
        helper = _helper(document, registry, self.path)
        if helper:
            secret = {"ServerURL": _key(registry), "Username": credential.username, "Secret": credential.password}
            if credential.identity_token:
                secret |= {"Username": TOKEN_USER, "Secret": credential.identity_token}
            self._run(helper, "store", json.dumps(secret))
            return Stored(place=f"docker-credential-{helper}", is_encrypted=True)
        auths = _table(document, "auths", self.path)
        known = auths.get(_key(registry))
        entry: dict[str, Any] = {**known} if isinstance(known, dict) else {}
        for name in ("username", "password", "identitytoken"):
            entry.pop(name, None)
        entry["auth"] = base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()
        if credential.identity_token:
            entry["identitytoken"] = credential.identity_token
        document["auths"] = {**{name: value for name, value in auths.items() if name not in _keys(registry)}, _key(registry): entry}
        self._write(document)
        return Stored(place=self.path, is_encrypted=False)

    def erase(self, registry: str) -> bool:
        """Forget an account; gives whether there was one."""
        document = _read(self.path)
        had = False
        helper = _helper(document, registry, self.path)
        if helper:
            had = self._ask(helper, _key(registry)) is not None
            if had:
                self._run(helper, "erase", _key(registry))
        auths = _table(document, "auths", self.path)
        left = {name: value for name, value in auths.items() if name not in _keys(registry)}
        if len(left) < len(auths):
            document["auths"] = left
            self._write(document)
            had = True
        return had

    def _podman_paths(self) -> Iterator[str]:
        named = self._environment.get("REGISTRY_AUTH_FILE", "")
        if named:
            yield named
            return
        runtime = self._environment.get("XDG_RUNTIME_DIR", "") or f"/run/containers/{os.getuid()}"
        yield os.path.join(runtime, "containers/auth.json" if self._environment.get("XDG_RUNTIME_DIR", "") else "auth.json")
        config = self._environment.get("XDG_CONFIG_HOME", "") or os.path.join(self._home, ".config")
        yield os.path.join(config, "containers/auth.json")

    def _ask(self, helper: str, server: str) -> Credential | None:
        try:
            answer = self._run(helper, "get", server)
        except _NoHelperError as error:
            self._warn(f"{error.message}, so nobody is logged in")
            return None
        if answer is None:
            return None
        try:
            document = json.loads(answer)
            username, secret = document["Username"], document["Secret"]
        except (ValueError, KeyError, TypeError):
            raise LaminaError(f"the credential helper 'docker-credential-{helper}' gave no account but something else") from None
        if not isinstance(username, str) or not isinstance(secret, str):
            raise LaminaError(f"the credential helper 'docker-credential-{helper}' gave no account but something else")
        if username == TOKEN_USER:
            return Credential(identity_token=secret)
        return Credential(username=username, password=secret) if username or secret else None

    def _run(self, helper: str, verb: str, text: str) -> str | None:
        """Run a helper; None if it knows no such account."""
        program = f"docker-credential-{helper}"
        try:
            code, said, complained = _talk([program, verb], text, self._environment)
        except (FileNotFoundError, PermissionError):
            raise _NoHelperError(
                f"the credential helper '{program}' is not installed", hint=f"install it, or correct '{self.path}'"
            ) from None
        except TimeoutError:
            raise LaminaError(f"the credential helper '{program}' gave no answer for {_HELPER_S} seconds") from None
        except OverflowError:
            raise LaminaError(f"the credential helper '{program}' gave no account but something endless") from None
        except (OSError, UnicodeDecodeError) as error:
            raise LaminaError(f"the credential helper '{program}' failed: {type(error).__name__}") from None
        if code:
            told = (said + complained).lower()
            if "not found" in told or "no credentials" in told:
                return None
            raise LaminaError(  # what it said may hold anything, and stays untold
                f"the credential helper '{program}' failed at '{verb}' with exit code {code}",
                hint=f"try `echo SERVER | {program} get` by hand",
            )
        return said

    def _write(self, document: Mapping[str, Any]) -> None:
        """Replace the file at once, readable for its owner alone. A symlink stays, and what it points to is replaced."""
        path = os.path.realpath(self.path)
        temporary = f"{path}.{os.getpid()}.new"
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(fd, 0o600)
                with open(fd, "w", encoding="utf-8", closefd=False) as file:
                    json.dump(document, file, indent="\t", ensure_ascii=False)
                    file.write("\n")
                os.fsync(fd)
                os.rename(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            raise LaminaError(
                f"'{self.path}' can't be written: {(error.strerror or '').lower()}", hint="DOCKER_CONFIG names another directory"
            ) from None


class _NoHelperError(LaminaError):
    pass


def _talk(command: list[str], text: str, environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a helper with a text; give its exit code and what it wrote. Raises `TimeoutError`, and `OverflowError` for too much."""
    import selectors
    import subprocess  # 15 ms, and only who has a helper needs it
    import time

    ends_s = time.monotonic() + _HELPER_S
    pipe = subprocess.PIPE
    said = (bytearray(), bytearray())
    with (
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(environment)) as process,
        selectors.DefaultSelector() as selector,
    ):
        try:
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):  # it need not read; a registry's name fits into any pipe
                    process.stdin.write(text.encode())
                    process.stdin.close()
            for stream, heard in zip((process.stdout, process.stderr), said, strict=True):
                if stream is not None:
                    selector.register(stream, selectors.EVENT_READ, heard)
            while selector.get_map():
                ready = selector.select(max(ends_s - time.monotonic(), 0))
                if not ready:
                    raise TimeoutError
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    key.data.extend(data)
                    if len(key.data) > _MAX_BYTES:
                        raise OverflowError
            code = process.wait(max(ends_s - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()
            raise TimeoutError from None
        except BaseException:
            process.kill()
            raise
    return code, said[0].decode(), said[1].decode()


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"'{path}' can't be read: {(error.strerror or '').lower()}") from None
    if not content.strip():
        return {}
    try:
        document = json.loads(content) if len(content) <= _MAX_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UsageError(f"'{path}' is not a JSON object", hint="correct it, or move it away and log in again")
    return document


def _table(document: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"'{path}': '{name}' is not a JSON object")
    return value


def _key(registry: str) -> str:
    return HUB_KEY if registry == HUB else registry


def _keys(registry: str) -> set[str]:
    """All the names by which an account may be stored."""
    if registry == HUB:
        return {HUB_KEY, HUB, "index.docker.io", "https://index.docker.io/v1", "https://index.docker.io", "registry-1.docker.io"}
    addresses = [f"{scheme}{registry}" for scheme in ("", "https://", "http://")]
    return {f"{address}{end}" for address in addresses for end in ("", "/", "/v1", "/v1/", "/v2", "/v2/")}


def _helper(document: Mapping[str, Any], registry: str, path: str) -> str:
    helpers = _table(document, "credHelpers", path)
    found = next((helpers[key] for key in sorted(_keys(registry)) if key in helpers), document.get("credsStore") or "")
    if not isinstance(found, str) or "/" in found or "\0" in found:
        raise UsageError(
            f"'{path}' names no credential helper but {type(found).__name__}"
            if not isinstance(found, str)
            else f"'{path}': '{found}' is not a credential helper's name"
        )
    return found


def _from_auths(document: Mapping[str, Any], path: str, registry: str, repository: str) -> Credential | None:
    auths = _table(document, "auths", path)
    parts = repository.split("/") if repository else []
    names = ["/".join((registry, *parts[:count])) for count in range(len(parts), 0, -1)]  # the longest wins
    for name in (*names, _key(registry), *sorted(_keys(registry))):
        entry = auths.get(name)
        if isinstance(entry, dict):
            found = _from_entry(entry, path, name)
            if found is not None:
                return found
    return None


def _from_entry(entry: Mapping[str, Any], path: str, name: str) -> Credential | None:
    def text(key: str) -> str:
        value = entry.get(key)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if text("auth"):
        try:
            username, colon, password = base64.b64decode(text("auth"), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            colon = ""
        if not colon:
            raise UsageError(f"'{path}': the account at '{name}' is damaged", hint="log in again")
        password = password.strip("\0")
    if text("identitytoken"):
        return Credential(username=username, identity_token=text("identitytoken"))
    return Credential(username=username, password=password) if username or password else None
