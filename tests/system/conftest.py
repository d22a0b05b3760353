"""What every privileged test has: a mount namespace that isn't the machine's, and a directory of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.linux import mount, namespace


@pytest.fixture(scope="session", autouse=True)
def private_mounts() -> None:
    """Leave the machine's mount namespace, once for the whole run: what a test mounts, nobody else sees."""
    namespace.unshare(namespace.CLONE_NEWNS)
    mount.make_private()


@pytest.fixture
def root_dir(tmp_path: Path) -> Iterator[str]:
    """A directory for one test, under which no mount may be left."""
    yield str(tmp_path)
    left = [each.target for each in mount.mounts() if each.target.startswith(f"{tmp_path}/")]
    for target in reversed(left):
        mount.unmount(target, detach=True)
    assert not left, "mounts were left behind"
