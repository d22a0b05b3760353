"""Every attack of `docs/security.md` and the engine's defence against it: which text it is, and what an engine without has there.

Where an attack is held off in several layers, as many are taken out as it takes for the attack to work.
`tests/unit/test_defences.py` holds this table against the page and the source, `run.py` takes the defences out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).parents[2]


class Cut(NamedTuple):
    """A place of the engine: its file below `core/lamina`, a text that is there once, and what an engine without it has there."""

    file: str
    text: str
    instead: str

    @property
    def path(self) -> str:
        """The file in the work tree."""
        return f"core/lamina/{self.file}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defence:
    """What holds an attack off, and the tests that must fail without it."""

    attack: str
    """How the attack's row in `docs/security.md` begins."""
    without: str
    """What the engine then hasn't got."""
    cuts: tuple[Cut, ...]
    tests: tuple[str, ...]
    """`FILE::TEST`, a test of many cases fails if one does."""
    fails_with: str = ""
    """How each fails, as a pattern, if not by an assertion."""

    def write_without(self, place: Path) -> None:
        """Write the changed files below a directory, each where it is in the work tree."""
        for cut in self.cuts:
            path = place / cut.path
            source = path if path.exists() else TOP / cut.path
            text = source.read_text(encoding="utf-8")
            assert text.count(cut.text) == 1, f"{cut.path} has {text.count(cut.text)} times: {cut.text}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace(cut.text, cut.instead), encoding="utf-8")


def system(file: str, *names: str) -> tuple[str, ...]:
    """Name tests of `tests/system`, without what all names begin with."""
    return tuple(f"tests/system/test_{file}.py::test_{name}" for name in names)


def unit(file: str, *names: str) -> tuple[str, ...]:
    """The same of `tests/unit`."""
    return tuple(f"tests/unit/test_{file}.py::test_{name}" for name in names)


BENEATH = Cut(
    "linux/fs.py",
    'return openat2(root_fd, path or ".", flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve, mode)',
    'return os.open(path.lstrip("/") or ".", flags | os.O_CLOEXEC, mode, dir_fd=root_fd)',
)
"""Nearly every path in a container, a context or a layer is opened by this one call; without it a symlink leads anywhere."""

FOLLOWED = Cut(
    "archive/target.py",
    "_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
    "_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
)
"""The directories in which a layer is laid down."""

UNLIMITED = Cut(
    "runtime/isolation_steps.py",
    "        for name, soft, hard in self.limits:\n            _set(name, soft, hard)\n",
    "        pass\n",
)
"""Resource limits of processes, `--ulimit`."""

