"""The use cases: what `lamina.engine.Engine` offers, one file to a subject.

context.py        what every use case works with: the stores, the plugin host, the paths
settings.py       where the store is, and which driver is the default
create.py         a container from an image: its layer, its volumes, its record
start.py          launching, and settling what has ended
mounting.py       what a container sees of the host: its mounts, and hosts, hostname and resolv.conf
restarts.py       starting again what has ended, and what a boot has ended
isolating.py      namespaces that are shared, users of a container's own, limits: checked, and what they come to
control.py        stop, kill, wait, pause, rename, remove, top
enter.py          exec and attach
labelling.py      labels of SELinux: a container's own, and those of its files
limiting.py       limits: refusing what can't be held, and update
stats.py          what containers use just now
follow.py         logs
health.py         one check of a container's health, and what checks have found
events.py         reading the journal of events
host_ps.py        top with the host's ps
content.py        diff, commit, export
copy.py           cp; containerroot.py is the root that it copies from and to
images.py         which images a command's words mean
imagecopy.py      an image from one place to another; transfers.py pulls into this store and pushes from it
networks.py       networks as users know them; networking.py attaches containers to them and releases them
volumes.py        named and anonymous volumes
inspect.py        the documents that inspect shows; network_documents.py has those of networks and a container's part in them
system.py         drivers, networks, facts; disk.py counts what takes space
check.py          system check: check_images.py, check_layers.py, check_state.py and check_kernel.py are its parts
recovery.py       undoing what killed commands left half made
migrate.py        a container moves to another driver
adopt.py          what a Docker data directory holds becomes Lamina's
explain.py        where a path comes from; layerlookup.py asks the layers, mountoptions.py knows the kernel's words
trace.py          every step and changing system call of a command
doctor.py         what each driver would give and lose here
driver_package.py a new driver's package
"""
