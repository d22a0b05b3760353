"""What to show, 8: an image of 120 layers runs on each driver, one of 400 on those that can, and the other says so in one line."""

from pathlib import Path

import pytest
from archives import Item, busybox_layer, folder, image, layer
from cases import Lamina, fingerprint

LOOK = "cat /top; ls /each | wc -l; ls /each | sort -n | head -n 1; cat /changing/7; ls /opaque"


def deep_layers(depth: int) -> list[bytes]:
    """So many layers: each has a file of its own, writes `top` anew and deletes its neighbour's file; the last has the programs.

    The programs come last so that vfs, which copies each layer, copies next to nothing.
    """
    layers = [layer({"top": "0\n", "each": folder(), "each/0": "", "changing": folder(), "opaque": folder(), "opaque/0": ""})]
    for number in range(1, depth - 1):
        items: dict[str, Item | str] = {"top": f"{number}\n", f"each/{number}": "", f"changing/{number % 10}": f"{number}\n"}
        if number % 3 == 0:
            items[f"each/.wh.{number - 2}"] = ""
        if number % 50 == 0:
            items |= {"opaque": folder(), "opaque/.wh..wh..opq": "", f"opaque/{number}": ""}
        layers.append(layer(items))
    return [*layers, busybox_layer("sh", "cat", "ls", "wc", "sort", "head", "sleep", "true")]


def expected(depth: int) -> str:
    """What `LOOK` shows: computed here from the same declaration."""
    last = depth - 2
    each = {0} | set(range(1, last + 1)) - {number - 2 for number in range(1, last + 1) if number % 3 == 0}
    sevens = max(number for number in range(1, last + 1) if number % 10 == 7)
    return f"{last}\n{len(each)}\n{min(each)}\n{sevens}\n{last // 50 * 50}"


@pytest.fixture(scope="session")
def deep_images(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Archives of images by their depth."""
    place = tmp_path_factory.mktemp("deep")
    return {depth: image(place / f"{depth}.tar", f"deep:{depth}", deep_layers(depth)) for depth in (120, 400)}


def check_runs(lamina: Lamina, depth: int) -> None:
    assert lamina("run", "--rm", f"deep:{depth}", "sh", "-c", LOOK, timeout_s=110) == expected(depth)
    container = lamina("run", "-d", f"deep:{depth}", "sh", "-c", "echo mine > /top; : > /each/mine; sleep 1000000 & wait")
    assert lamina("exec", container, "sh", "-c", "cat /top; ls /each | wc -l").splitlines()[0] == "mine"
    lamina("stop", "-t", "0", container)
    assert lamina("diff", container).splitlines() == ["C /each", "A /each/mine", "C /top"]
    lamina("commit", container, f"deeper:{depth}")
    assert len(lamina.diff_ids(f"deeper:{depth}")) == depth + 1
    assert lamina("run", "--rm", f"deeper:{depth}", "cat", "/top", timeout_s=110) == "mine"


def test_an_image_of_120_layers_runs_and_is_committed(lamina: Lamina, deep_images: dict[int, Path]):
    lamina("load", "-q", "-i", str(deep_images[120]))
    assert len(lamina.diff_ids("deep:120")) == 120
    check_runs(lamina, 120)


@pytest.mark.timeout(240)
def test_an_image_of_400_layers_runs_or_is_refused_with_the_reason_in_one_line(lamina: Lamina, deep_images: dict[int, Path]):
    lamina("load", "-q", "-i", str(deep_images[400]))
    if lamina.driver != "aufs":
        check_runs(lamina, 400)
        return
    before = sorted(fingerprint([lamina.home()]))
    line = lamina.error("run", "--name", "deep", "deep:400", "true", code=125)
    assert "400 layers" in line
    assert "'aufs'" in line
    assert "127" in line
    assert "--storage-driver" in line
    assert lamina("ps", "-aq") == ""
    assert sorted(fingerprint([lamina.home()])) == before, "nothing was unpacked"
