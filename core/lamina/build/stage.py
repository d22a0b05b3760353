"""One stage, carried out from FROM to its last instruction, as a generator that yields whenever it must wait (`scheduler.py`).

Each step first asks the cache, by a key of all that its result depends on, and does its work only if the cache doesn't know.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from lamina.build.graph import base_stage, has_place, source_stage
from lamina.build.layers import DamagedLayerError
from lamina.build.progress import CACHED, CANCELED, DONE, FAILED, Step
from lamina.build.scheduler import NeedStage, Wait, Work
from lamina.build.session import Session, with_path, without_triggers
from lamina.build.settings import apply_setting, copy_history, joined, run_history
from lamina.build.sources import without_accounts
from lamina.build.state import State, key_of
from lamina.build.variables import PROXIES
from lamina.dataclasses import replace
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.instructions import Arg, Cmd, Copy, From, Instruction, Run, Stage, Workdir
from lamina.errors import LaminaError, UsageError
from lamina.store.images import LayerBlob

if TYPE_CHECKING:
    from lamina.archive.compression import Writable
    from lamina.build.mounts import Bound

_SHOWN = (Run, Copy, Workdir)


class StepFailedError(DockerfileError):
    """A step that failed while it was shown; `excerpt` are the Dockerfile's lines around it."""

    step: Step | None = None
    last_line: int = 0


