"""Registries as places of images: a source, with its mirrors, and a destination (OCI distribution-spec 1.1).

Not here: how a host is reached and who asks (`client.py`), nor the verifying of what comes (`pull.py`, `push.py`).
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit

from lamina.archive.compression import Readable
from lamina.errors import ArchiveError, IntegrityError, LaminaError, NotFoundError, TransferError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    parse_document,
)
from lamina.model.reference import Reference
from lamina.registry.client import Access, Client
from lamina.registry.hosts import Endpoint, RegistryHost
from lamina.registry.http import CHUNK_BYTES, BodyReader, UnreachableError, drop
from lamina.registry.transport import Document

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

Answer = TypeVar("Answer")

MAX_MANIFEST_BYTES = 4 << 20
"""What registries take (distribution-spec, "Pushing Manifests")."""
MAX_LIST_BYTES = 4 << 20
ACCEPTED = ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))
_SCHEMA_1 = frozenset(
    {"application/vnd.docker.distribution.manifest.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws"}
)
_MAX_MOUNTS = 3
_FINISH_S = 600.0
"""How long a registry may take to store what it was sent: those on object stores copy it."""


def is_foreign(descriptor: Descriptor) -> bool:
    """Whether a layer is not the registry's to give, but has addresses of its own."""
    kind = descriptor.media_type
    return bool(_urls(descriptor)) and (".foreign." in kind or ".nondistributable." in kind)


def _urls(descriptor: Descriptor) -> list[str]:
    urls = descriptor.extra.get("urls")
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []


class RegistrySource:
    """One image of a repository. `Source` of the contract; mirrors are asked before the registry itself."""

    def __init__(self, reference: Reference, access: Access, *, described: str = "") -> None:
        self.described = described or reference.familiar
        self.reference = reference
        self.names: Sequence[Reference] = [reference]
        self.attempts = access.settings.attempts
        self._access = access
        hosts = access.settings.hosts(reference.domain)
        self._clients = [Client(host, reference.path, access, described=self.described) for host in hosts]
        self._scopes = (f"repository:{reference.path}:pull",)
        self._lock = threading.Lock()

    def document(self, digest: Digest | None = None) -> Document:
        """Give the manifest or index that the reference names, or a manifest by digest, verified; the reference's digest wins."""
        wanted = digest or self.reference.digest
        return self._from_any(lambda client: self._document(client, wanted))

    def _document(self, client: Client, digest: Digest | None) -> Document:
        which = digest or self.reference.tag or "latest"
        path = f"/v2/{self.reference.path}/manifests/{quote(str(which), safe=':')}"
        what = f"the manifest {which}" if digest else f"the tag '{which}'"
        response, content = client.read(
            path, scopes=self._scopes, limit_bytes=MAX_MANIFEST_BYTES, what=what, headers={"Accept": ACCEPTED}
        )
        with client.naming():
            media_type = _media_type(response, content)
            told = response.headers.get("Docker-Content-Digest", "")
            found = Digest.of(content)
            expected = digest or (_digest(told) if told else None)
            if expected is not None and expected.algorithm == "sha256" and found != expected:
                raise IntegrityError(f"it gives a manifest {found} for {expected}", hint="don't trust this registry, or its proxy")
            if expected is not None and expected.algorithm != "sha256":
                raise UsageError(f"the digest algorithm {expected.algorithm} is not supported", hint="use a sha256 digest")
            return Document(content=content, media_type=media_type)

    @contextlib.contextmanager
    def blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        """Open a blob. What is given has an `interrupt` for other threads."""
        reader = self._from_any(lambda client: self._blob(client, descriptor, offset))
        try:
            yield reader
        finally:
            reader.close()

    def _blob(self, client: Client, descriptor: Descriptor, offset: int) -> BodyReader:
        path = f"/v2/{self.reference.path}/blobs/{descriptor.digest}"
        what = f"blob {descriptor.digest}"
        response = client.request("GET", path, scopes=self._scopes, headers=_range(offset))
        if response.status == 416:  # no such range: then all of it
            drop(response)
            response = client.request("GET", path, scopes=self._scopes)
        if response.status not in {200, 206}:
            error = client.refusal(response, what)
            if not client.host.is_mirror and isinstance(error, NotFoundError) and _urls(descriptor):
                return self._foreign(client, descriptor, offset)
            raise error
        return _body(client, response, descriptor, offset)

    def _foreign(self, client: Client, descriptor: Descriptor, offset: int) -> BodyReader:
        """Open a layer at an address that the manifest names. No account goes there."""
        settings = self._access.settings
        last: LaminaError = NotFoundError(f"blob {descriptor.digest} has no address that can be used")
        for url in _urls(descriptor):
            parts = urlsplit(url)
            if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
                continue
            endpoint = Endpoint(
                scheme=parts.scheme,
                host=parts.netloc,
                is_verified=not settings.is_insecure(parts.netloc),
                certificates=settings.certificates(parts.netloc),
            )
            nobody = Client(
                RegistryHost(name=parts.netloc, endpoints=(endpoint,), is_mirror=True),
                "",
                _without_accounts(self._access),
                described=self.described,
            )
            try:
                response = nobody.request("GET", url, headers=_range(offset))
                if response.status not in {200, 206}:
                    raise nobody.refusal(response, f"blob {descriptor.digest}")
                return _body(nobody, response, descriptor, offset)
            except LaminaError as error:
                last = error
        raise client.named(last)

    def tags(self) -> list[str]:
        """List the repository's tags in alphabetical order, however many pages they take."""
        return sorted(self._from_any(self._tags))

    def _tags(self, client: Client) -> list[str]:
        path = f"/v2/{self.reference.path}/tags/list"
        found: list[str] = []
        for _ in range(1000):
            response, content = client.read(path, scopes=self._scopes, limit_bytes=MAX_LIST_BYTES, what="a list of tags")
            with client.naming():
                try:
                    document = parse_document(content, "the list of tags")
                    tags = document.get("tags") or []
                    found += [Reference.parse(f"{self.reference.name}:{tag}").tag or "" for tag in tags]
                except (AttributeError, TypeError, UsageError):
                    raise ArchiveError("it gives no list of tags", hint="is it a registry?") from None
            link = response.headers.get("Link", "")
            if not link.startswith("<") or 'rel="next"' not in link.replace("rel=next", 'rel="next"'):
                return list(dict.fromkeys(found))
            target = urlsplit(link[1:].partition(">")[0])
            path = f"{target.path}?{target.query}"
            if not target.path.startswith("/v2/"):
                path = f"/v2/{self.reference.path}/tags/list?{target.query}"
        return list(dict.fromkeys(found))

    def distrust_mirrors(self) -> bool:
        """Ask the registry alone from here on, since something that came was wrong; gives whether that makes a difference."""
        with self._lock:
            had = len(self._clients) > 1
            del self._clients[:-1]
            return had

    def _from_any(self, ask: Callable[[Client], Answer]) -> Answer:
        """Ask each host in turn until one can answer; what the registry itself says is what is said in the end."""
        with self._lock:
            clients = list(self._clients)
        for mirror in clients[:-1]:
            try:
                return ask(mirror)
            except UnreachableError:  # down: it isn't asked again
                with self._lock:
                    if mirror in self._clients:
                        self._clients.remove(mirror)
            except LaminaError:
                continue
        return ask(clients[-1])

    def close(self) -> None:
        """Let go of connections."""
        self._access.http.close()


