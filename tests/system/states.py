"""What a store says that there is, object by object, and whether the disk agrees: of each a crash may leave the old or the new.

Not in it: what a command never promises. What a container's own processes wrote (`scratch`) is as durable as they made it; a layer
unpacked on a driver is a cache, which may be there or not, but is whole if it is there. That a container at rest has
run, and how that ended, may be lost with the power.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from lamina.engine import Engine
from lamina.errors import LaminaError
from lamina.linux import mountinfo
from lamina.model.container import Status
from lamina.model.image import Index
from lamina.store import views
from lamina.testing import tree

PASSED_OVER = frozenset({"dev", "proc", "sys", "scratch", "etc/hosts", "etc/hostname", "etc/resolv.conf"})
"""Of a container's tree: what a start mounts on, and where the tests' containers write."""

State = Mapping[str, object]


def state_of(engine: Engine) -> State:
    """Describe each image, container, volume and network: what it is called to what makes it up."""
    return {**dict(_images(engine)), **dict(_containers(engine)), **dict(_volumes(engine)), **dict(_networks(engine))}


def _images(engine: Engine) -> Iterator[tuple[str, object]]:
    images = engine.context.images
    for image in images.images():
        yield f"image {image.id}", "whole" if _is_whole(engine, str(image.id)) else "damaged"
    for reference, image_id in images.all_names():
        yield f"name {reference.canonical}", str(image_id)


def _is_whole(engine: Engine, image_id: str) -> bool:
    images = engine.context.images
    image = images.get(image_id)
    try:
        images.config(image)
        for blob in images.layers(image):
            with images.content.open(blob.digest, verify=True) as content:
                while content.read(1 << 20):
                    pass
    except LaminaError:
        return False
    return True


def _containers(engine: Engine) -> Iterator[tuple[str, tuple[str, ...]]]:
    context = engine.context
    for container in context.records.all():
        storage = context.layers.driver(container.driver)
        try:
            with context.layers.seen(storage, container.id, container.parents) as root:
                found = tree_digest(root)
        except (OSError, LaminaError) as error:
            found = f"can't be read: {error}"
        folder = "" if os.path.isdir(context.container_dir(container.id)) else "its directory is missing"
        status = "at rest" if container.status in {Status.CREATED, Status.EXITED} else str(container.status)
        yield (
            f"container {container.id}",
            (container.name, status, container.image_id, container.driver, found, folder),
        )


def _volumes(engine: Engine) -> Iterator[tuple[str, object]]:
    for volume in engine.volumes.all():
        place = engine.volumes.mountpoint(volume)
        yield f"volume {volume.name}", (volume.driver, tree_digest(place) if os.path.isdir(place) else "missing")


def _networks(engine: Engine) -> Iterator[tuple[str, tuple[str, str]]]:
    rows = engine.context.database.connection.execute("SELECT id, name, driver FROM networks")
    for row in rows:
        yield f"network {row['id']}", (row["name"], row["driver"])


def tree_digest(root: str) -> str:
    """Digest all that there is of a tree; a directory's time says when a file came, not what there is."""
    digest = sha256()
    for path, facts in tree.read(root).items():
        if not any(path == each or path.startswith(f"{each}/") for each in PASSED_OVER):
            time_ns = 0 if facts.kind is tree.Kind.DIRECTORY else facts.mtime_ns
            xattrs = [pair for pair in facts.xattrs if not pair[0].startswith("trusted.overlay.")]
            digest.update(
                repr(
                    (path, facts.kind, facts.mode, facts.uid, facts.gid, facts.size_bytes, facts.content, time_ns, xattrs)
                ).encode()
            )
    return digest.hexdigest()[:16]


def state_by_name(engine: Engine) -> State:
    """Describe the same without ids and times, which differ when a command is given once more."""
    context, images = engine.context, engine.context.images
    names: dict[str, list[str]] = {}
    for reference, image_id in images.all_names():
        names.setdefault(str(image_id), []).append(reference.familiar)
    called = {
        str(
            image.id
        ): f"image {' '.join(sorted(names.get(str(image.id), ['without a name'])))} of {len(images.layers(image))} layers"
        for image in images.images()
    }
    found: dict[str, object] = {text: "whole" if _is_whole(engine, image_id) else "damaged" for image_id, text in called.items()}
    containers = {container.id: container for container in context.records.all()}
    for name, (_name, status, image_id, *rest) in _containers(engine):
        container = containers[name.removeprefix("container ")]
        found[f"container {container.name}"] = (status, called.get(image_id, "no image"), *rest)
    volumes = dict(_volumes(engine))
    for volume in engine.volumes.all():
        users = sorted(containers[user].name if user in containers else "nobody" for user in engine.volumes.users(volume.name))
        found[f"volume {f'of {users}' if volume.anonymous else volume.name}"] = volumes[f"volume {volume.name}"]
    return {**found, **{f"network {value[0]}": value[1] for _name, value in _networks(engine)}}


