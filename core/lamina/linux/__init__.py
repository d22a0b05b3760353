"""The kernel and nothing else: the only home of ctypes.

    libc.py        the one CDLL, its functions' types, and how a failed call becomes an OSError
    mount.py       mounts by the new mount API: attach, detach, bind, pivot_root
    mountinfo.py   what is mounted
    namespace.py   unshare, setns, what a process's namespaces are, loopback
    netns.py       a call in another network namespace, and its settings (sysctl)
    netlink.py     conversations with the kernel about networks: messages, attributes, errors in words
    link.py        links, which others call interfaces: bridges, veth pairs, macvlans
    route.py       addresses and routes
    nftables.py    packet filter and address translation: a table's chains, sets and rules, changed at once
    nft_rules.py   what a rule of nftables says, and the kernel's instructions for it
    nft_types.py   what such a rule can look at: addresses, ports, links, and the types of their values
    nft_listing.py what a table of nftables holds
    cgroup.py      the hierarchies of cgroups, version 1 or 2, and one cgroup in all of them
    device_filter.py  the BPF program by which version 2 keeps a cgroup from devices
    process.py     pidfd, prctl, capabilities, who is alive, start times
    fs.py          files beneath a root (openat2), reflinks, holes, xattrs, syncfs
    btrfs.py       subvolumes and their snapshots
    quota.py       project quotas: what all files with one number may take together
    selinux.py     SELinux: is it on, does its policy know a label, labels of files
    procfs.py      files of /proc, opened so that nothing can be mounted over them meanwhile
    conntrack.py   connections that the kernel tracks for address translation, and forgetting them
    unix_socket.py  Unix sockets: pairs, by a path of any length, descriptors sent over them
    terminal.py    pseudo-terminals, raw mode, window size
    recorder.py    records the changing calls of a process, for a trace
    ptrace.py      watches another process's changing calls, and kills it at one, for the conformance kit
    uncommon.py    calls that only comparisons make

Wrappers check, call, raise, and hold no policy. Everything here imports only os, sys, ctypes and its neighbours;
what is for networks imports struct and socket, too.
"""
