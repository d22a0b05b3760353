"""The volume driver `local`, as a plugin: what the entry point names. The code is in `driver.py`."""

from lamina_local.driver import plugin

__all__ = ["plugin"]
