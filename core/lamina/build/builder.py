"""A build from request to image: everything of this room comes together here.

It may be killed at any line: steps that are done are in the cache, what was half made carries the operation's number, and the image
becomes visible in one transaction at the end.
"""

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lamina.build.cache import Cache
from lamina.build.graph import needed_stages, target_stage
from lamina.build.layers import DamagedLayerError, Layers
from lamina.build.progress import DONE, Progress, Step
from lamina.build.request import BuildRequest
from lamina.build.scheduler import Scheduler
from lamina.build.session import Session, parse_platform
from lamina.build.stage import StageWork, StepFailedError
from lamina.build.state import State
from lamina.build.variables import Arguments
from lamina.dataclasses import dataclass, replace
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.parse import parse
from lamina.errors import NotFoundError, UsageError
from lamina.model.digest import Digest
from lamina.model.image import Platform
from lamina.model.machine import machine_architecture
from lamina.model.reference import Reference
from lamina.store.images import Image
from lamina.usecases.context import Context

if TYPE_CHECKING:
    from lamina.build.context import BuildContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build came to."""

    image: Image
    names: tuple[Reference, ...]


def build(context: Context, request: BuildRequest, progress: Progress) -> Built:
    """Build an image. Raises `DockerfileError` for what is wrong in the Dockerfile or fails in a step, `UsageError` and others."""
    from lamina.build.context import open_context

    begun_ns = time.time_ns()
    request = _with_epoch(request)
    _check_texts(request)
    machine = Platform(os="linux", architecture=machine_architecture())
    platform = parse_platform(request.platform, machine=machine) if request.platform else machine
    distrusted: set[Digest] = set()
    layers = _layers(context, request, distrusted)
    try:
        with open_context(
            request.source, dockerfile=request.dockerfile, stdin=request.stdin, spool_dir=_spool_dir(layers, request)
        ) as files:
            dockerfile = parse(files.dockerfile, file_name=files.dockerfile_name)
            for warning in dockerfile.warnings:
                progress.warn(warning)
            arguments = Arguments(dockerfile, request, target=platform, machine=machine)
            target = target_stage(dockerfile, request.target)
            while True:
                cache = Cache(context.database, context.images, no_cache=request.no_cache)
                session = Session(
                    context=context, request=request, dockerfile=dockerfile, files=files, arguments=arguments, layers=layers,
                    cache=cache, progress=progress, platform=platform, warnings=list(dockerfile.warnings),
                )  # fmt: skip
                try:
                    state = _run_stages(session, target)
                    break
                except DamagedLayerError as error:
                    distrusted.add(error.layer.digest)
                    if not cache.forget_layer(error.layer.digest):  # it is an image's: no build can help
                        raise
                finally:
                    cache.end()
            for name in arguments.unused():
                session.warn(f"the build argument '{name}' was given, and no ARG asks for it")
            built = _finish(session, state)
            _remember(session, state, built, begun_ns)
            return built
    finally:
        layers.close()


def _layers(context: Context, request: BuildRequest, distrusted: set[Digest]) -> Layers:
    epoch = request.source_date_epoch
    limit_ns = None if epoch is None else epoch * 10**9
    return Layers(context, driver=request.storage_driver, mtime_limit_ns=limit_ns, distrusted=distrusted)


def _spool_dir(layers: Layers, request: BuildRequest) -> str:
    """Where a context that comes as an archive is unpacked; a directory needs no place, and then nothing is written."""
    return "" if request.source != "-" and os.path.isdir(request.source) else layers.dir


def _run_stages(session: Session, target: int) -> State:
    wanted = needed_stages(session.dockerfile, session.arguments, target)
    stages = session.dockerfile.stages
    progress = session.progress
    scheduler = Scheduler(lambda index: StageWork(session, stages[index]).work(), tick=progress.tick, tick_s=progress.tick_s)
    session.states = scheduler.states
    try:
        scheduler.run(wanted)
    except StepFailedError as error:
        progress.failed(error.step, _excerpt(session.files, session, error))
        raise
    return scheduler.states[target]


def _excerpt(files: "BuildContext", session: Session, error: StepFailedError) -> str:
    from lamina.build.excerpt import excerpt

    return excerpt(files.dockerfile, session.dockerfile, line=error.line, last_line=error.last_line)


def _finish(session: Session, state: State) -> Built:
    """Write the image, or only what is missing of it, and give it its names."""
    request, images = session.request, session.context.images
    config = state.config
    if request.labels:
        config = replace(config, config=replace(config.config, labels={**config.config.labels, **request.labels}))
    if not config.created:
        from lamina.model.image_config import format_time

        config = replace(config, created=format_time(session.epoch_ns or 0))
    step = session.progress.step("exporting to image")
    step.begin()
    if state.image_id is not None and config == state.config:  # nothing but FROM: it is the same image
        image = images.get(state.image_id)
        _tag(session, image, request.names)
    else:
        content = config.to_bytes()
        found = images.recognise(Digest.of(content), names=request.names)
        if found is not None:
            image = found
        else:
            from lamina.store.oci_archive import oci_manifest

            with images.ingest() as ingest:
                image = images.add(
                    ingest, manifest=oci_manifest(content, state.layers), config=content, layers=state.layers, names=request.names
                )
    _say(step, image, request.names)
    step.end(DONE)
    return Built(image=image, names=request.names)


def _remember(session: Session, state: State, built: Built, begun_ns: int) -> None:
    """Note what the whole build came to, if the next one of the same words could tell by looking that it would be the same."""
    request = session.request
    if not request.memo_key or session.looked_at is None or request.no_cache or request.pull:
        return
    from lamina.build.memo import describe, looked_for

    paths = looked_for(session.files.directory, request.dockerfile)
    bases = []
    for name, image_id in session.bases:
        try:
            reference = Reference.parse(name)
            has = session.context.images.names(session.context.images.get(image_id))
        except (NotFoundError, UsageError):
            return  # it was removed meanwhile, or named by an id
        if reference not in has:
            return
        bases.append((reference.canonical, image_id))
    if paths is None:
        return
    document = describe(
        image_id=str(built.image.id), names=request.memo_names, bases=bases, paths=[*paths, *session.looked_at],
        keys=session.cache.keys, steps=session.shown, warnings=session.warnings, begun_ns=begun_ns,
    )  # fmt: skip
    if document is not None:
        title = ", ".join(name.familiar for name in built.names) or str(built.image.id)
        session.cache.remember(request.memo_key, document, chain=state.chain, description=f"build of {title}")


def _tag(session: Session, image: Image, names: Sequence[Reference]) -> None:
    images = session.context.images
    if names:
        has = set(images.names(image))
        for name in names:
            if name not in has:
                images.tag(image, name)


def _say(step: Step, image: Image, names: Sequence[Reference]) -> None:
    step.say(f"writing image {image.id}")
    for name in names:
        step.say(f"naming to {name.canonical}")


def _check_texts(request: BuildRequest) -> None:
    """Refuse what couldn't be written into an image's configuration, which is JSON and so UTF-8."""
    for what, given in (("build argument", request.build_args), ("label", request.labels)):
        for name, value in given.items():
            try:
                f"{name}={value}".encode()
            except UnicodeEncodeError:
                shown = name.encode("utf-8", "replace").decode()
                raise UsageError(f"the {what} '{shown}' isn't UTF-8") from None


def _with_epoch(request: BuildRequest) -> BuildRequest:
    """Take SOURCE_DATE_EPOCH from --build-arg or the environment, the former first (reproducible-builds.org)."""
    text = request.build_args.get("SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH", ""))
    if request.source_date_epoch is not None or not text:
        return request
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 33):
        raise UsageError(f"SOURCE_DATE_EPOCH is '{text[:50]}', not seconds since 1970")
    return replace(request, source_date_epoch=int(text), build_args={**request.build_args, "SOURCE_DATE_EPOCH": text})


__all__ = ["Built", "DockerfileError", "build"]
