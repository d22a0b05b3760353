"""The driver against the conformance kit. Needs root, fuse-overlayfs and /dev/fuse. What is known to fail is in `conftest.py`."""

from lamina.testing import StorageDriverSuite


class TestFuseOverlayfs(StorageDriverSuite):
    """The whole contract."""

    plugin = "lamina_fuse_overlayfs:plugin"
