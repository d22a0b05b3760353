"""The network driver `none`, as a plugin: what the entry point names. The code is in `driver.py`."""

from lamina_none.driver import plugin

__all__ = ["plugin"]
