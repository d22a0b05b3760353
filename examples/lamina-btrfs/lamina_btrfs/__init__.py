"""The storage driver `btrfs`, as a plugin: what the entry point names. The code is in `driver.py`."""

from lamina_btrfs.driver import plugin

__all__ = ["plugin"]