class RegistryDestination:
    """A place for one image in a repository. `Destination` of the contract.

    `origins` says which repositories of the registry are known to have a blob, for mounts.
    """

    def __init__(
        self, reference: Reference, access: Access, *, origins: Mapping[Digest, Sequence[str]] | None = None, described: str = ""
    ) -> None:
        self.reference = reference
        self.described = described or reference.familiar
        self._access = access
        self.attempts = access.settings.attempts
        self._origins = origins or {}
        self._client = Client(access.settings.host(reference.domain), reference.path, access, described=self.described)
        self._scopes = (f"repository:{reference.path}:pull,push",)
        self._sessions: dict[Digest, str] = {}
        self.mounted: dict[Digest, str] = {}
        """Which blobs another repository of the same registry gave."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Ask for the blob, then for a mount of it. A foreign layer is never sent: whoever pulls finds its address."""
        if is_foreign(descriptor):
            return True
        response = self._client.request("HEAD", self._path(f"blobs/{descriptor.digest}"), scopes=self._scopes)
        drop(response)
        if response.status == 200:
            return True
        if response.status != 404:
            raise self._client.refusal(response)
        return any(
            self._mount(descriptor.digest, origin) for origin in list(self._origins.get(descriptor.digest, ()))[:_MAX_MOUNTS]
        )

    def _mount(self, digest: Digest, origin: str) -> bool:
        if origin == self.reference.path or digest in self._sessions:
            return False
        path = self._path(f"blobs/uploads/?mount={quote(str(digest), safe=':')}&from={quote(origin)}")
        scopes = (*self._scopes, f"repository:{origin}:pull")
        try:
            response = self._client.request("POST", path, scopes=scopes, headers={"Content-Length": "0"})
        except LaminaError:  # who may not read there uploads
            return False
        location = response.headers.get("Location", "")
        drop(response)
        if response.status == 202 and location:
            self._sessions[digest] = location
        if response.status == 201:
            self.mounted[digest] = origin
        return response.status == 201

    def put_blob(self, descriptor: Descriptor, content: Readable) -> None:
        """Upload a blob in one go. The registry verifies its digest; after an error it forgets the upload by itself."""
        location = self._sessions.pop(descriptor.digest, "")
        if not location:
            response = self._client.request(
                "POST", self._path("blobs/uploads/"), scopes=self._scopes, headers={"Content-Length": "0"}
            )
            location = response.headers.get("Location", "")
            if response.status != 202 or not location:
                raise self._client.refusal(response, "such a repository")
            drop(response)
        url = self._absolute(location)
        url += f"{'&' if urlsplit(url).query else '?'}digest={quote(str(descriptor.digest), safe=':')}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size_bytes)}
        response = self._client.request(
            "PUT", url, scopes=self._scopes, headers=headers, body=Body(content), body_is_once=True, timeout_s=_FINISH_S
        )
        if response.status not in {201, 204}:
            error = self._client.refusal(response, f"the upload of blob {descriptor.digest} any more")
            if response.status in {401, 404}:  # a token or an upload that ended meanwhile
                raise TransferError(error.message, hint=error.hint)
            raise error
        drop(response)

    def put_document(self, document: Document, *, is_root: bool) -> None:
        """Store a manifest, the root under the reference's tag."""
        which = (self.reference.tag if self.reference.digest is None else None) if is_root else None
        path = self._path(f"manifests/{quote(which or str(document.digest), safe=':')}")
        response = self._client.request(
            "PUT", path, scopes=self._scopes, headers={"Content-Type": document.media_type}, body=document.content
        )
        if response.status not in {200, 201, 202}:
            raise self._client.refusal(response, "what the manifest names")
        told = response.headers.get("Docker-Content-Digest", "")
        drop(response)
        if told and told != document.digest:
            raise self._client.named(IntegrityError(f"it stores the manifest as {told[:80]!r}, which is {document.digest}"))

    def _path(self, rest: str) -> str:
        return f"/v2/{self.reference.path}/{rest}"

    def _absolute(self, location: str) -> str:
        """Where an upload goes on: at the same host, if no other is named."""
        parts = urlsplit(location)
        if parts.scheme in {"http", "https"} and parts.hostname:
            return location
        if parts.scheme or not location.startswith("/"):
            raise self._client.named(LaminaError("it names no address for the upload", hint="is it a registry?"))
        return self._client.url(location)

    def close(self) -> None:
        """Let go of connections."""
        self._access.http.close()


