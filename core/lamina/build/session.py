"""What all stages of one build share: the request, the Dockerfile, the context, the layers, the cache, the images below."""

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lamina.build.cache import Cache
from lamina.build.layers import Layers
from lamina.build.progress import Progress, Step
from lamina.build.request import BuildRequest
from lamina.build.state import State, of_image, scratch
from lamina.build.variables import Arguments
from lamina.dataclasses import dataclass, field, replace
from lamina.dockerfile.instructions import Copy, Dockerfile
from lamina.errors import NotFoundError, UsageError
from lamina.model import platforms
from lamina.model.container import merge_env
from lamina.model.image import Platform
from lamina.store.images import Image
from lamina.usecases.context import Context

if TYPE_CHECKING:
    from lamina.build.context import BuildContext
    from lamina.build.copying import Gathered
    from lamina.model.reference import Reference
    from lamina.registry.report import Report, Transferred

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True, kw_only=True)
class Session:
    """One build. `states` are those of the stages that are complete."""

    context: Context
    request: BuildRequest
    dockerfile: Dockerfile
    files: "BuildContext"
    arguments: Arguments
    layers: Layers
    cache: Cache
    progress: Progress
    platform: Platform
    states: Mapping[int, State] = field(default_factory=dict)
    bases: list[tuple[str, str]] = field(default_factory=list)
    """The images that it stands on: name and id."""
    looked_at: list[str] | None = field(default_factory=list)
    """Paths of the context that it has looked at; None once that can't be told, and so the build not be remembered."""
    warnings: list[str] = field(default_factory=list)
    shown: list[tuple[str, str]] = field(default_factory=list)
    """The steps that a person has seen, each with how a build from the cache would show it."""
    _images: dict[tuple[str, str], State] = field(default_factory=dict)

    @property
    def epoch_ns(self) -> int | None:
        """SOURCE_DATE_EPOCH in nanoseconds, None if there is none."""
        epoch = self.request.source_date_epoch
        return None if epoch is None else epoch * 10**9

    @property
    def hashes_path(self) -> str:
        """Where digests of the context's files are remembered, so that a large one need not be read again."""
        directory = os.path.join(self.context.root_dir, "build")
        if not os.path.isdir(directory):
            os.makedirs(directory, mode=0o710, exist_ok=True)
        return os.path.join(directory, "hashes")

    def warn(self, text: str) -> None:
        """Tell a person something, now and when the build is remembered."""
        self.warnings.append(text)
        self.progress.warn(text)

    def note_sources(self, copy: Copy, gathered: "Gathered") -> None:
        """Note which paths of the context the outcome of a COPY, or of a bind mount, depends on."""
        if self.looked_at is None:
            return
        from lamina.build.memo import looked_at

        found = [one.source for part in gathered.parts if part.document is None for one in part.found]
        patterns = copy.parents or bool(copy.exclude) or any(set("*?[\\") & set(source) for source in copy.sources)
        more = looked_at(self.files.directory, copy.sources, found, with_patterns=patterns)
        self.looked_at = None if more is None else [*self.looked_at, *more]

    def image(self, name: str, platform: str, step: Step) -> State:
        """Give the state that an image is, pulled if it isn't here or `--pull` says so; the step is told how that goes.

        Raises `NotFoundError`, `UsageError`, and what a registry has wrong.
        """
        key = (name, platform)
        if key not in self._images:
            self._images[key] = self._image(name, platform, step)
        return self._images[key]

    def _image(self, name: str, platform: str, step: Step) -> State:
        wanted = parse_platform(platform, machine=self.platform) if platform else self.platform
        if name == "scratch":
            return scratch(wanted)
        images = self.context.images
        image = None
        if not self.request.pull:
            try:
                image = images.resolve(name)
            except NotFoundError:
                pass
        if image is None:
            image = _pull(self.context, name, wanted, policy="always" if self.request.pull else self.context.pull_policy, step=step)
        config = images.config(image)
        explicit = bool(platform or self.request.platform)
        if not _fits(config.platform, wanted):
            if explicit:
                raise UsageError(
                    f"the image '{name}' is for {config.platform}, not for {wanted}",
                    hint="choose another platform, or another image",
                )
            self.warn(f"the image '{name}' is for {config.platform}, and this machine is {wanted}")
        self.bases.append((name, str(image.id)))
        return of_image(config, tuple(images.layers(image)), image.id)


def with_path(state: State) -> State:
    """Give a base the PATH that Docker gives one that has none."""
    if any(item.startswith("PATH=") for item in state.defaults.env):
        return state
    return state.with_defaults(env=merge_env(list(state.defaults.env), [DEFAULT_PATH]))


def without_triggers(state: State) -> State:
    """Give a base without its ONBUILD triggers: they are carried out once."""
    return state.with_defaults(on_build=()) if state.defaults.on_build else state


def parse_platform(text: str, *, machine: Platform) -> Platform:
    """Read a platform as `pull` does, or `local`. Raise UsageError for one that nothing here can run."""
    if text == "local":
        return machine
    platform = platforms.parse_platform(text)
    if platform.os != "linux":
        raise UsageError(f"the platform '{text}' can't be built here", hint="only linux can")
    return platform


def _fits(has: Platform, wanted: Platform) -> bool:
    bare = replace(has, variant="") if not wanted.variant or (has.architecture, has.variant) == ("arm64", "v8") else has
    return (bare.os, bare.architecture, bare.variant) == (wanted.os, wanted.architecture, wanted.variant)


def _pull(context: Context, name: str, platform: Platform, *, policy: str, step: Step) -> Image:
    if policy == "never":
        raise NotFoundError(f"no such image: '{name}'", hint="`lamina images` lists those that are here")
    from contextlib import contextmanager
    from threading import Lock

    from lamina.usecases.transfers import ensure_image

    lock = Lock()  # news come from several threads

    def tell(news: "Transferred") -> None:
        if news.state.is_final:
            with lock:
                step.say(f"{news.digest.short}: {news.state}")

    @contextmanager
    def pulling(_reference: "Reference", _is_missing: bool) -> "Iterator[Report]":
        step.begin()
        yield tell

    return ensure_image(context, name, policy, platform=platform, pulling=pulling)
