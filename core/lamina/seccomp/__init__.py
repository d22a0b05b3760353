"""Which system calls a container may make: profiles in Docker's form, and the kernel's program (classic BPF) made of them.

    syscalls.py  the table of system calls: name to number, for each architecture
    profile.py   a profile as JSON becomes rules, and what of them holds for a machine and a set of capabilities
    compiler.py  rules become the program that seccomp(2) takes
    cache.py     compiles into a file, so that the next start only reads
    data/        the table, and `default.json`, the profile of whoever asks for none

Nothing of it is imported by a start whose filter is there. No library is used: libseccomp of Debian 12 knows nothing newer than
Linux 5.17, and a profile that can't name newer calls can neither allow them nor answer them with ENOSYS, by which a C library knows
that it must do without.
"""
