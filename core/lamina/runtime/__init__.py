"""A process becomes a container.

steps.py     what is done to the new process, as data: each step says itself and does itself; those about namespaces
mount_steps.py, process_steps.py   those about what it sees, and about the process itself
isolation_steps.py   those of containers with limits, another's /dev/shm, or users of their own
confinement.py Docker's defaults, and what a container was asked to have otherwise
plan.py      the list of steps for one container
init.py      the child: carries the steps out, in order, and executes the command
monitor.py   the parent that stays: forks the child, sees it through its start
watch.py     what the parent does then, in a small program: relays and logs the output, reaps the child
probes.py    when the container's health is checked
launch.py    starts the monitor and hears from it how the start went
frames.py    what monitor and clients say to each other over a socket
attach.py    a client: relays a terminal or pipes to a monitor
enter.py     `exec`: a second process enters a container's namespaces by setns
users.py     names to numbers, from the container's own /etc/passwd and /etc/group
logs.py      the log as json-file keeps it
probes.py    when the monitor has the container's health checked
cgroups.py   the container's own cgroup: its name, its controllers, its device rules
limits.py    limits as what the kernel's files are given
devices.py   the devices that a container is given
processes.py `top`: the container's processes, read from the host's /proc
"""
