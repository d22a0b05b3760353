"""The kernel and nothing else: the only home of ctypes.

    libc.py        the one CDLL, its functions' types, and how a failed call becomes an OSError
    mount.py       mounts by the new mount API: attach, detach, bind, pivot_root, mountinfo
    namespace.py   unshare, setns, what a process's namespaces are, loopback
    process.py     pidfd, prctl, capabilities, who is alive, start times
    fs.py          files beneath a root (openat2), reflinks, holes, xattrs, syncfs
    terminal.py    pseudo-terminals, raw mode, window size
    recorder.py    records the changing calls of a process, for a trace
    ptrace.py      watches another process's changing calls, and kills it at one, for the conformance kit
    uncommon.py    calls that only comparisons make

Wrappers check, call, raise, and hold no policy. Everything here imports only os, sys, ctypes and its neighbours.
"""
