"""The network driver `bridge`, as a plugin: what the entry point names.

driver.py    the hooks: what a network is and what a container gets
options.py   the options of a network, Docker's names beside short ones
rules.py     the packet filter and address translation of a network
"""

from lamina_bridge.driver import plugin

__all__ = ["plugin"]
