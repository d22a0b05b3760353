"""Moving a container to another storage driver: its writable layer is made anew there, proved equal, and only then changes hands.

The steps, and what a kill leaves of each. What is being made on the target carries the operation's number (`store/operations.py`),
so recovery discards it; one transaction moves the container's row to the target and marks the old layer for discarding; from there
on recovery finishes. So there is the old state or the new one, and at no moment neither or both.

    read    what the layer changes, and every fact of the tree that the container sees
    check   that the target can have its names, before anything is made
    unpack  the image's layers on the target: a cache, which stays whatever happens
    copy    the changes as a layer's entries through the target's own `storage_apply`; sockets, which have no entry, by hand
    prove   both trees and both lists of changes are equal
    turn    the transaction
    discard the old layer

Only the contract is used, so that any two drivers will do. Two things need more than a layer's entries do. Which names share an
inode can differ from the image without any content being different (a copy-up breaks a link), so such files are copied too. And
the root's time, which is no change, is carried over.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lamina.api.drivers import StorageDriver
from lamina.api.entries import Change, ChangeKind, EntryKind, LayerReader
from lamina.archive import paths
from lamina.archive.picked import Picked, PickedEntries, Socket, make_sockets
from lamina.archive.treefacts import PathFacts, difference, digest_of, read_tree
from lamina.errors import ConflictError, IntegrityError, LaminaError, NotUsableError, StateError, UsageError
from lamina.linux.fs import syncfs
from lamina.model.container import Container
from lamina.store import views
from lamina.store.layer_trees import LayerTrees
from lamina.store.layers import LayerGoneError, check_depth, read_size
from lamina.store.operations import Operation, locked
from lamina.usecases.context import Context
from lamina.usecases.control import Control
from lamina.usecases.create import Creation

Facts = Mapping[str, PathFacts]
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What was done. `tree_digest` is the whole tree's, the same on both drivers; "" if the container was there already."""

    container_id: str
    source: str
    target: str
    changes: int
    paths: int
    tree_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What was read of a container on the driver that it is on."""

    changes: Sequence[Change]
    facts: Facts


class Migration:
    """Moves containers."""

    def __init__(self, context: Context, creation: Creation, control: Control) -> None:
        self.context = context
        self.creation = creation
        self.control = control

    def migrate(self, container: Container, driver: str, *, restart: bool = False, step: Step = lambda _text: None) -> Migrated:
        """Move a container that isn't running to another driver; `step` is told what is being done.

        With `restart` a running one is stopped for it and started again, even if it couldn't be moved. Raises `StateError`,
        `NotUsableError`, `UsageError`, `IntegrityError`; then it is where it was, as it was.
        """
        was_active = container.is_up
        if was_active:
            if not restart:
                raise StateError(f"container '{container.name}' is running", hint="stop it first, or use --restart")
            if container.config.auto_remove:
                raise ConflictError(f"container '{container.name}' would be removed when it is stopped: it was run with --rm")
            step("stopping")
            self.control.stop(container)
        try:
            with locked(self.context.run_dir, f"container-{container.id}"):
                return self._move(self.control.starter.refreshed(container), driver, step)
        finally:
            if was_active:
                step("starting")
                self.control.start(self.control.starter.refreshed(container))

    def _move(self, container: Container, driver: str, step: Step) -> Migrated:
        layers = self.context.layers
        source = layers.usable_driver(container.driver)
        target = layers.driver(driver)
        if container.is_up:
            raise StateError(f"container '{container.name}' was started meanwhile", hint="stop it first, or use --restart")
        if source.name == target.name:
            return Migrated(container_id=container.id, source=source.name, target=target.name, changes=0, paths=0, tree_digest="")
        step("reading")
        changes = layers.changes(source, container.id, container.parents)
        with layers.seen(source, container.id, container.parents) as root:
            facts = read_tree(root)
        read = _Read(changes=changes, facts=facts)
        sockets = [path for path, fact in facts.items() if fact.is_socket]
        check_names(container.name, target, [*(change.path for change in changes), *sockets])
        target = layers.usable_driver(driver)
        check_depth(target, len(container.parents))
        read_size(target, container.config.storage_options)  # refused before anything is made
        operation = Operation(name="migrate")
        try:
            self._record(container, target, operation, step)
            step(f"copying {len(changes)} {'change' if len(changes) == 1 else 'changes'}")
            self._copy(container, source, target, read)
            step("proving that both are equal")
            self._prove(container, target, read)
            syncfs(target.home)  # not `seal`, which would make the layer final
            self._turn(container, source, target, operation)
        except BaseException as error:
            self._undo(container, target, operation, error)
            raise
        step(f"discarding the layer on {source.name}")
        layers.finish_discard(source.name, container.id)
        return Migrated(
            container_id=container.id,
            source=source.name,
            target=target.name,
            changes=len(changes),
            paths=len(facts),
            tree_digest=digest_of(facts),
        )

    def _copy(self, container: Container, source: StorageDriver, target: StorageDriver, read: _Read) -> None:
        layers = self.context.layers
        try:
            size_bytes, options = read_size(target, container.config.storage_options)
            target.prepare(container.id, container.parents, options, size_bytes)
        except UsageError as error:
            raise NotUsableError(
                f"container '{container.name}' can't be moved: {error.message}", hint="its storage options are the old driver's"
            ) from error
        layers.remember_touch_time(target, container.id)
        below: Facts = {}
        if container.parents:  # which names share an inode there
            with layers.seen(target, container.parents[0], container.parents[1:]) as parent:
                below = read_tree(parent, contents=())
        with layers.seen(source, container.id, container.parents) as root:
            entries = PickedEntries(root, pick(read.changes, read.facts, below))
            lay_down(target, container, entries, pick_sockets(read.facts))

    def _record(self, container: Container, target: StorageDriver, operation: Operation, step: Step) -> None:
        """Record the layer that is about to be made, on top of the image's, which are unpacked first."""
        self._clear(container, target)
        images = self.context.images
        image = images.get(container.image_id)
        image_config = images.config(image)
        while True:
            step(f"unpacking the image on {target.name}")
            self.creation.unpack_image(image, image_config, target, operation)
            try:
                with self.context.database.transaction() as tx:
                    self.context.layers.record(tx, target, container.id, container.parents, operation, state="writable")
                return
            except LayerGoneError:  # another process has discarded them, since nothing stood on them yet
                continue

    def _clear(self, container: Container, target: StorageDriver) -> None:
        """Discard what another migration of it has left there: we hold its lock, so that one was killed, or the power was cut."""
        layers = self.context.layers
        row = self.context.database.connection.execute(
            "SELECT operation FROM layers WHERE driver = ? AND key = ?", (target.name, container.id)
        ).fetchone()
        if row is None:
            layers.discard_unrecorded(target, container.id)
            return
        layers.unmount_if_mounted(target, container.id, container.parents)
        if row["operation"] is None:
            layers.finish_discard(target.name, container.id)
        else:
            layers.undo_preparation(target.name, container.id, row["operation"])

    def _prove(self, container: Container, target: StorageDriver, read: _Read) -> None:
        layers = self.context.layers
        with layers.seen(target, container.id, container.parents) as root:
            found = difference(read.facts, read_tree(root))
        if found is not None:
            path, what = found
            raise IntegrityError(
                f"container '{container.name}' can't be moved to {target.name}: '/{paths.shown(path)}' would differ in its {what}",
                hint="it stays where it is, unchanged",
            )
        moved = layers.changes(target, container.id, container.parents)
        if moved != list(read.changes):
            one = next(iter(set(moved) ^ set(read.changes)), None)
            where = f" at '/{paths.shown(one.path)}'" if one is not None else ""
            raise IntegrityError(
                f"container '{container.name}' can't be moved to {target.name}: its list of changes would differ{where}",
                hint="it stays where it is, unchanged",
            )

    def _turn(self, container: Container, source: StorageDriver, target: StorageDriver, operation: Operation) -> None:
        with self.context.database.transaction(durable=True) as tx:
            self.context.records.set_state(tx, container.id, driver=target.name)
            tx.execute("UPDATE layers SET operation = NULL WHERE driver = ? AND key = ?", (target.name, container.id))
            tx.execute("UPDATE layers SET state = 'discarding' WHERE driver = ? AND key = ?", (source.name, container.id))
            operation.end(tx)

    def _undo(self, container: Container, target: StorageDriver, operation: Operation, error: BaseException) -> None:
        """Discard what was made on the target, if the operation still owns it."""
        layers = self.context.layers
        if operation.id is None:
            return
        try:
            layers.unmount_if_mounted(target, container.id, container.parents)
            layers.undo_preparation(target.name, container.id, operation.id)
            with self.context.database.transaction() as tx:
                operation.end_unless_owning(tx)
        except (OSError, LaminaError) as second:
            error.add_note(f"while cleaning up: {second}")


