"""The network driver `host`, as a plugin: what the entry point names. The code is in `driver.py`."""

from lamina_host.driver import plugin

__all__ = ["plugin"]