class Body:
    """A readable as the body of a request."""

    def __init__(self, content: Readable) -> None:
        self._content = content

    def read(self, size: int = -1, /) -> bytes:
        return self._content.read(CHUNK_BYTES if size < 0 else max(size, CHUNK_BYTES))


class _Nobody:
    """Nobody's accounts: there are none."""

    def find(self, registry: str, repository: str = "") -> None:
        del registry, repository


def _without_accounts(access: Access) -> Access:
    return Access(settings=access.settings, http=access.http, credentials=_Nobody())


def _range(offset: int) -> dict[str, str]:
    return {"Range": f"bytes={offset}-"} if offset else {}


def _digest(text: str) -> Digest | None:
    try:
        return Digest(text)
    except UsageError:
        return None


def _body(client: Client, response: "BaseHTTPResponse", descriptor: Descriptor, offset: int) -> BodyReader:
    """Make a reader of an answer, which begins at `offset` if the registry knows ranges; else what comes before is passed over."""
    what = f"blob {descriptor.digest}"
    start = 0
    if response.status == 206:
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        first = rest.partition("-")[0]
        if unit != "bytes" or not first.isdecimal() or int(first) != offset:
            response.close()
            raise client.named(TransferError(f"it gives another part of {what} than was asked for", hint="try again"))
        start = offset
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) != descriptor.size_bytes - start:
        response.close()
        raise client.named(
            IntegrityError(
                f"{what} has {int(length) + start} bytes there, the manifest says {descriptor.size_bytes}",
                hint="don't trust this image",
            )
        )
    reader = BodyReader(
        response, descriptor.size_bytes - start, f"'{client.described}': registry '{client.host.name}': {what}", client.failed
    )
    try:
        left = offset - start
        while left:
            left -= len(reader.read(min(left, CHUNK_BYTES)))
    except BaseException:
        reader.close()
        raise
    return reader


def _media_type(response: "BaseHTTPResponse", content: bytes) -> str:
    """Find what a manifest is, from the answer's head and from itself. Raises `ArchiveError` for what is none."""
    told = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if told == "text/html" or content.lstrip()[:1] == b"<":
        raise ArchiveError("it gives a web page where a manifest should be", hint="is it a registry?")
    document = parse_document(content, "the manifest")
    own = document.get("mediaType") if isinstance(document, dict) else None
    if told in _SCHEMA_1 or own in _SCHEMA_1 or (isinstance(document, dict) and document.get("schemaVersion") == 1):
        raise ArchiveError(
            "it has the image in Docker's schema 1 alone, which is no longer supported",
            hint="push it anew with a Docker of 1.10 or later",
        )
    known = INDEX_TYPES | MANIFEST_TYPES
    if own in known and told in known and own != told:
        raise ArchiveError(f"it gives the manifest as '{told}', which calls itself '{own}'", hint="don't trust this image")
    found = own if own in known else told
    if found not in known and isinstance(document, dict) and own is None:
        found = OCI_INDEX if "manifests" in document else OCI_MANIFEST
    if found not in known:
        raise ArchiveError(
            f"it gives a '{str(found)[:80]}', which is no image", hint="only images of OCI's and Docker's schema 2 can be used"
        )
    return str(found)
