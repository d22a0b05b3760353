"""The network driver `macvlan`, as a plugin: what the entry point names. The code is in `driver.py`."""

from lamina_macvlan.driver import plugin

__all__ = ["plugin"]
