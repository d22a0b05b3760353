"""What a plugin author reads: hook specifications, the types they pass, the loader.

hookspecs.py   every hook, with its contract
types.py       the values that go in and come out
entries.py     those about what a layer holds and changes
networks.py    those of network drivers that make links
host.py        finds plugins, checks them, and calls the hooks of the chosen one
drivers.py     the same calls with types, for the engine
copytree.py    a tree copied with all that belongs to it, for drivers
quota.py       limits on the size of layers, for drivers on file systems with project quotas
reference.py   writes docs/plugins/reference.md
"""
