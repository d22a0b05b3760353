"""The storage driver `overlay`, as a plugin: what the entry point names. The code is in `driver.py`."""

from lamina_overlay.driver import plugin

__all__ = ["plugin"]