DEFENCES = (
    # The engine itself
    Defence(
        attack="overwrite the engine's program",
        without="a look at where the program, or its `#!` line, leads",
        cuts=(Cut("runtime/process_steps.py", "        refuse_magic_links(place.program)\n", ""),),
        tests=system("confinement_attacks", "an_image_cannot_have_the_engines_interpreter_run"),
    ),
    Defence(
        attack="overwrite the engine's program",
        without="being not dumpable (as a host with fs.suid_dumpable=1 would have it after setuid)",
        cuts=(
            Cut("runtime/monitor.py", "process.PR_SET_DUMPABLE, 0", "process.PR_SET_DUMPABLE, 1"),
            Cut("runtime/process_steps.py", "process.PR_SET_DUMPABLE, 0", "process.PR_SET_DUMPABLE, 1"),
        ),
        tests=system("confinement_attacks", "a_process_is_not_to_be_looked_into_before_it_is_the_command"),
    ),
    Defence(
        attack="overwrite the engine's program",
        without="being not dumpable: who races for it gets at whom has given its capabilities up, as the init of `--init` has",
        cuts=(Cut("runtime/monitor.py", "process.PR_SET_DUMPABLE, 0", "process.PR_SET_DUMPABLE, 1"),),
        tests=system("confinement_attacks", "the_engines_interpreter_is_reached_by_nobody_who_races_for_it"),
    ),
    Defence(
        attack="overwrite the engine's program",
        without="a monitor that runs the same interpreter: it becomes small by a copy of it",
        cuts=(
            Cut("runtime/watch.py", "os.execv(sys.executable, [sys.executable,",
                'import shutil; other = shutil.copy(sys.executable, f"{sys.executable}-other"); os.execv(other, [other,'),
            Cut("runtime/watch.py", "SLIM_AFTER_S = 5.0", "SLIM_AFTER_S = 0.1"),  # while the test runs
        ),
        tests=system("confinement_attacks", "the_engines_interpreter_cannot_be_written_to_even_by_who_can_reach_it"),
    ),
    Defence(
        attack="a directory left open",
        without="closing what is inherited, in the monitor and in the first process",
        cuts=(
            Cut("runtime/init.py", "    process.close_descriptors(frozenset({0, 1, 2, report_fd, go_fd, console_fd}))\n", ""),
            Cut("runtime/monitor.py",
                "        process.close_descriptors(frozenset(kept | {console[0].fileno()} if console else kept))\n", ""),
        ),
        tests=system("confinement_attacks", "a_command_has_three_descriptors_and_no_way_out_by_another"),
    ),
    Defence(
        attack="a directory left open",
        without="refusing magic links on the way to the working directory and asking where that is",
        cuts=(
            Cut("runtime/process_steps.py", "os.O_PATH | os.O_DIRECTORY, RESOLVE_NO_MAGICLINKS", "os.O_PATH | os.O_DIRECTORY, 0"),
            Cut("runtime/process_steps.py", 'if not os.getcwd().startswith("/"):', "if False:"),
        ),
        tests=system("confinement_attacks", "a_working_directory_outside_is_refused_even_if_a_descriptor_of_it_is_left"),
    ),
    Defence(
        attack="`WORKDIR /proc/1/root/…`",
        without="refusing magic links, nor making directories beneath a descriptor",
        cuts=(
            Cut("runtime/process_steps.py",
                "self._enter(openat2(AT_FDCWD, self.path, os.O_PATH | os.O_DIRECTORY, RESOLVE_NO_MAGICLINKS))",
                "os.makedirs(self.path, exist_ok=True)"),
        ),
        tests=system("confinement_attacks", "an_images_working_directory_makes_none_on_the_host_whose_processes_it_sees"),
    ),
    Defence(
        attack="libraries, modules, codecs or programs of the image",
        without="having imported all that is needed before the root is the container's",
        cuts=(
            Cut("runtime/process_steps.py",
                "place.identity = resolve_user(self.user)",
                "try:\n"
                "            import encodings.cp037\n"
                "        except ImportError:\n"
                "            pass\n"
                "        place.identity = resolve_user(self.user)"),
        ),
        tests=system("attacks", "nothing_of_a_container_is_loaded_or_run_by_the_engine"),
    ),
    Defence(
        attack="libraries, modules, codecs or programs of the image",
        without="staying outside of the root: `cp` enters it",
        cuts=(
            Cut("usecases/containerroot.py",
                "            kernel = frozenset(each.id for each in mounts if _is_kernels(each))\n",
                '            here = os.open("/", os.O_RDONLY)\n'
                '            os.fchdir(root_fd); os.chroot("."); os.fchdir(here); os.chroot("."); os.close(here)\n'
                '            kernel = frozenset(each.id for each in mounts if _is_kernels(each))\n'),
        ),
        tests=system("attacks", "nothing_of_a_container_is_loaded_or_run_by_the_engine"),
    ),
    Defence(
        attack="`top` runs a program of the image",
        without="the host's `ps`: it looks as if from inside",
        cuts=(
            Cut("usecases/host_ps.py", '["ps", *options], capture_output=True',
                '["/usr/sbin/chroot", f"/proc/{min(pids)}/root", "/bin/ps", *options], capture_output=True'),
        ),
        tests=system("cli_containers", "top_shows_the_hosts_pids_and_runs_no_program_of_the_container"),
    ),
    Defence(
        attack="a container's pid is another's",
        without="the second look",
        cuts=(Cut("usecases/enter.py", "if not _runs(container):  # then", "if False:  # then"),),
        tests=system("confinement_attacks", "what_enters_a_container_whose_pid_becomes_anothers_meanwhile_is_not_let_go"),
    ),
    Defence(
        attack="a line's end in an image's path",
        without="ends of reports that no path can have",
        cuts=(Cut("runtime/steps.py", 'END_OF_REPORT = b"\\0\\0"', 'END_OF_REPORT = b"\\n"'),),
        tests=system("confinement_attacks", "no_name_in_an_image_speaks_for_the_first_process"),
    ),
    Defence(
        attack="a `hosts` file of holes",
        without="a limit",
        cuts=(Cut("network/names.py", "HOSTS_MAX_BYTES = 1 << 20", "HOSTS_MAX_BYTES = 1 << 40"),),
        tests=system("network_names", "a_file_that_its_container_has_made_huge_is_not_read_but_begun_anew"),
        fails_with="MemoryError",
    ),
    # Mounts and paths
    Defence(
        attack="a mount's place in a shared volume",
        without="RESOLVE_IN_ROOT",
        cuts=(BENEATH,),
        tests=system("attacks", "no_mount_and_no_mount_point_leaves_the_root_while_its_way_is_swapped_for_a_symlink"),
    ),
    Defence(
        attack="files and directories made on the host",
        without="RESOLVE_IN_ROOT",
        cuts=(BENEATH,),
        tests=system("attacks", "no_mount_and_no_mount_point_leaves_the_root_while_its_way_is_swapped_for_a_symlink"),
    ),
    Defence(
        attack="a symlink of the image leads a volume out",
        without="RESOLVE_IN_ROOT",
        cuts=(BENEATH,),
        tests=system("show_5_volumes", "a_symlink_in_the_image_does_not_lead_a_volume_out_of_the_root"),
    ),
    Defence(
        attack="`/proc`, `/sys` or `/dev` of the image is a symlink",
        without="refusing symlinks there",
        cuts=(Cut("runtime/mount_steps.py", "remember=True, follow=False)", "remember=True)"),),
        tests=system("confinement_attacks", "an_image_whose_kernel_directories_are_others_is_refused"),
    ),
    Defence(
        attack="a volume in `/proc`",
        without="asking what file system the mount point is on",
        cuts=(Cut("runtime/steps.py", "if filesystem_magic(target_fd) == PROC_SUPER_MAGIC:", "if False:"),),
        tests=system("confinement_attacks", "nothing_is_mounted_in_proc_by_whatever_name"),
    ),
    Defence(
        attack="another file in place of `/dev/null`",
        without="asking for the device's number",
        cuts=(
            Cut("runtime/mount_steps.py", "if found.st_mode & 0o170000 != 0o020000 or found.st_rdev != os.makedev(1, 3):",
                "if False:"),
        ),
        tests=system("confinement_attacks", "masks_are_made_of_the_null_device_alone"),
    ),
    Defence(
        attack="another file in place of `/dev/null`",
        without="masks of what has a number in its name",
        cuts=(Cut("runtime/mount_steps.py", "            yield from _opened_alike(place, before, after)\n", ""),),
        tests=system("confinement_attacks", "a_pattern_of_masked_paths_masks_each"),
    ),
    Defence(
        attack="another file in place of the console",
        without="O_NOFOLLOW, nor asking what file system the mount point is on",
        cuts=(
            Cut("runtime/process_steps.py", "os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC", "os.O_NOCTTY | os.O_CLOEXEC"),
            Cut("runtime/process_steps.py", "                place.refuse_inside_proc(console_fd)\n", ""),
        ),
        tests=system("confinement_attacks", "a_console_is_put_where_it_belongs_or_nowhere"),
    ),
    Defence(
        attack="a write to /proc turned elsewhere",
        without="openat2 with RESOLVE_NO_XDEV and RESOLVE_NO_SYMLINKS",
        cuts=(
            Cut("linux/procfs.py",
                "return openat2(proc_fd, beneath, flags, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)",
                "return os.open(beneath, flags, dir_fd=proc_fd)"),
        ),
        tests=system("confinement_proc", "a_file_of_proc_mounted_over_another_is_refused_as_is_any_other_file",
            "links_in_proc_are_not_followed"),
    ),
    Defence(
        attack="a write to /proc turned elsewhere",
        without="asking whether /proc is the root of a procfs",
        cuts=(
            Cut("linux/procfs.py", "if filesystem_magic(proc_fd) != PROC_SUPER_MAGIC or os.fstat(proc_fd).st_ino != _ROOT_INODE:",
                "if False:"),
        ),
        tests=system("confinement_proc", "a_proc_that_is_none_is_refused"),
    ),
    Defence(
        attack="`/etc/passwd` is a symlink",
        without="asking for a regular file, and of what size",
        cuts=(
            Cut("runtime/users.py", "if stat.st_mode & 0o170000 != 0o100000:", "if False:"),
            Cut("runtime/users.py", "if stat.st_size > MAX_FILE_BYTES:", "if False:"),
            Cut("runtime/users.py", "if len(text) > MAX_FILE_BYTES:", "if len(text) > 1 << 28: break\n            if False:"),
        ),
        tests=system("attacks", "whom_a_container_is_told_to_be_is_looked_up_in_it_and_never_waited_for")
        + unit("users", "a_fifo_is_refused_and_not_waited_for", "a_huge_file_is_refused_unread"),
    ),
    Defence(
        attack="`/etc/passwd` is a symlink",
        without="refusing magic links",
        cuts=(Cut("runtime/users.py", "openat2(AT_FDCWD, path, flags, RESOLVE_NO_MAGICLINKS) if", "os.open(path, flags) if"),),
        tests=unit("users", "a_magic_link_is_not_followed"),
    ),
    Defence(
        attack="a racing container and 120 `cp`",
        without="RESOLVE_IN_ROOT",
        cuts=(BENEATH,),
        tests=system("cp", "a_container_that_swaps_symlinks_never_gets_at_the_hosts_files"),
    ),
    Defence(
        attack="`cp -` of a hostile archive",
        without="refusing `..`, nor O_NOFOLLOW",
        cuts=(
            Cut("archive/paths.py", 'if ".." in parts:', "if False:"),
            Cut("archive/extract.py", "_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW",
                "_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY"),
        ),
        tests=system("cp", "a_hostile_archive_stays_in_the_container"),
    ),
    Defence(
        attack="`cp -` of a hostile archive",
        without="asking whether a file is the kernel's",
        cuts=(
            Cut("usecases/containerroot.py", "return bool(self.kernel_mounts) and mount_id(fd) in self.kernel_mounts",
                "return False"),
        ),
        tests=system("cp", "what_is_the_kernels_is_refused_and_left_empty_in_a_copy"),
    ),
    # Privileges
    Defence(
        attack="inheritable and ambient capabilities",
        without="setting its own sets before `execve`",
        cuts=(
            Cut("runtime/process_steps.py",
                "            process.set_filter(self.seccomp)\n        process.set_capabilities(keep)\n",
                "            process.set_filter(self.seccomp)\n"),
        ),
        tests=system("confinement", "every_process_has_dockers_capabilities_and_none_to_inherit"),
    ),
    Defence(
        attack="a group shaken off",
        without="the user's own group among the supplementary ones",
        cuts=(Cut("runtime/users.py", "groups=tuple(dict.fromkeys((gid, *groups)))", "groups=groups"),),
        tests=system("attacks", "a_mode_that_shuts_a_users_own_group_out_does"),
    ),
    Defence(
        attack="a group shaken off",
        without="leaving the engine's own groups",
        cuts=(
            Cut("runtime/process_steps.py", "os.setgroups(identity.groups)",
                "os.setgroups([*os.getgroups(), *identity.groups])"),
        ),
        tests=system("show_run_options", "user_by_name_number_and_group"),
    ),
    Defence(
        attack="`core_pattern`, sysrq",
        without="masked and read-only paths",
        cuts=(
            Cut("runtime/plan.py", "steps += [ms.MaskPaths(paths=MASKED_PATHS), ms.ReadOnlyPaths(paths=READ_ONLY_PATHS)]",
                "pass"),
        ),
        tests=system("confinement_attacks", "kernel_files_are_masked_and_settings_read_only"),
    ),
    Defence(
        attack="`core_pattern`, sysrq",
        without="a read-only view of its own cgroup",
        cuts=(Cut("runtime/plan.py", "read_only=not confined.is_privileged", "read_only=False"),),
        tests=system("cgroups", "a_container_sees_its_own_cgroup_alone_and_can_write_nothing_there"),
    ),
    Defence(
        attack="`unshare`, `mount`, `keyctl`",
        without="the filter",
        cuts=(
            Cut("linux/process.py",
                "if syscall(SYS_SECCOMP, c_uint(SECCOMP_SET_MODE_FILTER), c_uint(0), ctypes.byref(described)) < 0:",
                "if False:"),
        ),
        tests=system("confinement", "system_calls_are_refused_to_root_and_to_users_of_every_command",
            "a_new_namespace_is_not_to_be_had_in_a_build_either"),
    ),
    Defence(
        attack="the host's keys",
        without="a keyring of its own",
        cuts=(Cut("runtime/process_steps.py", "process.new_session_keyring()", "pass"),),
        tests=system("confinement", "every_process_has_a_session_keyring_of_its_own"),
    ),
    Defence(
        attack="arguments whose upper half",
        without="comparing the upper half",
        cuts=(
            Cut("seccomp/compiler.py", "return [(_LOAD, 0, 0, lower + 4), first, (_LOAD, 0, 0, lower), second, *then]",
                "return [(_LOAD, 0, 0, lower), second, *then]"),
        ),
        tests=unit("seccomp", "arguments_are_compared_in_all_64_bits"),
    ),
    Defence(
        attack="arguments whose upper half",
        without="ending who comes by another architecture",
        cuts=(
            Cut("seccomp/compiler.py", "program.append((_RETURN, 0, 0, KILL_PROCESS))",
                "program.append((_RETURN, 0, 0, 0x7FFF0000))"),
        ),
        tests=unit("seccomp", "an_architecture_that_is_not_listed_ends_the_process"),
    ),
    Defence(
        attack="arguments whose upper half",
        without="ending who comes by the numbers of x32",
        cuts=(Cut("seccomp/compiler.py", "        starts[X32_BIT] = KILL_PROCESS\n", "        pass\n"),),
        tests=unit("seccomp", "an_architecture_that_is_not_listed_ends_the_process"),
    ),
    Defence(
        attack="`mknod` of a disk",
        without="device rules",
        cuts=(Cut("runtime/cgroups.py", "        _confine_devices(cgroup, rules)\n", ""),),
        tests=system("cgroups", "devices_are_denied_but_the_harmless_ones_and_those_that_were_given"),
    ),
    Defence(
        attack="signals, ptrace and /proc across containers",
        without="a PID namespace",
        cuts=(Cut("runtime/monitor.py", "0 if plan.pid_namespace else namespace.CLONE_NEWPID", "0"),),
        tests=system("attacks", "containers_reach_no_process_of_another_or_of_the_host"),
    ),
    Defence(
        attack="who gets out after all",
        without="ids of its own: root of the user namespace is root outside",
        cuts=(
            Cut("runtime/plan.py", "    if not spaces.first_id:\n        return steps\n",
                "    if not spaces.first_id:\n        return steps\n    spaces = Spaces(first_id=0, root_is_mapped=True)\n"),
        ),
        tests=system("userns", "a_program_that_got_out_can_do_what_any_user_can"),
    ),
    Defence(
        attack="set-user-ID programs of images",
        without="a mode that shuts others out",
        cuts=(Cut("usecases/context.py", "DIRECTORY_MODE = 0o710", "DIRECTORY_MODE = 0o755"),),
        tests=system("attacks", "users_of_the_host_cannot_enter_the_store_and_no_socket_is_without_a_path"),
    ),
    Defence(
        attack="an abstract socket of the engine",
        without="a path for its sockets",
        cuts=(Cut("linux/unix_socket.py", "listening.bind(path)", 'listening.bind("\\0" + path)'),),
        tests=system("attacks", "users_of_the_host_cannot_enter_the_store_and_no_socket_is_without_a_path"),
    ),
    # Builds
    Defence(
        attack="`RUN --mount` from a symlink",
        without="RESOLVE_IN_ROOT where a source is mounted, nor looking for it in what it is of before, for the cache's key",
        cuts=(
            BENEATH,
            Cut("build/stage.py", "bound = replace(bound, content=self._bound_content(bound, step))", "pass"),
        ),
        tests=system("attacks", "no_mount_of_a_build_leads_out_of_what_it_is_of"),
    ),
    Defence(
        attack="a cache's id is a path",
        without="a digest in the id's place",
        cuts=(Cut("build/mounts.py", "sha256((mount.id or bound.target).encode()).hexdigest()", "(mount.id or bound.target)"),),
        tests=system("build_run", "caches_are_shared_locked_or_private"),
    ),
    Defence(
        attack="a cache's id is a path",
        without="refusing commands that aren't confined",
        cuts=(Cut("build/stage.py", 'if instruction.security != "sandbox":', "if False:"),),
        tests=system("build_run", "what_cannot_be_run_is_one_line_with_its_place"),
    ),
    Defence(
        attack="writes to a bind mount stay",
        without="a copy for who may write",
        cuts=(
            Cut("build/mounts.py", "if read_only and hides_nothing(self._context) and not self._layers.file_label:", "if True:"),
        ),
        tests=system("build_run", "a_mount_leaves_nothing_in_the_layer"),
    ),
    Defence(
        attack="an image poisons the cache",
        without="what was before a step in its key",
        cuts=(
            Cut("build/state.py", "    text = ",
                '    facts = {name: fact for name, fact in facts.items() if name not in {"chain", "before"}}\n    text = '),
        ),
        tests=system("build_cache", "only_what_a_step_depends_on_makes_it_anew",
            "copies_between_stages_are_keyed_by_what_is_copied"),
    ),
    Defence(
        attack="symlinks of a context",
        without="RESOLVE_IN_ROOT",
        cuts=(BENEATH,),
        tests=system("build_context", "no_symlink_of_a_context_leads_out_of_it"),
    ),
    Defence(
        attack="symlinks of a context",
        without="RESOLVE_IN_ROOT, nor O_NOFOLLOW, nor looking whether it is still the same file with the same content",
        cuts=(
            BENEATH,
            Cut("build/copylayer.py", "one.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)",
                "one.source, os.O_RDONLY | os.O_NONBLOCK)"),
            Cut("build/contenthash.py", "_OPEN = os.O_RDONLY | os.O_NOFOLLOW |", "_OPEN = os.O_RDONLY |"),
            Cut("build/copylayer.py",
                "if count == 0 or (self._left == 0 and (self._hash.hexdigest() != self._one.content or os.read(self._fd, 1))):",
                "if count == 0:"),
            Cut("build/contenthash.py", "return found.st_dev, found.st_ino, found.st_size,",
                "return 0, 0, 0, 0, 0\n    return found.st_dev, found.st_ino, found.st_size,"),
        ),
        tests=system("build_copying", "nothing_from_outside_comes_in_while_names_are_swapped"),
    ),
    # Images
    Defence(
        attack="layers with `../`",
        without="walking the way itself: symlinks are followed by the kernel",
        cuts=(FOLLOWED,),
        tests=system("archive_hostile", "a_hostile_archive_is_refused_or_confined"),
    ),
    Defence(
        attack="layers with `../`",
        without="walking the way itself, so that what is to be there isn't",
        cuts=(FOLLOWED,),
        tests=system("archive_hostile", "what_a_name_outside_means_is_inside_the_layer"),
        fails_with="FileNotFoundError",
    ),
    Defence(
        attack="layers with `../`",
        without="refusing `..`",
        cuts=(Cut("archive/paths.py", 'if ".." in parts:', "if False:"),),
        tests=system("archive_hostile", "a_hostile_archive_is_refused_or_confined"),
    ),
    Defence(
        attack="layers with `../`",
        without="leaving overlayfs's xattrs out",
        cuts=(Cut("archive/attributes.py", " and not name.startswith(OVERLAY_PREFIX)", ""),),
        tests=system("archive_hostile", "a_hostile_archive_is_refused_or_confined"),
    ),
    Defence(
        attack="`.wh...`, `.wh.` alone",
        without="refusing whiteouts of nothing",
        cuts=(Cut("archive/layer.py", 'if hidden in {"", ".", ".."}:', "if False:"),),
        tests=system("archive_hostile", "a_hostile_archive_is_refused_or_confined"),
    ),
    Defence(
        attack="`.wh...`, `.wh.` alone",
        without="telling what the layer brings from what is below: it is deleted",
        cuts=(Cut("archive/whiteouts.py", "if path not in self._target.brought:", "if True:"),),
        tests=system("archive_hostile", "a_whiteout_never_hides_what_its_own_layer_brings"),
        fails_with="FileNotFoundError",
    ),
    Defence(
        attack="`.wh...`, `.wh.` alone",
        without="following symlinks of the layers below: the mark isn't where it is to be",
        cuts=(Cut("archive/target.py", "        lower = self.below_lstat(current.path, part)\n", "        lower = None\n"),),
        tests=system("archive_hostile", "a_whiteout_through_a_lower_symlink_works_where_the_container_sees_it"),
        fails_with="FileNotFoundError",
    ),
    Defence(
        attack="zip bombs",
        without="limits of bytes and entries",
        cuts=(
            Cut("archive/compression.py", "if self._limit_bytes is not None and self.size_bytes > self._limit_bytes:", "if False:"),
            Cut("archive/layer.py", "if self._limit_bytes is not None and total > self._limit_bytes:", "if False:"),
            Cut("store/layer_ingest.py", "if self.left_bytes < 0:", "if False:"),
        ),
        tests=system("archive_hostile", "a_bomb_stops_at_the_limit_and_the_error_says_how_to_raise_it",
            "a_hostile_archive_is_refused_or_confined")
        + system("images_archives", "an_archive_that_unpacks_beyond_the_limit_is_refused",
            "the_limit_holds_for_all_layers_together"),
    ),
    Defence(
        attack="zip bombs",
        without="holes where a sparse file has them",
        cuts=(
            Cut("archive/tarstream.py", "        os.ftruncate(fd, member.size_bytes)\n",
                "        os.posix_fallocate(fd, 0, 1 << 20)\n        os.ftruncate(fd, member.size_bytes)\n"),
        ),
        tests=system("archive_hostile", "a_sparse_file_within_no_limit_takes_no_disk"),
    ),
    Defence(
        attack="digest, size, diff_id",
        without="comparing a blob's digest",
        cuts=(
            Cut("registry/fetch.py", "if writer.digest != digest:", "if False:"),
            Cut("store/content.py", "written = self.digest", "written = digest or self.digest"),
            Cut("registry/pull.py", "if plain.digest != layer.digest:", "if False:"),
        ),
        tests=system("registry", "a_tampered_blob_is_refused_and_leaves_nothing"),
    ),
    Defence(
        attack="digest, size, diff_id",
        without="comparing a blob's size with what the manifest says, so that only the digest is left",
        cuts=(
            Cut("registry/remote.py", "if length.isdecimal() and int(length) != descriptor.size_bytes - start:", "if False:"),
            Cut("registry/http.py", "if self._left < 0:", "if False:"),
            Cut("registry/http.py", "if not data and self._left:", "if False:"),
            Cut("registry/fetch.py", "if self._written + len(data) > size:",
                "if self._written > 64 << 20:\n                return\n            if False:"),
            Cut("registry/fetch.py", "if self._written < size:", "if False:"),
        ),
        tests=system("registry", "a_blob_of_another_length_is_refused")
        + system("registry_lies", "an_endless_body_is_refused"),
    ),
    Defence(
        attack="digest, size, diff_id",
        without="noticing that a body ends early, so that only the digest is left",
        cuts=(
            Cut("registry/http.py", "raise self._failed(explained(error)) from None", 'return b""'),
            Cut("registry/http.py", "if not data and self._left:", "if False:"),
            Cut("registry/fetch.py", "if self._written < size:", "if False:"),
        ),
        tests=system("registry_lies", "a_body_that_ends_early_is_an_error"),
        fails_with="IntegrityError",
    ),
    Defence(
        attack="digest, size, diff_id",
        without="comparing a layer's diff_id with the configuration's",
        cuts=(
            Cut("registry/pull.py", "if plain.diff_id != diff_id:", "if False:"),
            Cut("store/images.py", "if layer.diff_id != diff_id:", "if False:"),
        ),
        tests=system("registry", "a_layer_that_unpacks_to_something_else_is_refused"),
    ),
    Defence(
        attack="digest, size, diff_id",
        without="comparing a manifest's digest with the one asked for",
        cuts=(
            Cut("registry/remote.py", 'if expected is not None and expected.algorithm == "sha256" and found != expected:',
                "if False:"),
        ),
        tests=system("registry_lies", "another_manifest_than_the_one_asked_for_is_refused"),
    ),
    Defence(
        attack="digest, size, diff_id",
        without="comparing an archive's layers with its configuration and its manifest",
        cuts=(
            Cut("store/oci_archive.py", "if layer.source_digest != descriptor.digest:", "if False:"),
            Cut("store/oci_archive.py", "if layer.layer.diff_id != diff_id:", "if False:"),
            Cut("store/images.py", "if layer.diff_id != diff_id:", "if False:"),
        ),
        tests=system("images_archives", "a_bad_docker_archive_is_refused_and_leaves_nothing",
            "a_bad_oci_archive_is_refused_and_leaves_nothing"),
    ),
    Defence(
        attack="a manifest that is two things",
        without="refusing a manifest with another media type, or with both layers and manifests",
        cuts=(
            Cut("registry/remote.py", "if own in known and told in known and own != told:", "if False:"),
            Cut("model/image.py", 'if "manifests" in fields.rest:', "if False:"),
        ),
        tests=system("registry_lies", "what_is_no_manifest_is_refused"),
    ),
    Defence(
        attack="credentials sent elsewhere",
        without="taking the account away where a redirect leads elsewhere",
        cuts=(Cut("registry/client.py", 'if name.lower() not in {"authorization", "cookie"}}', "}"),),
        tests=system("registry_accounts", "an_account_does_not_follow_a_redirect_to_another_port"),
    ),
    Defence(
        attack="credentials sent elsewhere",
        without="asking whose the challenge is",
        cuts=(Cut("registry/client.py", "if _origin(answered) != _origin(endpoint.url):", "if False:"),),
        tests=system("registry_accounts", "who_is_redirected_to_cannot_ask_for_the_account"),
    ),
    Defence(
        attack="credentials sent elsewhere",
        without="asking whose the address of an upload is",
        cuts=(Cut("registry/client.py", "is_own = _origin(url) == _origin(endpoint.url)", "is_own = True"),),
        tests=system("registry_accounts", "an_upload_elsewhere_has_no_account"),
    ),
    Defence(
        attack="credentials sent elsewhere",
        without="asking for TLS where an account is sent to",
        cuts=(
            Cut("registry/auth.py",
                'if parts.scheme == "http" and not is_loopback(parts.hostname) and not (is_own and self._is_insecure):',
                "if False:"),
        ),
        tests=system("registry_accounts", "an_account_is_not_sent_to_a_realm_without_tls"),
    ),
    Defence(
        attack="credentials sent elsewhere",
        without="coming as nobody to a foreign layer's address",
        cuts=(Cut("registry/remote.py", "                _without_accounts(self._access),\n", "                self._access,\n"),),
        tests=system("registry_lies", "a_foreign_layer_comes_from_its_own_address_without_an_account"),
    ),
    Defence(
        attack="newlines, escapes and templates",
        without="a pattern for names",
        cuts=(Cut("model/container.py", "if not re.fullmatch(NAME_PATTERN, name):", "if False:"),),
        tests=unit("container_model", "names_are_dockers"),
    ),
    Defence(
        attack="newlines, escapes and templates",
        without="records of a log",
        cuts=(
            Cut("runtime/logs.py", "out.append(_record(data[start : end + 1], kind, stamp))",
                "out.append(data[start : end + 1])"),
        ),
        tests=unit("logs", "a_line_is_one_record_and_a_part_of_one_waits_for_its_end"),
        fails_with="JSONDecodeError",
    ),
    Defence(
        attack="newlines, escapes and templates",
        without="writing control characters otherwise",
        cuts=(
            Cut("cli/output.py", "    if text.isascii() and text.isprintable():\n", "    if True:\n"),
            Cut("cli/template.py", "range can't iterate over {show(value)}", "range can't iterate over {value}"),
            Cut("cli/template.py", 'raise TemplateError(one_line(f"template parsing error: {at}: {what}")) from None',
                'raise TemplateError(f"template parsing error: {at}: {what}") from None'),
        ),
        tests=system("cli_containers", "what_an_image_or_a_user_wrote_cannot_drive_the_terminal")
        + unit("template", "a_message_is_one_line_whatever_the_data_holds"),
    ),
    # Resources
    Defence(
        attack="a fork bomb",
        without="a limit as it was asked for: ten times as many may be, as a bomb without any would be one on this machine",
        cuts=(Cut("runtime/limits.py", "else str(limits.pids))", "else str(10 * limits.pids))"),),
        tests=system("limits", "a_fork_bomb_is_held_and_removed_while_the_machine_stays_usable"),
    ),
    Defence(
        attack="a memory hog",
        without="limits",
        cuts=(Cut("runtime/cgroups.py", "            apply(cgroup, limits)\n", ""),),
        tests=system("limits", "a_hog_is_killed_for_want_of_memory_and_that_is_told"),
    ),
    Defence(
        attack="a hog of descriptors",
        without="limits",
        cuts=(UNLIMITED,),
        tests=system("isolation", "what_one_container_is_born_with"),
    ),
    Defence(
        attack="a hog of descriptors",
        without="limits",
        cuts=(UNLIMITED,),
        tests=system("hogs", "a_hog_of_descriptors_stops_at_its_limit_and_is_entered_and_removed"),
    ),
    Defence(
        attack="a flood of output",
        without="rotation",
        cuts=(Cut("runtime/logs.py", "if self._size >= self._file_bytes:", "if False:"),),
        tests=system("hogs", "a_flood_of_output_keeps_to_the_logs_size_and_its_monitor_small")
        + system("logs_rotation", "a_rotated_log_is_followed_without_losing_or_repeating_a_line_and_read_over_its_files"),
    ),
    Defence(
        attack="a flood of output",
        without="letting go of what was written",
        cuts=(
            Cut("runtime/logs.py",
                "    def _append(self, records: list[bytes]) -> None:\n",
                "    def _append(self, records: list[bytes]) -> None:\n"
                "        vars(self).setdefault('kept', []).extend(records)\n"),
        ),
        tests=system("soak", "a_monitor_grows_neither_with_execs_nor_with_its_log"),
    ),
    Defence(
        attack="be quicker than the limits",
        without="limits",
        cuts=(Cut("runtime/cgroups.py", "            apply(cgroup, limits)\n", ""),),
        tests=system("limits", "all_that_was_asked_is_written_before_the_first_instruction_and_shown_by_inspect"),
    ),
    Defence(
        attack="be quicker than the limits",
        without="entering the cgroup",
        cuts=(Cut("runtime/cgroup_steps.py", '            cgroup.write(entrance, "0")\n', "            pass\n"),),
        tests=system("cgroups", "the_first_process_and_those_of_exec_are_in_the_containers_cgroup_and_the_monitor_is_not"),
    ),
)  # fmt: skip

KEPT = dict.fromkeys(
    system("apparmor", "a_profile_holds_a_container_and_every_command_in_it",
        "the_default_profile_holds_who_asks_for_none", "the_default_profile_denies_what_options_have_opened",
        "an_unconfined_and_a_privileged_container_have_no_profile_and_that_is_told",
        "the_default_profile_is_loaded_by_the_first_start_that_does_not_find_it", "a_profile_that_is_not_loaded_is_one_clear_error")
    + system("selinux", "a_label_is_for_those_who_ask_unless_the_settings_say_otherwise",
        "a_labelled_container_works_and_all_in_it_has_its_label", "a_builds_commands_have_a_label",
        "every_part_of_a_label_can_be_said",
        "volumes_are_one_containers_or_everybodys_as_z_says", "a_label_that_the_policy_does_not_know_is_one_clear_error"),
    "it needs Debian's kernel with AppArmor or SELinux, in a virtual machine (`make vm-test`)",
)  # fmt: skip
"""Tests whose defence isn't taken out, and why."""
