"""Networks' work: a free address, a free port, and what drivers answered made true on the host and in a container.

addresses.py   which subnet, and which address of it, is next
ports.py       the host's ports: which are free, and held while they are published
apply.py       drivers' data carried out: links, addresses, routes, settings, rules; and taken away
names.py       the hosts and resolv.conf files of containers
proxy.py       the process that carries bytes where the kernel can't

Whose networks these are, and when what is done, is in `usecases/networks.py` and `usecases/networking.py`. A container whose
network is `none` or `host` imports nothing of this.
"""
