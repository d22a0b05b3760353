"""The storage driver `vfs`, as a plugin: what the entry point names. The code is in `driver.py`."""

from lamina_vfs.driver import plugin

__all__ = ["plugin"]
