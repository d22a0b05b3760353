"""What ADD fetches from elsewhere: files by HTTP, and git repositories by the program `git`. Nothing is kept between builds.

Names, times and modes are Docker's (Dockerfile reference, "ADD": a file has mode 0600, the time of Last-Modified or 1970, and the
name that its URL ends with). A password in a URL goes to the host that the URL names and is in no message.
"""

import os
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from lamina.archive import paths
from lamina.build.sources import shown_url
from lamina.errors import IntegrityError, LaminaError, NotFoundError, TransferError, UsageError
from lamina.linux.fs import removed_on_error

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BYTES = 16 << 30
"""Of one download. A server that never ends must not fill the disk."""
_CHUNK_BYTES = 1 << 18
_CONNECT_S, _READ_S = 30, 60
_MAX_REDIRECTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """Where it is: `path` in `directory`, "" for the whole of it. `name` is what a file is called, "" if the URL doesn't say."""

    directory: str
    path: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSource:
    """A repository, what of it, and where in it."""

    remote: str
    ref: str = ""
    subdir: str = ""


def parse_git(source: str) -> GitSource | None:
    """Understand `URL.git#REF:SUBDIR`, `git@HOST:PATH` and their like; None for a file to download."""
    remote, _, fragment = source.partition("#")
    if source.startswith(("http://", "https://")) and not urlsplit(remote).path.endswith(".git"):
        return None
    ref, _, subdir = fragment.partition(":")
    if ref.startswith("-") or any(not character.isprintable() or character in " ~^:?*[\\" for character in ref):
        raise UsageError(f"'{paths.shown(ref)}' can't be a branch, tag or commit")
    if ".." in subdir.split("/"):
        raise UsageError(f"the directory '{paths.shown(subdir)}' leads out of the repository")
    return GitSource(remote=remote, ref=ref, subdir=subdir.strip("/"))


def fetch(source: str, downloads_dir: str, *, checksum: str, keep_git_dir: bool) -> Downloaded:
    """Fetch a source into a new directory below `downloads_dir`. After an error nothing of it is left.

    `checksum` is `sha256:…` for a file, a commit or its beginning for git. Raises `TransferError`, `NotFoundError`,
    `IntegrityError`.
    """
    from tempfile import mkdtemp

    git = parse_git(source)
    os.makedirs(downloads_dir, mode=0o700, exist_ok=True)
    directory = mkdtemp(prefix="add-", dir=downloads_dir)
    with removed_on_error(directory):
        if git is not None:
            from lamina.build.gitclone import clone

            clone(git, directory, checksum=checksum, keep_git_dir=keep_git_dir)
            return Downloaded(directory=directory, path=git.subdir)
        name = _file_name(source)
        _download(source, os.path.join(directory, "file"), checksum)
        return Downloaded(directory=directory, path="file", name=name)


def _file_name(url: str) -> str:
    name = posixpath.basename(unquote(urlsplit(url).path).rstrip("/"))
    return "" if name in {"", ".", ".."} or "\0" in name else name


def _check_checksum(checksum: str) -> None:
    digits = checksum.removeprefix("sha256:")
    if digits == checksum or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise UsageError(f"not a checksum: '{paths.shown(checksum[:100])}'", hint="write sha256: and 64 hexadecimal digits")


def _download(url: str, path: str, checksum: str) -> None:
    if checksum:
        _check_checksum(checksum)
    import urllib3  # 70 ms, and only who downloads needs it

    shown = shown_url(url)
    try:
        response = _opened(url)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise TransferError(f"'{shown}' can't be downloaded: {_why(error)}") from None
    try:
        if response.status == 404:
            raise NotFoundError(f"'{shown}' can't be downloaded: the server says that there is no such file (404)")
        if response.status != 200:
            raise TransferError(
                f"'{shown}' can't be downloaded: the server answered {response.status} {response.reason or ''}".rstrip()
            )
        digest = _save(response, path, shown)
        if checksum and f"sha256:{digest}" != checksum:
            raise IntegrityError(f"'{shown}' has the digest sha256:{digest}, and --checksum says {checksum}")
        modified_s = _last_modified(response.headers)
        os.utime(path, (modified_s, modified_s))
    except urllib3.exceptions.HTTPError as error:
        raise TransferError(f"the download of '{shown}' broke off: {_why(error)}") from None
    finally:
        response.close()


