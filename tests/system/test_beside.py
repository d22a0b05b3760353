"""What `make beside` compares by (`tests/beside`): that it sees what was lost, damaged or left over, on Lamina alone."""

from pathlib import Path

import engines
import pytest
from cases import Lamina
from seen import differences, see


@pytest.fixture
def driver() -> str:
    return "overlay"


def test_what_is_lost_damaged_or_left_over_is_seen(lamina: Lamina, tmp_path: Path):
    with lamina.library() as engine:
        engine.images.remove("busybox")
        engine.images.tag("base", "again")
    beside = engines.Lamina(lamina.root, tmp_path / "run", "overlay")
    old = see(beside)
    assert {name for name in old if name.startswith("image")} == {"image base:latest", "image again:latest"}
    (lower, *_) = lamina.layer_dirs(lamina.layer_keys("base")[-1])
    (lower / "single").write_text("", encoding="utf-8")
    with lamina.library() as engine:
        engine.images.remove("again")
        engine.containers.create("base", ["true"], name="half-made")
    found = differences(see(beside), old, old)
    assert {kind: [name.split(":")[0] for name in names] for kind, names in found.items()} == {
        "lost": ["image again"], "damaged": ["image base"], "left over": ["container half-made"],
    }  # fmt: skip
