"""Views that have to be mounted somewhere (FUSE): what a killed process leaves mounted doesn't outlive the layer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lamina.engine import Engine
from lamina.linux import mountinfo
from lamina.store import views

EXAMPLE = Path(__file__).parents[2] / "examples" / "lamina-fuse-overlayfs"

KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from lamina_fuse_overlayfs import plugin
from lamina.engine import Engine
from lamina.store import views
engine = Engine(root_dir=sys.argv[1])
engine.context.host.register(plugin, "storage.fuse-overlayfs")
container = engine.containers.create("base", ["true"], driver="fuse-overlayfs", name="killed").record
driver = engine.context.layers.driver("fuse-overlayfs")
views.attach(driver.mounts(container.id, container.parents, readonly=True))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_view_that_a_killed_reader_left_mounted_goes_with_its_layer(
    prepared_roots: dict[str, Path], tmp_path: Path, own_mounts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from lamina_fuse_overlayfs import plugin  # type: ignore[import-not-found]

    root = tmp_path / "root"
    subprocess.run(["cp", "--archive", str(prepared_roots["overlay"]), str(root)], check=True)
    subprocess.run([sys.executable, "-c", KILLED, str(root), str(EXAMPLE)], check=False)
    with Engine(root_dir=str(root)) as engine:
        engine.context.host.register(plugin, "storage.fuse-overlayfs")
        container = engine.containers.get("killed")
        view = engine.context.layers.driver("fuse-overlayfs").mounts(container.id, container.record.parents, readonly=True)
        assert view.root in [each.target for each in mountinfo.mounts()], "the test left nothing to take away"
        container.remove()
    assert [each.target for each in mountinfo.mounts() if each.target.startswith(f"{root}/")] == []
    assert not os.path.exists(view.root)
    assert views.can_detach(view.mounts[0]) is False
