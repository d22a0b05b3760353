"""What `system check` works out of layers in memory is what unpacking them gives: on random layers, on every driver."""

import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import archives
import pytest
from archives import Item

from lamina.engine import Engine
from lamina.store.image_archive import load

ROUNDS = int(os.environ.get("LAMINA_CHECK_ROUNDS", "8"))
FOLDERS, OTHERS = ("d", "e"), ("a", "b", "s")


def random_layers(draw: random.Random) -> Iterator[bytes]:
    """Layers in which few names meet often: replaced by other kinds, hidden, linked, reached through symlinks."""
    for number in range(4):
        items: dict[str, Item | str] = {}
        files: list[str] = []
        for _ in range(draw.randrange(1, 14)):
            kind = draw.choice(("file", "file", "folder", "folder", "link", "hard", "fifo", "whiteout", "opaque"))
            is_folder = kind in {"folder", "opaque"} or (kind == "whiteout" and draw.random() < 0.5) or draw.random() < 0.04
            last = draw.choice(FOLDERS if is_folder and draw.random() < 0.95 else OTHERS)
            path = "/".join([*draw.choices(FOLDERS, k=draw.randrange(3)), last])
            if kind == "file":
                items[path] = Item(
                    content=draw.randbytes(draw.choice((0, 5, 300_000))), mode=draw.choice((0o644, 0o4755)), uid=draw.randrange(3),
                    xattrs=draw.choice(({}, {"user.note": "x"})),
                )  # fmt: skip
                files.append(path)
            elif kind == "folder":
                items[path] = archives.folder(draw.choice((0o755, 0o700)), xattrs=draw.choice(({}, {"user.note": "y"})))
            elif kind == "link":
                items[path] = archives.link(draw.choice(("d", "../e", "/d", "/e/d", "nowhere")))
            elif kind == "hard" and files:
                items[path] = Item(type=tarfile.LNKTYPE, content=draw.choice(files).encode())
            elif kind == "fifo":
                items[path] = Item(type=tarfile.FIFOTYPE)
            elif kind == "whiteout":
                head, _, name = path.rpartition("/")
                items[f"{head}/.wh.{name}" if head else f".wh.{name}"] = Item()
            elif kind == "opaque":
                items[f"{path}/.wh..wh..opq"] = Item()
        if draw.random() < 0.3:
            items["."] = archives.folder(0o751)
        yield archives.layer(items or {"only": str(number)})


@pytest.mark.timeout(36000)
@pytest.mark.usefixtures("own_mounts")
def test_random_layers_are_found_as_they_were_unpacked(root_dir: str):
    seed = int(os.environ.get("LAMINA_SEED", "0"))
    made = 0
    with Engine(root_dir=f"{root_dir}/root", storage_driver="vfs") as engine:
        for number in range(seed, seed + ROUNDS):
            path = archives.image(Path(root_dir, "image.tar"), "random", list(random_layers(random.Random(number))))
            with path.open("rb") as stream:
                load(engine.images.store, stream)
            for driver in ("overlay", "aufs", "vfs"):
                try:
                    engine.containers.create("random", ["x"], driver=driver).remove()
                except Exception as error:  # noqa: BLE001 - layers that can't be: what is unpacked below them is checked all the same
                    print(number, driver, error)
                else:
                    made += 1
            assert engine.system.check() == [], f"seed {number}"
            engine.images.remove("random")
    assert made > ROUNDS
