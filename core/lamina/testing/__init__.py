"""The conformance kit: what every storage driver must do, as checks that any driver can be held against.

A driver author writes, in a test file:

    from lamina.testing import StorageDriverSuite

    class TestMine(StorageDriverSuite):
        plugin = "lamina_mine:plugin"

and gets every check as a pytest test; `lamina driver test NAME` runs the same list without pytest.

checks/      the checks, one module for each group
check.py     what a check is, and the list of them
bench.py     what a check works with: a driver on a directory of its own, used as the engine uses it
tree.py      trees declared, made, read and compared
tar.py       layer archives, well formed and hostile
disks.py     small file systems: one that is full, one whose power is cut
run.py       one check in a process and mount namespace of its own
report.py    a table, JSON, JUnit
suite.py     the pytest class; plugin.py: the pytest plugin
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamina.testing.suite import StorageDriverSuite

__all__ = ["StorageDriverSuite"]


def __getattr__(name: str) -> object:
    """Import the suite, and pytest with it, only for who asks for it: the command line does without."""
    if name != "StorageDriverSuite":
        raise AttributeError(name)
    from lamina.testing.suite import StorageDriverSuite

    return StorageDriverSuite
