"""An image's configuration (OCI image-spec, config.md, with Docker's additions): what a container of it starts with.

The image's id is the digest of the configuration's bytes, so an image that came from elsewhere is never written again from these
values; they are written only for images that are made here.
"""

import re
from collections.abc import Mapping
from typing import Any, Self

from lamina.dataclasses import dataclass, field
from lamina.errors import UsageError
from lamina.model.digest import Digest, chain_ids
from lamina.model.image import Fields, Platform, dump_document, parse_document

_TIME = r"(?a)(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:[.,](\d{1,9})\d*)?(Z|z|[+-]\d\d:\d\d)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """A command that says whether the container is well. Times are nanoseconds, 0 for the default."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Any, where: str = "Healthcheck") -> Self:
        fields = Fields(document, where)
        return cls(
            test=fields.texts("Test"),
            interval_ns=fields.number("Interval", 0),
            timeout_ns=fields.number("Timeout", 0),
            start_period_ns=fields.number("StartPeriod", 0),
            start_interval_ns=fields.number("StartInterval", 0),
            retries=fields.number("Retries", 0),
            extra=fields.rest,
        )

    def to_json(self) -> dict[str, Any]:
        known = {
            "Test": list(self.test),
            "Interval": self.interval_ns,
            "Timeout": self.timeout_ns,
            "StartPeriod": self.start_period_ns,
            "StartInterval": self.start_interval_ns,
            "Retries": self.retries,
        }
        return {**_without_empty(known), **self.extra}


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The part `config` of a configuration: what a container gets unless the person who runs it says otherwise.

    `entrypoint`, `cmd` and `shell` are None when the image doesn't set them. `env` are `NAME=VALUE` texts.
    """

    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Any, where: str = "config") -> Self:
        fields = Fields({} if document is None else document, where)
        healthcheck, stop_timeout_s = fields.take("Healthcheck"), fields.take("StopTimeout")
        if stop_timeout_s is not None and (not isinstance(stop_timeout_s, int) or isinstance(stop_timeout_s, bool)):
            raise fields.wrong("StopTimeout", "is not a whole number")
        env = fields.texts("Env")
        if any(text.startswith("=") for text in env):
            raise fields.wrong("Env", "has a variable without a name")
        return cls(
            user=fields.text("User"),
            exposed_ports=fields.keys("ExposedPorts"),
            env=env,
            entrypoint=fields.optional_texts("Entrypoint"),
            cmd=fields.optional_texts("Cmd"),
            volumes=fields.keys("Volumes"),
            working_dir=fields.text("WorkingDir"),
            labels=fields.text_map("Labels"),
            stop_signal=fields.text("StopSignal"),
            stop_timeout_s=stop_timeout_s,
            healthcheck=None if healthcheck is None else Healthcheck.from_json(healthcheck, f"{where}.Healthcheck"),
            shell=fields.optional_texts("Shell"),
            on_build=fields.texts("OnBuild"),
            extra=fields.rest,
        )

    def to_json(self) -> dict[str, Any]:
        known: dict[str, Any] = {
            "User": self.user,
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Env": list(self.env),
            "Entrypoint": None if self.entrypoint is None else list(self.entrypoint),
            "Cmd": None if self.cmd is None else list(self.cmd),
            "Healthcheck": self.healthcheck.to_json() if self.healthcheck else None,
            "Volumes": {volume: {} for volume in self.volumes},
            "WorkingDir": self.working_dir,
            "Labels": dict(self.labels),
            "StopSignal": self.stop_signal,
            "StopTimeout": self.stop_timeout_s,
            "Shell": None if self.shell is None else list(self.shell),
            "OnBuild": list(self.on_build),
        }
        kept = {"Entrypoint": self.entrypoint, "Cmd": self.cmd, "Shell": self.shell, "StopTimeout": self.stop_timeout_s}
        return {
            **{name: value for name, value in known.items() if value or kept.get(name) is not None},
            **self.extra,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """How one layer, or one step without a layer, came to be. `created` is an RFC 3339 time, "" if unknown."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Any, where: str = "history") -> Self:
        fields = Fields(document, where)
        return cls(
            created=fields.text("created"),
            created_by=fields.text("created_by"),
            author=fields.text("author"),
            comment=fields.text("comment"),
            empty_layer=fields.flag("empty_layer"),
            extra=fields.rest,
        )

    def to_json(self) -> dict[str, Any]:
        known = {
            "created": self.created,
            "created_by": self.created_by,
            "author": self.author,
            "comment": self.comment,
            "empty_layer": self.empty_layer,
        }
        return {**_without_empty(known), **self.extra}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """A whole configuration. `diff_ids` name the layers' uncompressed tars, the base first."""

    os: str
    architecture: str
    variant: str = ""
    created: str = ""
    author: str = ""
    config: Defaults = field(default_factory=Defaults)
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_bytes(cls, content: bytes, what: str = "image configuration") -> Self:
        return cls.from_json(parse_document(content, what), what)

    @classmethod
    def from_json(cls, document: Any, where: str = "image configuration") -> Self:
        fields = Fields(document, where)
        rootfs = Fields(fields.take("rootfs"), f"{where}: field 'rootfs'")
        if rootfs.text("type") != "layers":
            raise rootfs.wrong("type", "is not 'layers'")
        diff_ids = []
        for index, text in enumerate(rootfs.texts("diff_ids")):
            try:
                diff_ids.append(Digest(text))
            except UsageError as error:
                raise rootfs.wrong(f"diff_ids[{index}]", f"is {error.message}") from None
        history = fields.list("history")
        return cls(
            os=fields.required_text("os"),
            architecture=fields.required_text("architecture"),
            variant=fields.text("variant"),
            created=fields.text("created"),
            author=fields.text("author"),
            config=Defaults.from_json(fields.take("config"), f"{where}: field 'config'"),
            diff_ids=tuple(diff_ids),
            history=tuple(HistoryEntry.from_json(one, f"{where}: history[{index}]") for index, one in enumerate(history)),
            extra=fields.rest,
        )

    def to_json(self) -> dict[str, Any]:
        known = {
            "created": self.created,
            "author": self.author,
            "architecture": self.architecture,
            "os": self.os,
            "variant": self.variant,
        }
        document = {
            **_without_empty(known),
            "config": self.config.to_json(),
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in self.diff_ids]},
        }
        return {**document, **({"history": [one.to_json() for one in self.history]} if self.history else {}), **self.extra}

    def to_bytes(self) -> bytes:
        return dump_document(self.to_json())

    @property
    def chain_ids(self) -> tuple[Digest, ...]:
        return chain_ids(self.diff_ids)

    @property
    def platform(self) -> Platform:
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant)

    @property
    def created_ns(self) -> int:
        """When it was made; see `created_ns_of`."""
        return created_ns_of(self.created)


def parse_time(text: str) -> int | None:
    """Read an RFC 3339 time as nanoseconds since 1970. None if it isn't one."""
    match = re.fullmatch(_TIME, text)
    if not match:
        return None
    from datetime import UTC, datetime, timedelta  # 2 ms

    day, clock, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
        seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    except (ValueError, OverflowError):
        return None
    return seconds * 10**9 + int((fraction or "0").ljust(9, "0"))


def created_ns_of(text: str) -> int:
    """Read a time of an image as nanoseconds since 1970; 0 if it isn't one, or an earlier one, such as Go's zero time."""
    return min(max(parse_time(text) or 0, 0), (1 << 63) - 1)


def format_time(time_ns: int) -> str:
    """Write nanoseconds since 1970 as Go writes a time in UTC: with as many digits of the fraction as it takes."""
    from datetime import UTC, datetime  # 2 ms

    seconds, fraction = divmod(time_ns, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return text + (f".{fraction:09d}".rstrip("0") if fraction else "") + "Z"


def _without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}