def check_names(name: str, target: StorageDriver, changed: Sequence[str]) -> None:
    """Raise `NotUsableError` for a path that can't be on the target, a deleted one included: its whiteout has a name too."""
    capabilities = target.probe().capabilities
    for path in sorted(changed, key=paths.sort_key):
        for part in path.split("/"):
            if capabilities.forbidden_prefix and part.startswith(capabilities.forbidden_prefix):
                why = f"it has no names that begin with '{capabilities.forbidden_prefix}'"
            elif len(part.encode("utf-8", "surrogateescape")) > capabilities.max_name_bytes:
                why = f"its names have at most {capabilities.max_name_bytes} bytes"
            else:
                continue
            raise NotUsableError(
                f"container '{name}' can't be moved to {target.name}, which can't hold '/{paths.shown(path)}': {why}",
                hint="rename or delete it, or choose another driver",
            )


def lay_down(target: StorageDriver, container: Container, entries: LayerReader, sockets: Sequence[Socket]) -> None:
    """Fill a container's layer, which was just prepared."""
    trees = LayerTrees(driver=target, key=container.id, parents=container.parents, writable=True)
    with trees.stack:
        target.apply(container.id, container.parents, entries, trees)
    target.after_unmount(container.id)
    if sockets:
        target.before_mount(container.id, container.parents)
        try:
            with views.seen(target.mounts(container.id, container.parents, readonly=False)) as root:
                make_sockets(root, sockets)
        finally:
            target.after_unmount(container.id)


