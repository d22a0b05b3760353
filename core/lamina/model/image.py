"""The JSON documents of an image: descriptors, manifests, indexes, configurations (OCI image-spec 1.1; Docker's schema 2).

They are read once, strictly, and errors name the field. Fields that this code doesn't know stay in `extra` and are written again.
What has a digest is never written again from these values: the bytes as they came are what is kept.
"""

from collections.abc import Mapping
from typing import Any, Self

from lamina import json
from lamina.dataclasses import dataclass, field
from lamina.errors import ArchiveError, UsageError
from lamina.model.digest import Digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})
LAYER_TYPES = frozenset(
    {
        *(OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP),
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
MAX_DOCUMENT_BYTES = 8 << 20
"""More than registries take (4 MiB), less than what hurts."""


def parse_document(content: bytes, what: str) -> Any:
    """Read JSON bytes. Raise ArchiveError, naming `what`, for anything but one JSON value of sane size and depth."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise ArchiveError(f"{what} has {len(content)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
        if b"\\ud" in content.lower():  # half of a character, which JSON can say and no program can be given
            dump_document(value)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{what} is not valid JSON: {str(error)[:200]}") from None
    return value


def dump_document(document: Any) -> bytes:
    """Write JSON bytes, compact and always the same for the same value."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class Fields:
    """One JSON object being read: each field is taken once, with its type checked; what nobody took is `rest`."""

    def __init__(self, document: Any, where: str) -> None:
        if not isinstance(document, dict):
            raise ArchiveError(f"{where} is not a JSON object")
        self._left: dict[str, Any] = dict(document)
        self._where = where

    def wrong(self, name: str, why: str) -> ArchiveError:
        return ArchiveError(f"{self._where}: field '{name}' {why}")

    def take(self, name: str) -> Any:
        return self._left.pop(name, None)

    def text(self, name: str, default: str = "") -> str:
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, str) or "\0" in value:
            raise self.wrong(name, "is not a text")
        return value

    def required_text(self, name: str) -> str:
        if not self._left.get(name):
            raise self.wrong(name, "is missing")
        return self.text(name)

    def digest(self, name: str) -> Digest:
        try:
            return Digest(self.required_text(name))
        except UsageError as error:
            raise self.wrong(name, f"is {error.message}") from None

    def number(self, name: str, default: int | None = None) -> int:
        value = self.take(name)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.wrong(name, "is missing")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise self.wrong(name, "is not a whole number of 0 or more")
        return value

    def flag(self, name: str) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "is neither true nor false")
        return bool(value)

    def optional_texts(self, name: str) -> tuple[str, ...] | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, str):  # old builders wrote a command as one text
            return (value,)
        if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
            raise self.wrong(name, "is not a list of texts")
        return tuple(value)

    def texts(self, name: str) -> tuple[str, ...]:
        return self.optional_texts(name) or ()

    def text_map(self, name: str) -> dict[str, str]:
        value = self.take(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise self.wrong(name, "is not a map of texts")
        return value

    def keys(self, name: str) -> tuple[str, ...]:
        """A Go set: an object of which only the keys matter."""
        value = self.take(name)
        if value is None:
            return ()
        if not isinstance(value, dict) or any("\0" in key for key in value):
            raise self.wrong(name, "is not a JSON object with texts for keys")
        return tuple(value)

    def list(self, name: str) -> list[Any]:
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(name, "is not a list")
        return value

    @property
    def rest(self) -> dict[str, Any]:
        return self._left


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What a manifest runs on, by Go's names (`linux`, `amd64`)."""

    os: str
    architecture: str
    variant: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Any, where: str = "platform") -> Self:
        fields = Fields(document, where)
        return cls(
            os=fields.text("os"), architecture=fields.text("architecture"), variant=fields.text("variant"), extra=fields.rest
        )

    def to_json(self) -> dict[str, Any]:
        document = {"architecture": self.architecture, "os": self.os}
        return {**document, **({"variant": self.variant} if self.variant else {}), **self.extra}

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Points at content: its type, digest and size."""

    media_type: str
    digest: Digest
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Any, where: str = "descriptor") -> Self:
        fields = Fields(document, where)
        platform = fields.take("platform")
        return cls(
            media_type=fields.required_text("mediaType"),
            digest=fields.digest("digest"),
            size_bytes=fields.number("size"),
            annotations=fields.text_map("annotations"),
            platform=None if platform is None else Platform.from_json(platform, f"{where}.platform"),
            extra=fields.rest,
        )

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size_bytes}
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform is not None:
            document["platform"] = self.platform.to_json()
        return {**document, **self.extra}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image for one platform: its configuration and its layers, the base first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = OCI_MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_bytes(cls, content: bytes, what: str = "manifest") -> Self:
        return cls.from_json(parse_document(content, what), what)

    @classmethod
    def from_json(cls, document: Any, where: str = "manifest") -> Self:
        fields = Fields(document, where)
        if fields.number("schemaVersion") != 2:
            raise fields.wrong("schemaVersion", "is not 2")
        media_type = fields.text("mediaType", OCI_MANIFEST)  # optional in OCI 1.0
        if media_type not in MANIFEST_TYPES:
            raise fields.wrong("mediaType", f"is '{media_type}', not a manifest's")
        if "manifests" in fields.rest:  # one text, two readings: CVE-2021-41190
            raise fields.wrong("manifests", "belongs into an index, and this is a manifest")
        layers = fields.list("layers")
        return cls(
            config=Descriptor.from_json(fields.take("config"), f"{where}.config"),
            layers=tuple(Descriptor.from_json(layer, f"{where}.layers[{index}]") for index, layer in enumerate(layers)),
            media_type=media_type,
            annotations=fields.text_map("annotations"),
            extra=fields.rest,
        )

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        return {**document, **({"annotations": dict(self.annotations)} if self.annotations else {}), **self.extra}

    def to_bytes(self) -> bytes:
        return dump_document(self.to_json())


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A list of manifests or of further indexes: one image for several platforms, or a layout's `index.json`."""

    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX
    annotations: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_bytes(cls, content: bytes, what: str = "index") -> Self:
        return cls.from_json(parse_document(content, what), what)

    @classmethod
    def from_json(cls, document: Any, where: str = "index") -> Self:
        fields = Fields(document, where)
        if fields.number("schemaVersion") != 2:
            raise fields.wrong("schemaVersion", "is not 2")
        media_type = fields.text("mediaType", OCI_INDEX)
        if media_type not in INDEX_TYPES:
            raise fields.wrong("mediaType", f"is '{media_type}', not an index's")
        for name in ("config", "layers"):
            if name in fields.rest:
                raise fields.wrong(name, "belongs into a manifest, and this is an index")
        manifests = fields.list("manifests")
        return cls(
            manifests=tuple(Descriptor.from_json(one, f"{where}.manifests[{index}]") for index, one in enumerate(manifests)),
            media_type=media_type,
            annotations=fields.text_map("annotations"),
            extra=fields.rest,
        )

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [one.to_json() for one in self.manifests],
        }
        return {**document, **({"annotations": dict(self.annotations)} if self.annotations else {}), **self.extra}

    def to_bytes(self) -> bytes:
        return dump_document(self.to_json())
