"""`RUN --mount`: what each mount needs, as steps of the process, and as facts of the cache key.

bind    the context without what .dockerignore hides, or a stage's or an image's tree; writes go nowhere that anybody sees again
cache   a directory below ROOT/build/cache, named by a digest, so that no id leads elsewhere; locked for `sharing`
tmpfs   a new one
secret  a file on a tmpfs that only this process has, or a variable; never in a key, a layer, a message
ssh     the socket of an agent
"""

import contextlib
import fcntl
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from lamina.build.request import SecretSource
from lamina.build.scheduler import Again, Wait
from lamina.build.session import Session
from lamina.build.state import State
from lamina.build.steps import BindBeneath, EmptyTmpfs, SecretFile, Secrets
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.instructions import RunMount
from lamina.errors import NotFoundError, UsageError
from lamina.model.container import check_target
from lamina.runtime.steps import Step

if TYPE_CHECKING:
    from lamina.build.context import BuildContext
    from lamina.build.copying import Gathered, SourceTree

MAX_SECRET_BYTES = 500 << 10
"""As with Docker, which takes no larger ones."""
SSH_DIR = "/run/buildkit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A mount with what it shows: a state for one that names a stage or an image, and the digest of its content."""

    mount: RunMount
    target: str
    state: State | None = None
    content: str = ""

    @property
    def key(self) -> dict[str, Any]:
        """What of it the command's result may depend on. Not what a cache holds, nor a secret."""
        mount = self.mount
        facts: dict[str, Any] = {"type": mount.type, "target": self.target}
        if mount.type == "bind":
            return {**facts, "content": self.content, "read_only": mount.read_only}
        if mount.type == "cache":
            return {**facts, "id": mount.id or self.target, "mode": mount.mode, "uid": mount.uid, "gid": mount.gid}
        if mount.type == "tmpfs":
            return {**facts, "size": mount.size_bytes}
        return {**facts, "id": mount.id, "mode": mount.mode, "uid": mount.uid, "gid": mount.gid, "env": mount.env}


def place_of(mount: RunMount, working_dir: str) -> str:
    """Give the absolute target of a mount; those that have a usual place need none."""
    import posixpath

    target = mount.target
    if mount.type == "secret":
        target = target or f"/run/secrets/{posixpath.basename(mount.id.rstrip('/')) or 'secret'}"
    elif mount.type == "ssh":
        target = target or f"{SSH_DIR}/ssh_agent.{mount.id or 'default'}"
    if not target:
        raise UsageError(f"the {mount.type} mount has no target")
    return check_target(posixpath.normpath(posixpath.join("/", working_dir, target)), target)


@dataclass(slots=True, kw_only=True)
class Prepared:
    """What the process of a RUN gets of its mounts."""

    steps: list[Step] = field(default_factory=list)
    env: list[str] = field(default_factory=list)


