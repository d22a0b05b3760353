"""A container's root as a descriptor, with its volumes, for reading and writing its files from outside (`cp`).

Running: what its first process sees, by the host's /proc/PID/root. Not running: its layer's union and its volumes, mounted by a
thread in a mount namespace of the thread's own, which nobody else sees and which the kernel takes away with the process, however it
ends. Nothing is run in the container and no file of it is loaded: whoever gets the descriptor opens beneath it and by it alone.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lamina.api.drivers import StorageDriver
from lamina.api.types import View
from lamina.errors import LaminaError, StateError
from lamina.linux import mount as lm
from lamina.linux import mountinfo, namespace, process
from lamina.linux.fs import mount_id
from lamina.model.container import Container, Status
from lamina.runtime.mount_steps import BindInRoot, MountInRoot, ReadOnlyRoot
from lamina.runtime.steps import Place, Step
from lamina.store import views
from lamina.store.operations import Operation, locked
from lamina.store.reading import bring_to_rest, reading
from lamina.usecases.context import Context
from lamina.usecases.start import Starter

KERNEL_FILE_SYSTEMS = frozenset(
    ["proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "devtmpfs", "debugfs", "tracefs", "securityfs", "bpf", "efivarfs"]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRoot:
    """An open root. `kernel_mounts` are the ids of mounts in it that are the kernel's: /proc, /sys, /dev and their like."""

    fd: int
    container: Container
    kernel_mounts: frozenset[int] = frozenset()
    first_id: int = 0
    """Who the container's root is to the host: another than 0 while a container with users of its own runs."""

    def is_kernels(self, fd: int) -> bool:
        """Whether what is open is the kernel's and no file of the container."""
        return bool(self.kernel_mounts) and mount_id(fd) in self.kernel_mounts


class ContainerRoots:
    """Opens containers' roots."""

    def __init__(self, context: Context, starter: Starter) -> None:
        self.context = context
        self.starter = starter

    @contextlib.contextmanager
    def opened(self, container: Container, *, writing: bool, streaming: bool = False) -> Iterator[ContainerRoot]:
        """Give the container's root while the block runs.

        While files are written into it, or copied out of it, the container can't be started, settled or removed. With `streaming`,
        when somebody else's program decides how long reading takes, nothing waits: what is read may then end early.
        """
        name = f"container-{container.id}"
        if self._current(container).is_active:
            with locked(self.context.run_dir, name, shared=True) if writing or not streaming else contextlib.nullcontext():
                current = self._current(container)
                if current.is_active:
                    with self._running(current) as root:
                        yield root
                    return
        if writing:
            with locked(self.context.run_dir, name):
                with self._resting(self._current(container), writable=True) as root:
                    yield root
            return
        with self._with_mountpoints(container, name, streaming=streaming) as root:
            yield root

    def _current(self, container: Container) -> Container:
        current = self.starter.refreshed(container)
        if current.status in {Status.CREATING, Status.REMOVING}:
            raise StateError(f"container '{container.name}' is being {'made' if current.status is Status.CREATING else 'removed'}")
        return current

    @contextlib.contextmanager
    def _running(self, container: Container) -> Iterator[ContainerRoot]:
        with contextlib.ExitStack() as stack:
            try:
                # The directory in /proc is of one process for good; what is opened in it fails once that has ended.
                process_fd = os.open(f"/proc/{container.pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, process_fd)
                if process.start_time(container.pid) != container.pid_started:
                    raise ProcessLookupError(errno.ESRCH, "it has ended")
                root_fd = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process_fd)
                stack.callback(os.close, root_fd)
                mounts = mountinfo.mounts(container.pid)
                if process.start_time(container.pid) != container.pid_started:
                    raise ProcessLookupError(errno.ESRCH, "it has ended")
            except (FileNotFoundError, ProcessLookupError) as error:
                raise StateError(f"container '{container.name}' has just ended", hint="try again") from error
            kernel = frozenset(each.id for each in mounts if _is_kernels(each))
            first_id = 0
            if container.config.isolation is not None:
                from lamina.linux.process import files_made_as
                from lamina.usecases.isolating import own_first_id

                first_id = own_first_id(self.context, container)
                if first_id:
                    stack.enter_context(files_made_as(first_id, first_id))
            yield ContainerRoot(fd=root_fd, container=container, kernel_mounts=kernel, first_id=first_id)

    @contextlib.contextmanager
    def _with_mountpoints(self, container: Container, name: str, *, streaming: bool) -> Iterator[ContainerRoot]:
        """Read a resting container. If a volume has no mount point yet, because it was never started, that is made first."""
        with contextlib.ExitStack() as stack:
            if not streaming:
                stack.enter_context(locked(self.context.run_dir, name))
            try:
                yield stack.enter_context(self._resting(self._current(container), writable=False))
                return
            except _MountpointMissingError:
                pass
            with contextlib.nullcontext() if not streaming else locked(self.context.run_dir, name):
                with self._resting(self._current(container), writable=True):
                    pass
            yield stack.enter_context(self._resting(self._current(container), writable=False))

    @contextlib.contextmanager
    def _resting(self, container: Container, *, writable: bool) -> Iterator[ContainerRoot]:
        if container.is_active:
            raise StateError(f"container '{container.name}' was started meanwhile", hint="try again")
        storage = self.context.layers.usable_driver(container.driver)
        steps = [step for step in self.starter.plan(container) if self._is_volume(step, container)]
        layer = (storage, container.id, container.parents)
        with self._writable(*layer) if writable else reading(self.context.run_dir, *layer) as view:

            def make() -> int:
                views.attach(view)
                place = Place()
                place.root_fd = lm.open_tree(view.root)
                lm.move_mount(place.root_fd, view.root)
                for step in steps:
                    try:
                        step.apply(place)
                    except OSError as error:
                        if error.errno == errno.EROFS and not writable:
                            raise _MountpointMissingError from error
                        raise
                if container.config.read_only:
                    ReadOnlyRoot().apply(place)
                return place.root_fd

            def undo() -> None:
                with contextlib.suppress(OSError):  # not a mount point: `make` didn't come so far
                    lm.unmount(view.root, detach=True)
                views.detach(view)

            with _mounted_apart(make, undo) as root_fd:
                yield ContainerRoot(fd=root_fd, container=container)

    @contextlib.contextmanager
    def _writable(self, storage: StorageDriver, key: str, parents: Sequence[str]) -> Iterator[View]:
        """Give a layer's writable view, which may be mounted while the block runs."""
        operation = Operation(name="write into a container")  # if it is killed, recovery sweeps what its driver had half made
        with self.context.database.transaction() as tx:
            operation.begin(tx)
        storage.before_mount(key, parents)
        try:
            yield storage.mounts(key, parents, readonly=False)
        finally:
            bring_to_rest(self.context.run_dir, storage, key)
            with self.context.database.transaction() as tx:
                operation.end(tx)

    def _is_volume(self, step: Step, container: Container) -> bool:
        if isinstance(step, BindInRoot):
            if os.path.exists(step.source):
                return True
            if not step.internal:
                self.context.warn(f"'{step.source}', which is mounted at '{step.target}', doesn't exist")
            return False
        return isinstance(step, MountInRoot) and step.target in container.volumes


