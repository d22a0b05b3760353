"""The driver against the conformance kit: every check on a btrfs of its own, made in a file. Needs root and mkfs.btrfs."""

from lamina.testing import StorageDriverSuite


class TestBtrfs(StorageDriverSuite):
    """The whole contract."""

    plugin = "lamina_btrfs:plugin"
    filesystem = "btrfs"