class Mounts:
    """Prepares the mounts of one RUN. What it takes for that goes with `stack`."""

    def __init__(self, session: Session, *, stack: contextlib.ExitStack, place_dir: str) -> None:
        self._layers = session.layers
        self._request = session.request
        self._context = session.files
        self._stack = stack
        self._place_dir = place_dir
        self._made = 0

    def prepare(self, bounds: Sequence[Bound]) -> Generator[Wait, None, Prepared]:
        """Give the steps, parents before what is mounted in them; waits for caches that others have locked."""
        prepared = Prepared()
        directories = yield from self._lock_caches(bounds)
        secrets: list[SecretFile] = []
        for bound in sorted(bounds, key=lambda bound: bound.target.count("/")):
            mount = bound.mount
            if mount.type == "bind":
                prepared.steps.append(self._bind(bound))
            elif mount.type == "cache":
                directory = directories[id(bound)]
                self._fill(bound, directory)
                self._label(directory)
                prepared.steps.append(BindBeneath(directory=directory, source="", target=bound.target, read_only=mount.read_only))
            elif mount.type == "tmpfs":
                options: list[tuple[str, str | None]] = [("mode", "1777")]
                if mount.size_bytes is not None:
                    options.append(("size", str(mount.size_bytes)))
                if self._layers.file_label:
                    options.append(("context", self._layers.file_label))
                prepared.steps.append(EmptyTmpfs(target=bound.target, options=tuple(options)))
            elif mount.type == "secret":
                self._secret(bound, secrets, prepared.env)
            else:
                self._ssh(bound, prepared)
        if secrets:
            place_dir = os.path.join(self._place_dir, "secrets")
            os.mkdir(place_dir, 0o700)
            prepared.steps.append(Secrets(place_dir=place_dir, files=secrets, label=self._layers.file_label))
        return prepared

    # Binds

    def _bind(self, bound: Bound) -> Step:
        mount = bound.mount
        if bound.state is not None:
            directory, source = self._tree(bound.state, writable=not mount.read_only), mount.source
        else:
            directory, source = self._of_context(mount.source, read_only=mount.read_only)
        return BindBeneath(directory=directory, source=source.strip("/"), target=bound.target, read_only=mount.read_only)

    def _tree(self, state: State, *, writable: bool) -> str:
        """Give a stage's or image's tree. It lies on a writable layer of its own, so that what is written to it goes with that."""
        if state.chain is None:
            return self._new_dir()
        storage = self._layers.storage
        if not writable:
            key, *parents = self._layers.unpack(state)
            view = storage.mounts(key, parents, readonly=True)
            if not view.mounts:  # a driver whose layers are whole trees: there is nothing to unite
                self._stack.enter_context(self._layers.seen(state))
                self._label(view.root)
                return view.root
        return self._stack.enter_context(self._layers.writable(state)).root

    def _of_context(self, source: str, *, read_only: bool) -> tuple[str, str]:
        """Give the context without what is hidden: as it lies if nothing is and nothing is written or labelled, else as a copy."""
        if read_only and hides_nothing(self._context) and not self._layers.file_label:
            return self._context.directory, source
        from lamina.api.types import WhiteoutFormat
        from lamina.archive.apply import apply_layer

        directory = self._new_dir()
        gathered = gather_bound(self._context.tree, source)
        entries = gathered.entries(base_root=None, working_dir="/", mtime_limit_ns=None)
        apply_layer(entries, into=directory, whiteouts=WhiteoutFormat.NONE, parent=lambda: None)
        return directory, "bound"

    def _new_dir(self) -> str:
        self._made += 1
        path = os.path.join(self._place_dir, f"mount-{self._made}")
        os.mkdir(path, 0o755)
        return path

    def _label(self, path: str) -> None:
        """Open to this build, and to others, what outlives it."""
        if self._layers.file_label:
            from lamina.linux.selinux import relabel, shared

            relabel(path, shared(self._layers.file_label))

    # Caches

    def _lock_caches(self, bounds: Sequence[Bound]) -> Generator[Wait, None, dict[int, str]]:
        """Lock every cache, or none: who waits for one must not hold another that somebody else waits for."""
        caches = [bound for bound in bounds if bound.mount.type == "cache"]
        while True:
            with contextlib.ExitStack() as attempt:
                found: dict[int, str] = {}
                by_id: dict[str, str] = {}  # one command may mount a cache at two places
                for bound in caches:
                    cache_id = bound.mount.id or bound.target
                    directory = by_id.get(cache_id) or self._lock_one(bound, attempt)
                    if directory is None:
                        break
                    by_id[cache_id] = found[id(bound)] = directory
                else:
                    self._stack.push(attempt.pop_all())
                    return found
            yield Again()

    def _lock_one(self, bound: Bound, attempt: contextlib.ExitStack) -> str | None:
        mount = bound.mount
        folder = os.path.join(cache_dir(self._layers.context.root_dir), sha256((mount.id or bound.target).encode()).hexdigest())
        os.makedirs(folder, mode=0o700, exist_ok=True)
        number = 0
        while True:
            lock_fd = os.open(os.path.join(folder, f"{number}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            attempt.callback(os.close, lock_fd)
            try:
                fcntl.flock(lock_fd, (fcntl.LOCK_SH if mount.sharing == "shared" else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                if mount.sharing != "private":
                    return None
                number += 1  # another one for who must have it alone
                continue
            os.utime(lock_fd)  # when it was last used, for who prunes
            return os.path.join(folder, str(number))

    def _fill(self, bound: Bound, directory: str) -> None:
        """Make a cache that isn't there: empty, or with the content of `from`."""
        if os.path.isdir(directory):
            return
        mount = bound.mount
        temporary = self._new_dir()
        if bound.state is not None:
            from lamina.api.types import WhiteoutFormat
            from lamina.archive.apply import apply_layer
            from lamina.build.copying import SourceTree

            with self._layers.seen(bound.state) as root:
                if root is not None:
                    gathered = gather_bound(SourceTree(path=root, described=f"'{mount.from_}'"), mount.source)
                    entries = gathered.entries(base_root=None, working_dir="/", mtime_limit_ns=None)
                    apply_layer(entries, into=temporary, whiteouts=WhiteoutFormat.NONE, parent=lambda: None)
                    temporary = os.path.join(temporary, "bound")
            if not os.path.isdir(temporary):
                raise UsageError(f"the cache mount's source '{mount.source}' is not a directory")
        if bound.state is None or mount.mode is not None:
            os.chmod(temporary, 0o755 if mount.mode is None else mount.mode)
        if bound.state is None or mount.uid is not None or mount.gid is not None:
            os.chown(temporary, mount.uid or 0, mount.gid or 0)
        try:
            os.rename(temporary, directory)
        except OSError:
            if not os.path.isdir(directory):  # another build that shares it has made it meanwhile
                raise

    # Secrets and agents

    def _secret(self, bound: Bound, files: list[SecretFile], env: list[str]) -> None:
        mount = bound.mount
        content = self.secret(mount)
        if content is None:
            return
        if mount.env:
            if b"\0" in content:
                raise UsageError(f"the secret '{mount.id}' has a zero byte, so it can't be the variable '{mount.env}'")
            env.append(f"{mount.env}={content.decode('utf-8', 'surrogateescape')}")
        if mount.target or not mount.env:
            mode = 0o400 if mount.mode is None else mount.mode
            files.append(SecretFile(target=bound.target, content=content, mode=mode, uid=mount.uid or 0, gid=mount.gid or 0))

    def secret(self, mount: RunMount) -> bytes | None:
        """Read a secret; None for one that isn't given and isn't required."""
        source = next((one for one in self._request.secrets if one.id == mount.id), None)
        if source is None:
            if mount.required:
                raise NotFoundError(f"there is no secret '{mount.id}'", hint=f"give it with --secret id={mount.id},src=FILE")
            return None
        return read_secret(source)

    def _ssh(self, bound: Bound, prepared: Prepared) -> None:
        agent = bound.mount.id or "default"
        path = self._request.ssh.get(agent)
        if path is None:
            if bound.mount.required:
                raise NotFoundError(f"there is no SSH agent '{agent}' to forward", hint=f"give it with --ssh {agent}")
            return
        directory, name = os.path.split(path)
        prepared.steps.append(BindBeneath(directory=directory, source=name, target=bound.target, read_only=False))
        prepared.env.append(f"SSH_AUTH_SOCK={bound.target}")


def read_secret(source: SecretSource) -> bytes:
    """Read a secret from where it is. Its content is never in an error."""
    if source.variable:
        value = os.environ.get(source.variable)
        if value is None:
            raise NotFoundError(f"the secret '{source.id}' isn't there: the variable '{source.variable}' isn't set")
        return os.fsencode(value)
    try:
        with open(source.path, "rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        why = (error.strerror or "").lower()
        raise NotFoundError(f"the secret '{source.id}' can't be read from '{source.path}': {why}") from None
    if len(content) > MAX_SECRET_BYTES:
        raise UsageError(f"the secret '{source.id}' in '{source.path}' has more than {MAX_SECRET_BYTES >> 10} KiB")
    return content


def cache_dir(root_dir: str) -> str:
    """Where cache mounts lie: DIGEST OF ID/NUMBER, with a lock beside each."""
    return os.path.join(root_dir, "build", "cache")


def hides_nothing(context: "BuildContext") -> bool:
    """Whether a context has no patterns that could hide a file."""
    return not context.ignore.rules


def gather_bound(tree: "SourceTree", source: str, *, cache_path: str = "") -> "Gathered":
    """Gather what a bind mount shows, as if it were copied to `/bound`: for its digest, and for a copy of it."""
    from lamina.build.copying import gather
    from lamina.dockerfile.instructions import Copy

    path = source.strip("/") or "."
    copy = Copy(line=0, last_line=0, text="", is_add=False, sources=(path,), destination="/bound")
    try:
        return gather(copy, tree, cache_path=cache_path)
    except DockerfileError as error:  # of the COPY that there isn't
        message = error.message.removeprefix(f"{error.file_name}:{error.line}: {error.instruction}: ")
        raise UsageError(f"the bind mount: {message}", hint=error.hint) from error