def sealed_layers(engine: Engine) -> dict[tuple[str, str], str]:
    """Digest the tree of each layer that the store calls sealed: driver and key to digest."""
    layers, found = engine.context.layers, {}
    for driver, key, _parent, layer_state in layers.records():
        if layer_state == "sealed":
            storage = layers.driver(driver)
            with views.seen(storage.mounts(key, layers.parents(driver, key), readonly=True)) as root:
                found[driver, key] = tree_digest(root)
    return found


def neither(found: State, old: State, new: State) -> list[str]:
    """List what is neither as it was nor as it was to become."""
    return [
        f"{name} is {found.get(name)}, and was {old.get(name)}, to become {new.get(name)}"
        for name in sorted({*found, *old, *new})
        if found.get(name) not in (old.get(name), new.get(name))
    ]


def database_rows(root: Path) -> dict[str, list[tuple[object, ...]]]:
    """Give every row of every table."""
    with contextlib.closing(sqlite3.connect(f"file:{root}/lamina.db?mode=ro", uri=True)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in names}


def contradictions(engine: Engine) -> list[str]:
    """List where the disk, the mounts and the tables disagree while no command is at work."""
    context, root = engine.context, engine.context.root_dir
    connection, found = context.database.connection, []
    found += [f"operation {tuple(row)}" for row in connection.execute("SELECT * FROM operations")]
    layers = context.layers.records()
    found += [f"layer {row}" for row in layers if row[3] not in {"sealed", "writable"}]
    recorded = {(driver, key) for driver, key, _parent, _state in layers}
    wanted = {row[0].partition(":")[2] for row in connection.execute("SELECT chain FROM build_cache")} | context.images.layer_keys()
    below = {(driver, parent) for driver, _key, parent, _state in layers}
    found += [
        f"a layer that no image has: {row[:2]}"
        for row in layers
        if row[3] == "sealed" and row[1] not in wanted and row[:2] not in below
    ]
    for name in context.host.names("storage"):
        home = os.path.join(root, name)
        if os.path.isdir(home):
            on_disk = {(name, key) for key in context.layers.driver(name).keys()}  # noqa: SIM118 - a driver is no dict
            found += [f"a layer that nobody knows: {each}" for each in sorted(on_disk - recorded)]
            found += [
                f"a layer that isn't there: {each}" for each in sorted(each for each in recorded - on_disk if each[0] == name)
            ]
        found += [f"{home}/{folder}/{each}" for folder in ("trash", "new", "tmp") for each in _names(f"{home}/{folder}")]
    containers = {row[0]: row[1] for row in connection.execute("SELECT id, status FROM containers")}
    found += [f"container {each} is {status}" for each, status in containers.items() if status in {"creating", "removing"}]
    found += [f"containers/{each}" for each in _names(f"{root}/containers") if each not in containers]
    found += [f"run/containers/{each}" for each in _names(f"{context.run_dir}/containers") if each not in containers]
    found += [f"tmp/{each}" for each in _names(f"{root}/tmp") if not each.endswith(".new")]
    states = connection.execute("SELECT name, state FROM volumes").fetchall()
    found += [f"volume {row[0]} is {row[1]}" for row in states if row[1] not in {"ready", "filling"}]
    known = {row[0] for row in states}
    found += [f"volumes/{each}" for each in _names(f"{root}/volumes") if each not in known and not each.startswith(".")]
    found += [f"volumes/.removed/{each}" for each in _names(f"{root}/volumes/.removed")]
    stray = set(connection.execute("SELECT container_id FROM volume_users").fetchall())
    found += [f"a user of a volume: {row[0]}" for row in stray if row[0] not in containers]
    running = {each for each, status in containers.items() if status in {"running", "paused"}}
    found += [
        f"a mount: {each.target}"
        for each in mountinfo.mounts()
        if each.target.startswith(f"{root}/") and not any(container in each.target for container in running)
    ]
    return [*found, *_index(engine)]


def _index(engine: Engine) -> list[str]:
    path = os.path.join(engine.context.images.content.image_dir, "index.json")
    wanted = {str(image.manifest) for image in engine.context.images.images()}
    if not os.path.exists(path):
        return ["index.json is missing"] if wanted else []
    named = {str(each.digest) for each in Index.from_bytes(Path(path).read_bytes()).manifests}
    return [] if named == wanted else [f"index.json names {sorted(named)} where the images are {sorted(wanted)}"]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
