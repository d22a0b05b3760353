"""How each engine does each work, a module for each kind.

commands.py     what is one command: version, exec, ps, inspect, images
running.py      a container from nothing to its end: by command, by library beside crun, on the bridge, 100 of them, with 10,000
known images.py       load and pull of a big image
layers.py       commit and diff
building.py     a Dockerfile of ten steps: cold, after a change, cached
drivers.py      storage drivers: vfs with reflinks, a mount of 400 layers
memory.py       what an idle container costs
"""
