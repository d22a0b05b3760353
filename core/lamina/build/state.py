"""What a stage has come to: an image that has no name yet. Pure values; it is the same whoever made it, on whatever driver.

`identity` names the state together with how it came to be. Layers are cached by content (the chain ID below them); steps that
change no file are cached by identity, so that a build from the cache gives the very image that is there.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from lamina import json
from lamina.dataclasses import dataclass, field, replace
from lamina.dockerfile.effects import DEFAULT_SHELL
from lamina.model.digest import Digest, chain_id, chain_ids
from lamina.model.image import Platform
from lamina.model.image_config import Defaults, HistoryEntry, ImageConfig, format_time
from lamina.store.images import LayerBlob

COMMENT = "lamina.dockerfile"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A file system, as layers, and a configuration. `layers` and `config.diff_ids` go together, the base first."""

    config: ImageConfig
    layers: tuple[LayerBlob, ...] = ()
    chain: Digest | None = None
    """The chain ID of all layers: what the file system is called. None for an empty one."""
    identity: str = ""
    image_id: Digest | None = None
    """The image that it is, as it is."""
    args: Mapping[str, str] = field(default_factory=dict)
    """The ARGs that are seen, by name: those that no later ENV has covered. A stage built on this one sees them, too."""
    declared: tuple[str, ...] = ()
    """The names of all ARGs with a value, in order, for RUN's history."""

    @property
    def defaults(self) -> Defaults:
        """What containers of it get."""
        return self.config.config

    @property
    def shell(self) -> tuple[str, ...]:
        """What shell forms run under."""
        return self.defaults.shell or DEFAULT_SHELL

    @property
    def chain_ids(self) -> tuple[Digest, ...]:
        """Every layer's chain ID, the base first."""
        return chain_ids(self.config.diff_ids)

    @property
    def variables(self) -> dict[str, str]:
        """What an instruction sees: ENV and ARG, the later one of a name."""
        return {**dict(item.partition("=")[::2] for item in self.defaults.env), **self.args}

    def with_arg(self, name: str, value: str) -> "State":
        """Give the state in which an ARG has a value."""
        return replace(self, args={**self.args, name: value}, declared=tuple(dict.fromkeys((*self.declared, name))))

    def with_defaults(self, **changes: Any) -> "State":
        """Give the state with other defaults."""
        return replace(self, config=replace(self.config, config=replace(self.defaults, **changes)), image_id=None)

    def after(self, *, created_by: str, created_ns: int, identity: str, layer: LayerBlob | None = None) -> "State":
        """Give the state after a step, with its line of history and its layer."""
        created = format_time(created_ns)
        entry = HistoryEntry(created=created, created_by=created_by, comment=COMMENT, empty_layer=layer is None)
        config = replace(self.config, created=created, history=(*self.config.history, entry))
        if layer is None:
            return replace(self, config=config, identity=identity, image_id=None)
        return State(
            config=replace(config, diff_ids=(*config.diff_ids, layer.diff_id)),
            layers=(*self.layers, layer),
            chain=chain_id(self.chain, layer.diff_id),
            identity=identity,
            args=self.args,
            declared=self.declared,
        )


def scratch(platform: Platform) -> State:
    """The state of `FROM scratch`: no file, and the two settings that Docker gives such an image."""
    config = ImageConfig(
        os=platform.os, architecture=platform.architecture, variant=platform.variant, config=Defaults(working_dir="/")
    )
    return State(config=config, identity=key_of("scratch", {"platform": str(platform)}))


def of_image(config: ImageConfig, layers: tuple[LayerBlob, ...], image_id: Digest) -> State:
    """The state that an image is."""
    chain = config.chain_ids[-1] if config.diff_ids else None
    return State(config=config, layers=layers, chain=chain, identity=key_of("image", {"id": image_id}), image_id=image_id)


def key_of(kind: str, facts: Mapping[str, Any]) -> str:
    """Name facts by their digest. Whatever a step's result depends on must be among them."""
    text = json.dumps([1, kind, facts], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