def _is_kernels(mounted: mountinfo.MountInfo) -> bool:
    """Whether a mount is the kernel's, or covers something of the kernel's (a masked path of /proc)."""
    return mounted.fstype in KERNEL_FILE_SYSTEMS or mounted.target == "/dev" or mounted.target.startswith(("/proc/", "/sys/"))


class _MountpointMissingError(Exception):
    """A volume can't be mounted in a view that is read-only, because its place isn't there."""


@contextlib.contextmanager
def _mounted_apart(make: Callable[[], int], undo: Callable[[], None]) -> Iterator[int]:
    """Run `make` in a thread that has left for a mount namespace of its own; give the descriptor that it returns.

    The thread stays to keep the namespace, and runs `undo` at the end. CLONE_NEWNS is a thread's own affair (unshare(2)): the rest
    of the process stays where it is.
    """
    made, done = threading.Event(), threading.Event()
    result: list[int] = []
    errors: list[BaseException] = []

    def keep() -> None:
        try:
            namespace.unshare(namespace.CLONE_NEWNS)
            lm.make_private()
            try:
                result.append(make())
            except BaseException as error:
                try:
                    undo()
                except OSError as second:
                    error.add_note(f"while cleaning up: {second}")
                raise
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            errors.append(error)
        made.set()
        if result:
            done.wait()
            try:
                undo()
            except BaseException as error:  # noqa: BLE001 - as above
                errors.append(error)

    keeper = threading.Thread(target=keep, name="container root", daemon=True)
    keeper.start()
    try:
        made.wait()
        if errors:
            raise errors[0]
        yield result[0]
    finally:
        for fd in result:
            os.close(fd)
        done.set()
        keeper.join()
    if errors:
        raise LaminaError(f"the container's root could not be unmounted: {errors[0]}")
