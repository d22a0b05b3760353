"""The aufs storage driver: Docker's aufs directory and aufs's own format on disk, on kernels with aufs and without.

names.py        the names of the format, and the map of the driver's folder
method.py       which of the three ways of mounting this kernel has
layout.py       Docker's directories: making, discarding, sweeping and listing layers
form.py         the writable layer's two forms, at rest (aufs's) and mounted (overlayfs's), and the way between them
companions.py   directories that explain a layer's aufs whiteouts to overlayfs
stack.py        a view's mounts, as data
driver.py       the hooks
"""

from lamina_aufs.driver import Driver

plugin = Driver()