def _opened(url: str) -> Any:
    """Send the request and follow redirects; the body isn't read yet. Credentials stay with the host that they are for."""
    import urllib3

    parts = urlsplit(url)
    headers = {"Accept-Encoding": "identity", "User-Agent": "lamina"}
    if parts.username is not None:
        headers |= urllib3.make_headers(basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}")
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    retries = urllib3.Retry(
        total=_MAX_REDIRECTS + 3, connect=3, read=0, redirect=_MAX_REDIRECTS, status=0, other=0, backoff_factor=0.2
    )
    return _pool(parts.scheme, parts.hostname or "").request(
        "GET",
        url.partition("#")[0],
        headers=headers,
        retries=retries,
        timeout=urllib3.Timeout(connect=_CONNECT_S, read=_READ_S),
        preload_content=False,
        decode_content=False,
    )


def _pool(scheme: str, host: str) -> Any:
    """Go through the proxy that the environment names, as other programs do."""
    from urllib import request

    import urllib3

    proxies = request.getproxies_environment()
    proxy = proxies.get(scheme) or proxies.get("all")
    if proxy and not request.proxy_bypass(host):
        return urllib3.ProxyManager(proxy)
    return urllib3.PoolManager()


def _save(response: Any, path: str, shown: str) -> str:
    from hashlib import sha256

    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > MAX_BYTES:
        raise LaminaError(f"'{shown}' has {length} bytes, more than the limit of {MAX_BYTES}")
    digest, size = sha256(), 0
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0) as file:
        while data := response.read(_CHUNK_BYTES):
            size += len(data)
            if size > MAX_BYTES:
                raise LaminaError(f"'{shown}' has more than the limit of {MAX_BYTES} bytes")
            digest.update(data)
            file.write(data)
        os.fchmod(file.fileno(), 0o600)
    if length.isdigit() and size != int(length):
        raise TransferError(f"the download of '{shown}' broke off after {size} of {length} bytes")
    return digest.hexdigest()


def _last_modified(headers: "Mapping[str, str]") -> int:
    from email.utils import parsedate_to_datetime

    try:
        return max(0, int(parsedate_to_datetime(headers.get("Last-Modified", "")).timestamp()))
    except (ValueError, TypeError, OverflowError):
        return 0


def _why(error: Exception) -> str:
    """Say in a few words what went wrong; urllib3's own texts carry objects' addresses and whole URLs."""
    from urllib3 import exceptions

    cause: BaseException = error.reason if isinstance(error, exceptions.MaxRetryError) and error.reason is not None else error
    if isinstance(cause, exceptions.NameResolutionError):
        return "the host's name is not known"
    if isinstance(cause, exceptions.NewConnectionError):
        return (getattr(cause.__cause__, "strerror", None) or "no connection").lower()
    if isinstance(cause, exceptions.SSLError):
        return "the server's certificate is not trusted, or it doesn't speak TLS"
    if isinstance(cause, exceptions.TimeoutError):
        return "the server doesn't answer"
    if isinstance(cause, exceptions.ResponseError) and "redirect" in str(cause):
        return f"the server redirects more than {_MAX_REDIRECTS} times"
    if isinstance(cause, exceptions.ProtocolError | exceptions.IncompleteRead):
        return "the connection broke"
    if isinstance(cause, exceptions.LocationValueError | exceptions.URLSchemeUnknown | ValueError):
        return "the address is malformed"
    return type(cause).__name__