class StageWork:
    """A stage at work."""

    def __init__(self, session: Session, stage: Stage) -> None:
        self._session = session
        self._stage = stage
        self._cmd_is_set = False
        self._number = 0
        self._total = sum(isinstance(one, _SHOWN) for one in stage.instructions)
        self._origin = ""
        """Whose trigger is being carried out: a text for errors."""

    def work(self) -> Work:
        """Carry the stage out; gives what it came to."""
        base = self._stage.base
        with self._placed(base):
            expanded = self._session.arguments.expanded(base, self._session.arguments.globals)
        state = yield from self._from(expanded)
        if not self._stage.instructions and not state.defaults.on_build:
            return state
        state = with_path(state)
        triggers = state.defaults.on_build
        if triggers:
            state = yield from self._triggers(without_triggers(state), triggers, expanded)
        for instruction in self._stage.instructions:
            state = yield from self._carry_out(state, instruction)
        return state

    def _triggers(self, state: State, triggers: tuple[str, ...], base: From) -> Generator[Wait, None, State]:
        from lamina.dockerfile.parse import parse_instruction

        self._origin = f"ONBUILD of '{base.image}'"
        for text in triggers:
            with self._placed(base):
                instruction = parse_instruction(text, file_name=self._session.dockerfile.file_name, line=base.line)
            self._total += isinstance(instruction, _SHOWN)
            state = yield from self._carry_out(state, replace(instruction, line=base.line, last_line=base.last_line))
        self._origin = ""
        return state

    def _from(self, base: From) -> Generator[Wait, None, State]:
        session = self._session
        index = base_stage(session.dockerfile, base.image, before=self._stage.index)
        if index is not None:
            yield NeedStage(index)
            return session.states[index]
        self._total += 1
        step = self._step(f"FROM {base.image}")
        with self._placed(base, step):
            step.begin()
            state = session.image(base.image, base.platform, step)
            step.end(DONE)
        return state

    def _step(self, text: str) -> Step:
        self._number += 1
        place = has_place(self._session.dockerfile, self._stage)
        title = f"[{place}{self._number}/{self._total}] {' '.join(text.split())}"
        self._session.shown.append((title, DONE if text.startswith("FROM ") else CACHED))
        return self._session.progress.step(title)

    @contextlib.contextmanager
    def _placed(self, instruction: Instruction, step: Step | None = None) -> Iterator[None]:
        """Say with an error where in the Dockerfile it happened, and that its step has failed or was given up."""
        try:
            yield
        except DamagedLayerError:
            if step is not None:
                step.end(CANCELED)
            raise
        except (LaminaError, OSError) as error:
            if step is not None:
                step.end(FAILED)
            if isinstance(error, StepFailedError):
                raise
            raise self._failed(error, instruction, step) from error
        except BaseException:
            if step is not None:
                step.end(CANCELED)
            raise

    def _failed(self, error: LaminaError | OSError, instruction: Instruction, step: Step | None) -> StepFailedError:
        file_name = self._session.dockerfile.file_name
        if isinstance(error, LaminaError):
            message, hint = error.message, error.hint
        else:
            message = f"{(error.strerror or str(error)).lower()}{f': {error.filename!r}' if error.filename else ''}"
            hint = ""
        line, word = instruction.line, instruction.name
        if isinstance(error, DockerfileError):
            message = message.removeprefix(f"{error.file_name}:{error.line}: ").removeprefix(f"{error.instruction}: ")
            line, word = error.line or line, error.instruction or word
        if self._origin:
            word = f"{word} ({self._origin})"
        failed = StepFailedError(message, file_name=file_name, line=line, instruction=word, hint=hint)
        failed.step = step
        failed.last_line = max(instruction.last_line, line)
        for note in getattr(error, "__notes__", ()):
            failed.add_note(note)
        return failed

    def _carry_out(self, state: State, instruction: Instruction) -> Generator[Wait, None, State]:
        with self._placed(instruction):
            if isinstance(instruction, Arg):
                return self._arg(state, instruction)
            instruction = self._session.arguments.expanded(instruction, state.variables)
        if isinstance(instruction, Run):
            return (yield from self._run(state, instruction))
        if isinstance(instruction, Copy):
            return (yield from self._copy(state, instruction))
        if isinstance(instruction, Workdir):
            return self._workdir(state, instruction)
        with self._placed(instruction):
            new, text = apply_setting(state, instruction, cmd_is_set=self._cmd_is_set)
            self._cmd_is_set = self._cmd_is_set or isinstance(instruction, Cmd)
            return self._configured(new, text)

    # What changes no file

    def _arg(self, state: State, instruction: Arg) -> State:
        state, said = self._session.arguments.declare(state, instruction)
        return self._configured(state, f"ARG {' '.join(said)}") if said else state

    def _configured(self, state: State, text: str) -> State:
        """Give the state after a step that changed its configuration: the cache knows when it was made first."""
        cache, epoch = self._session.cache, self._session.epoch_ns
        key = key_of("config", {"before": state.identity, "text": text, "epoch": epoch, "config": _config_key(state)})
        found = cache.find(key)
        created_ns = found.created_ns if found is not None else self._now_ns()
        if found is None:
            cache.record(key, kind="config", layer=None, chain=state.chain, description=text, created_ns=created_ns)
        return state.after(created_by=text, created_ns=created_ns, identity=key)

    def _now_ns(self) -> int:
        return self._session.epoch_ns if self._session.epoch_ns is not None else time.time_ns()

    # What makes a layer

    def _layered(self, state: State, key: str, text: str, created_ns: int, layer: LayerBlob | None) -> State:
        identity = key_of("step", {"before": state.identity, "key": key, "layer": layer.digest if layer else ""})
        return state.after(created_by=text, created_ns=created_ns, identity=identity, layer=layer)

    def _make(self, state: State, key: str, kind: str, text: str, write: "Callable[[Writable], None]") -> State:
        """Make a layer, note it in the cache, and give the state with it."""
        session, created_ns = self._session, self._now_ns()

        def note(layer: LayerBlob) -> None:
            chain = replace(state).after(created_by="", created_ns=0, identity="", layer=layer).chain
            session.cache.record(key, kind=kind, layer=layer, chain=chain, description=text, created_ns=created_ns)

        layer = session.layers.make(write, note)
        after = self._layered(state, key, text, created_ns, layer)
        session.layers.protect(after)
        return after

    def _facts(self, state: State, **facts: Any) -> dict[str, Any]:
        return {"chain": state.chain or "", "platform": str(state.config.platform), "epoch": self._session.epoch_ns, **facts}

    def _workdir(self, state: State, instruction: Workdir) -> State:
        session = self._session
        path = joined(state.defaults.working_dir, instruction.path)
        text = f"WORKDIR {path}"
        new = state.with_defaults(working_dir=path)
        step = self._step(text)
        with self._placed(instruction, step):
            key = key_of("workdir", self._facts(state, path=path, user=state.defaults.user))
            found = session.cache.find(key)
            if found is not None:
                step.end(CACHED)
                return self._layered(new, key, text, found.created_ns, found.layer)
            step.begin()
            after = self._make_workdir(new, key, text, path)
            step.end(DONE)
            return after

    def _make_workdir(self, state: State, key: str, text: str, path: str) -> State:
        from lamina.archive.writer import write_entries
        from lamina.build.ownership import resolve_owner
        from lamina.build.tree import NewDirectories, missing_directories

        session = self._session
        with session.layers.seen(state) as root:
            missing = missing_directories(root, path)
            if not missing:
                created_ns = self._now_ns()
                session.cache.record(key, kind="workdir", layer=None, chain=state.chain, description=text, created_ns=created_ns)
                return self._layered(state, key, text, created_ns, None)
            uid, gid = resolve_owner(state.defaults.user, root) if state.defaults.user else (0, 0)
        entries = NewDirectories(missing, uid=uid, gid=gid, mtime_ns=self._now_ns())
        return self._make(state, key, "workdir", text, lambda out: write_entries(out, entries))

    def _source(self, name: str, instruction: Instruction, step: Step) -> Generator[Wait, None, State]:
        """Give the state that `--from` means: an earlier stage's, or an image's."""
        session = self._session
        index = source_stage(
            session.dockerfile, name, before=self._stage.index, line=instruction.line, instruction=instruction.name
        )
        if index is None:
            return session.image(name, "", step)
        yield NeedStage(index)
        return session.states[index]

    def _copy(self, state: State, copy: Copy) -> Generator[Wait, None, State]:
        text = copy_history(copy)
        step = self._step(without_accounts(copy.text))
        with self._placed(copy, step):
            source = (yield from self._source(copy.from_, copy, step)) if copy.from_ else None
            return self._copied(state, copy, source, text, step)

    def _copied(self, state: State, copy: Copy, source: State | None, text: str, step: Step) -> State:
        from lamina.build.copying import SourceTree, gather
        from lamina.build.sources import is_remote

        session = self._session
        spec = {
            "add": copy.is_add, "sources": copy.sources, "destination": copy.destination, "chown": copy.chown, "chmod": copy.chmod,
            "parents": copy.parents, "exclude": copy.exclude, "unpack": copy.unpack, "git": copy.keep_git_dir,
            "heredocs": [[one.name, one.content] for one in copy.heredocs], "link": copy.link,
        }  # fmt: skip
        known = ""
        content_key = ""
        if source is not None:
            content_key = key_of("content", {"chain": source.chain or "", "copy": spec})
            known = session.cache.content(content_key)
        with contextlib.ExitStack() as stack:
            gathered = None
            if not known:
                downloads = any(is_remote(one) for one in copy.sources)
                if source is not None:
                    step.begin()
                    tree = SourceTree(path=stack.enter_context(self._tree(source)), described=f"'{copy.from_}'")
                else:
                    tree = session.files.tree
                if downloads:
                    step.begin()
                gathered = gather(
                    copy,
                    tree,
                    downloads_dir=self._downloads(stack) if downloads else "",
                    cache_path=session.hashes_path if source is None else "",
                    file_name=session.dockerfile.file_name,
                )
                if downloads:
                    session.looked_at = None
                if source is None:
                    session.note_sources(copy, gathered)
                known = str(gathered.digest)
                if source is not None:
                    session.cache.record(
                        content_key, kind="content", layer=None, chain=source.chain, description=text,
                        created_ns=time.time_ns(), content=known,
                    )  # fmt: skip
            facts = self._facts(state, content=known, working_dir=state.defaults.working_dir, copy=spec)
            if copy.link:
                facts["chain"] = ""  # what is below doesn't matter
            key = key_of("copy", facts)
            found = session.cache.find(key)
            if found is not None:
                step.end(CACHED)
                return self._layered(state, key, text, found.created_ns, found.layer)
            step.begin()
            if gathered is None:  # only the source's digest was known
                tree = SourceTree(path=stack.enter_context(self._tree(source)), described=f"'{copy.from_}'")  # type: ignore[arg-type]
                gathered = gather(copy, tree, file_name=session.dockerfile.file_name)
            after = self._make_copy(state, copy, gathered, key, text)
            step.end(DONE)
            return after

    @contextlib.contextmanager
    def _tree(self, source: State) -> Iterator[str]:
        """Give a state's tree, an empty directory for an empty one."""
        with self._session.layers.seen(source) as root, contextlib.ExitStack() as stack:
            yield root if root is not None else self._downloads(stack)

    def _downloads(self, stack: contextlib.ExitStack) -> str:
        import os

        from lamina.linux.fs import remove_tree

        path = os.path.join(self._session.layers.dir, os.urandom(8).hex())
        os.mkdir(path, 0o700)
        stack.callback(remove_tree, path)
        return path

    def _make_copy(self, state: State, copy: Copy, gathered: Any, key: str, text: str) -> State:
        from lamina.archive.writer import write_entries

        session = self._session
        session.layers.protect(state)
        with contextlib.ExitStack() as stack:
            root = None if copy.link else stack.enter_context(session.layers.seen(state))
            entries = gathered.entries(
                base_root=root, working_dir=state.defaults.working_dir or "/", mtime_limit_ns=session.epoch_ns
            )
            return self._make(state, key, "copy", text, lambda out: write_entries(out, entries))

    # RUN

    def _run(self, state: State, instruction: Run) -> Generator[Wait, None, State]:
        session = self._session
        if instruction.security != "sandbox":
            with self._placed(instruction):
                raise UsageError(f"--security={instruction.security} is not allowed", hint="a build's commands run confined")
        env = {name: value for name, value in state.variables.items() if name not in PROXIES or name not in state.args}
        args = {name: env[name] for name in state.declared if name in env}
        arguments, script = command_line(instruction, state.shell)
        text = run_history(arguments, args) if not script else run_history([*state.shell, script], args)
        network = network_of(instruction.network, session.request.network)
        step = self._step(instruction.text)
        with self._placed(instruction, step):
            bounds = yield from self._bounds(state, instruction, step)
            key = key_of("run", self._facts(
                state, arguments=arguments, script=script, env=sorted(env.items()), user=state.defaults.user,
                working_dir=state.defaults.working_dir, network=network, hosts=session.request.add_hosts,
                mounts=[bound.key for bound in bounds],
            ))  # fmt: skip
            found = session.cache.find(key)
            if found is not None:
                step.end(CACHED)
                return self._layered(state, key, text, found.created_ns, found.layer)
            from lamina.build.run import Command, run

            step.begin()
            command = Command(
                arguments=arguments,
                env=tuple(f"{name}={value}" for name, value in {**session.arguments.proxies, **env}.items()),
                user=state.defaults.user,
                working_dir=state.defaults.working_dir,
                network=network,
                script=script,
            )
            finished = yield from run(command, state, bounds, session=session, step=step)
            with finished.stack:
                after = self._make(
                    state, key, "run", text, lambda out: finished.writing.write_changes(out, made=set(finished.made))
                )
            step.end(DONE)
            return after

    def _bounds(self, state: State, instruction: Run, step: Step) -> "Generator[Wait, None, list[Bound]]":
        """Find what each mount shows."""
        if not instruction.mounts:
            return []
        from lamina.build.mounts import Bound, place_of

        bounds: list[Bound] = []
        for mount in instruction.mounts:
            bound = Bound(mount=mount, target=place_of(mount, state.defaults.working_dir))
            if mount.type in {"bind", "cache"} and mount.from_:
                source = yield from self._source(mount.from_, instruction, step)
                bound = replace(bound, state=source)
            if mount.type == "bind":
                bound = replace(bound, content=self._bound_content(bound, step))
            bounds.append(bound)
        return bounds

    def _bound_content(self, bound: "Bound", step: Step) -> str:
        from lamina.build.copying import SourceTree
        from lamina.build.mounts import gather_bound

        session, source = self._session, bound.mount.source
        if bound.state is None:
            gathered = gather_bound(session.files.tree, source, cache_path=session.hashes_path)
            session.note_sources(gathered.copy, gathered)
            return str(gathered.digest)
        if source.strip("/") in {"", "."}:
            return str(bound.state.chain or "")
        key = key_of("content", {"chain": bound.state.chain or "", "bound": source})
        known = session.cache.content(key)
        if not known:
            step.begin()
            with self._tree(bound.state) as root:
                known = str(gather_bound(SourceTree(path=root, described=f"'{bound.mount.from_}'"), source).digest)
            session.cache.record(
                key, kind="content", layer=None, chain=bound.state.chain, description=f"bind {source}",
                created_ns=time.time_ns(), content=known,
            )  # fmt: skip
        return known


def _config_key(state: State) -> str:
    """The whole configuration but its times: steps of the same words on the same base come to the same, and nothing else does."""
    return key_of("config", {"config": state.config.config.to_json(), "author": state.config.author})


def command_line(run: Run, shell: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Give the arguments and, if it is one, the script: a heredoc alone that begins with `#!` is a program of its own."""
    if not run.command.is_shell:
        return run.command.arguments, ""
    text = run.shell_text
    if run.is_script and text.startswith("#!"):
        return (f"/dev/{run.heredocs[0].name}",), text
    return (*shell, text), ""


def network_of(run_network: str, network: str) -> str:
    """Which network a RUN gets: `default` is the build's."""
    from lamina.build.request import DEFAULT_NETWORK

    if run_network != "default":
        return run_network
    return network if network not in {"", "default"} else DEFAULT_NETWORK