def pick(changes: Sequence[Change], facts: Facts, below: Facts) -> list[Picked]:
    """Say which entries make the tree that `facts` describe out of the one `below`, of which `changes` lists the differences.

    Names that share an inode are made together: the first by order as a file, the others as its links.
    """
    picked = {
        change.path: Picked(path=change.path, mark=EntryKind.WHITEOUT) for change in changes if change.kind is ChangeKind.DELETE
    }
    changed = {change.path for change in changes if change.kind is not ChangeKind.DELETE}
    picked[""] = Picked(path="")
    for path in changed:
        if facts[path].is_directory or not facts[path].links:
            picked[path] = Picked(path=path)
    for group in _relinked(changed, facts, below):
        if not facts[group[0]].is_socket:
            picked.update({path: Picked(path=path, link=group[0] if path != group[0] else "") for path in group})
    return [picked[path] for path in sorted(picked, key=paths.sort_key)]


def _relinked(changed: set[str], facts: Facts, below: Facts) -> list[tuple[str, ...]]:
    """Find the groups of names of one inode that must be made anew, single names included.

    What the image has linked and the container has broken into several: the largest unchanged part can stay as it is.
    """
    groups = {fact.links or (path,) for path, fact in facts.items() if fact.links or (path in below and below[path].links)}
    staying: dict[tuple[str, ...], tuple[str, ...]] = {}
    for group in sorted(groups):
        whole = below[group[0]].links if group[0] in below else ()
        if changed.isdisjoint(group) and set(group) <= set(whole) and len(group) > len(staying.get(whole, ())):
            staying[whole] = group
    return [group for group in sorted(groups) if group not in staying.values() and not facts[group[0]].is_directory]


def pick_sockets(facts: Facts) -> list[Socket]:
    """List the sockets of a tree. An image has none (a layer can't hold one), so all are the container's."""
    return [
        Socket(
            path=path,
            mode=fact.mode,
            owner=fact.owner,
            mtime_ns=fact.mtime_ns,
            directory_mtime_ns=facts[paths.split(path)[0]].mtime_ns,
            xattrs=fact.xattrs,
            link=fact.links[0] if fact.links and fact.links[0] != path else "",
        )
        for path, fact in sorted(facts.items(), key=lambda item: paths.sort_key(item[0]))
        if fact.is_socket
    ]
