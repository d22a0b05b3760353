"""The plan: every step from a fresh process to the command, for one container, as a list.

Pure: values in, values out. `run --trace` prints it, tests compare it without root, and `init.py` carries it out.
The mounts are Docker's (moby: oci/defaults.go); what else confines a container is in `confinement.py`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lamina.api.types import Attachment, NetworkNamespace
from lamina.dataclasses import dataclass
from lamina.linux import mount as lm
from lamina.model.container import SHM_BYTES, ContainerConfig, merge_env
from lamina.model.mount import Mount, MountFlag
from lamina.runtime import mount_steps as ms
from lamina.runtime import process_steps as ps
from lamina.runtime import steps as st
from lamina.runtime.cgroup_steps import EnterCgroup, PlannedCgroup, ShowCgroup
from lamina.runtime.confinement import MASKED_PATHS, READ_ONLY_PATHS, Confined

if TYPE_CHECKING:
    from lamina.model.isolation import Isolation

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

EVERY_GROUP, EVERY_OWN_GROUP = "0 2147483647", "0 65535"
"""A range with each group that there is: on the host, and in a user namespace of one's own."""

_SAFE = lm.MS_NOSUID | lm.MS_NODEV | lm.MS_NOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMount:
    """A user's mount, resolved: what its driver or its request says is to be seen at `target`."""

    target: str
    mount: Mount
    read_only: bool
    recursive: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Spaces:
    """What a container's isolation comes to on this host just now."""

    ipc_pid: int = 0
    """The process whose IPC namespace and /dev/shm are joined; 0 for none."""
    first_id: int = 0
    """The host's id of the container's root, if it has a user namespace of its own; else 0."""
    root_is_mapped: bool = False
    """Whether the union shows the container's ids as it is mounted."""


USUAL = Spaces()


def plan(
    *, root: str, config: ContainerConfig, container_id: str, attachment: Attachment, mounts: Sequence[PlannedMount],
    files: Sequence[tuple[str, str]], confined: Confined, cgroup: Sequence[PlannedCgroup] = (),
    devices: tuple[tuple[str, int, int, int, int], ...] = (), spaces: Spaces = USUAL,
) -> list[st.Step]:  # fmt: skip
    """List the steps. `root` is where the union is mounted; `files` are (host path, target) of hosts, hostname and resolv.conf.

    `cgroup` is the container's in each hierarchy, `devices` nodes as `MakeDevices` takes them.
    """
    asked = config.isolation
    kinds = ["mnt", "uts", "ipc", "cgroup"]
    steps = _entering(cgroup)
    if asked is not None:
        steps += _born_with(asked, spaces)
        kinds = [kind for kind in kinds if kind not in _shared(asked)]
    if attachment.namespace is NetworkNamespace.NEW:
        kinds.append("net")
    steps.append(st.LeaveNamespaces(kinds=tuple(kinds)))
    if attachment.namespace is NetworkNamespace.JOIN:
        steps.append(st.JoinNamespace(kind="net", path=attachment.path))
    elif attachment.namespace is NetworkNamespace.NEW and attachment.loopback:
        steps.append(st.LoopbackUp())
    if attachment.namespace is NetworkNamespace.NEW:
        # Docker's: every user may listen on any port, and ping without a capability.
        groups = EVERY_OWN_GROUP if spaces.first_id else EVERY_GROUP
        values = (("net/ipv4/ip_unprivileged_port_start", "0"), ("net/ipv4/ping_group_range", groups))
        steps.append(st.WriteSysctls(values=values, required=False))
    if asked is not None and asked.sysctls:
        steps.append(st.WriteSysctls(values=tuple(asked.sysctls.items()), required=True))
    steps += [ms.PrivateMounts(), ms.NewRoot(path=root)]
    steps += _kernel_mounts(asked, privileged=confined.is_privileged)
    if cgroup:
        steps.append(ShowCgroup(shown=tuple((each.name, each.directory) for each in cgroup), read_only=not confined.is_privileged))
    if devices:
        from lamina.runtime.device_steps import MakeDevices

        steps.append(MakeDevices(nodes=devices))
    taken = {mount.target for mount in mounts}
    steps += [
        ms.BindInRoot(source=source, target=target, read_only=config.read_only, recursive=False, internal=True)
        for source, target in files
        if target not in taken
    ]
    steps += [_user_mount(mount) for mount in sorted(mounts, key=lambda mount: mount.target.count("/"))]
    if confined.file_label:
        steps = [_labelled(step, confined.file_label) for step in steps]
    if not confined.has_system_paths:
        steps += [ms.MaskPaths(paths=MASKED_PATHS), ms.ReadOnlyPaths(paths=READ_ONLY_PATHS)]
    if config.read_only:
        steps.append(ms.ReadOnlyRoot())
    steps.append(ms.PivotRoot(path=root))
    if "uts" in kinds:
        steps.append(st.SetHostname(hostname=config.hostname or container_id[:12]))
    if config.tty:
        steps.append(ps.OpenTerminal(console=True))
    steps += _command(
        user=config.user,
        working_dir=config.working_dir,
        arguments=config.arguments,
        makes_working_dir=True,
        init=config.init,
        environment=command_environment(config, container_id),
        confined=confined,
        asked=asked,
    )
    if not spaces.first_id:
        return steps
    from lamina.runtime.isolation_steps import with_own_users

    return with_own_users(steps, first_id=spaces.first_id, root_is_mapped=spaces.root_is_mapped)


def plan_entering(
    *, pid: int, container_id: str, config: ContainerConfig, arguments: Sequence[str], environment: Sequence[str], user: str,
    working_dir: str, tty: bool, confined: Confined, cgroup: Sequence[PlannedCgroup] = (),
) -> list[st.Step]:  # fmt: skip
    """List the steps of a second process that enters a running container (`exec`); its PID namespace is entered by its parent."""
    asked = config.isolation
    users = ("user",) if asked is not None and asked.has_own_users else ()
    steps = _entering(cgroup)
    if asked is not None:
        steps += _born_with(asked)
    steps.append(st.JoinNamespaces(pid=pid, kinds=("mnt", "uts", "ipc", "cgroup", "net", *users)))
    if tty:
        steps.append(ps.OpenTerminal(console=False))
    merged = merge_env(command_environment(config, container_id), ["TERM=xterm"] if tty else [], list(environment))
    return steps + _command(
        user=user or config.user,
        working_dir=working_dir or config.working_dir,
        arguments=tuple(arguments),
        makes_working_dir=False,
        init=False,
        environment=merged,
        confined=confined,
        asked=asked,
    )


def _entering(cgroup: Sequence[PlannedCgroup]) -> list[st.Step]:
    return [EnterCgroup(entrances=tuple(each.entrance for each in cgroup))] if cgroup else []


def command_environment(config: ContainerConfig, container_id: str) -> tuple[str, ...]:
    """The environment of a container's command: the usual names, then the image's and the user's."""
    usual = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={config.hostname or container_id[:12]}"]
    return merge_env(usual, ["TERM=xterm"] if config.tty else [], config.env)


def _command(
    *, user: str, working_dir: str, makes_working_dir: bool, arguments: tuple[str, ...], environment: Sequence[str], init: bool,
    confined: Confined, asked: "Isolation | None",
) -> list[st.Step]:  # fmt: skip
    words = list(environment)
    labels: list[st.Step] = []
    if confined.apparmor or confined.selinux:
        labels.append(ps.LabelProgram(apparmor=confined.apparmor, selinux=confined.selinux))
    limits: list[st.Step] = []
    if asked is not None and asked.ulimits:
        from lamina.runtime.isolation_steps import LimitResources

        limits.append(LimitResources(limits=asked.ulimits))
    return [
        ps.FindUser(user=user, groups=asked.groups if asked is not None else (), environment=words),
        ps.WorkingDirectory(path=working_dir or "/", makes=makes_working_dir),
        *labels,
        ps.NewSessionKeyring(),
        ps.BecomeUser(capabilities=confined.capabilities),
        ps.FindProgram(name_of_program=arguments[0], environment=words),
        *limits,
        ps.LimitPrivileges(
            capabilities=confined.capabilities, seccomp=confined.seccomp, no_new_privileges=confined.no_new_privileges
        ),
        ps.Execute(arguments=arguments, environment=words, init=init),
    ]


def kernel_mounts(*, privileged: bool = False, shm_bytes: int = SHM_BYTES) -> list[st.Step]:
    """The mounts that every container has, Docker's set; a privileged one may write to /sys."""
    return [
        ms.MountInRoot(type="proc", target="/proc", flags=_SAFE, options=()),
        ms.MountInRoot(
            type="tmpfs", target="/dev", flags=lm.MS_NOSUID | lm.MS_STRICTATIME, options=(("mode", "755"), ("size", "65536k"))
        ),
        ms.FillDev(),
        ms.MountInRoot(
            type="devpts", target="/dev/pts", flags=lm.MS_NOSUID | lm.MS_NOEXEC,
            options=(("newinstance", None), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")),
        ),
        ms.MountInRoot(type="tmpfs", target="/dev/shm", flags=_SAFE, options=(("mode", "1777"), ("size", str(shm_bytes)))),
        ms.MountInRoot(type="mqueue", target="/dev/mqueue", flags=_SAFE, options=()),
        ms.MountInRoot(type="sysfs", target="/sys", flags=_SAFE | (0 if privileged else lm.MS_RDONLY), options=()),
    ]  # fmt: skip


def _born_with(asked: "Isolation", spaces: Spaces = USUAL) -> list[st.Step]:
    """What is done while all is the host's still: limits are raised, and what another container shares is taken hold of."""
    from lamina.runtime import isolation_steps as its  # only for those who ask

    steps: list[st.Step] = []
    if asked.oom_score_adj is not None:
        steps.append(its.AdjustOomScore(value=asked.oom_score_adj))
    if asked.ulimits:
        steps.append(its.RaiseLimits(limits=asked.ulimits))
    if spaces.ipc_pid:
        steps += [its.HoldSharedMemory(pid=spaces.ipc_pid), st.JoinNamespace(kind="ipc", path=f"/proc/{spaces.ipc_pid}/ns/ipc")]
    return steps


def _shared(asked: "Isolation") -> set[str]:
    """The kinds of namespaces that aren't left for new ones."""
    modes = {"uts": asked.uts, "ipc": asked.ipc, "cgroup": asked.cgroup_namespace}
    return {kind for kind, mode in modes.items() if mode == "host" or mode.startswith("container:")}


def _kernel_mounts(asked: "Isolation | None", *, privileged: bool) -> list[st.Step]:
    """The kernel's mounts with the /dev/shm that was asked for: of another size, none, the host's, or another container's."""
    if asked is None:
        return kernel_mounts(privileged=privileged)
    found = kernel_mounts(privileged=privileged, shm_bytes=asked.shm_bytes or SHM_BYTES)
    if asked.ipc in {"", "private", "shareable"}:
        return found
    at = next(index for index, step in enumerate(found) if isinstance(step, ms.MountInRoot) and step.target == "/dev/shm")
    there = ms.BindInRoot(source="/dev/shm", target="/dev/shm", read_only=False, recursive=False, internal=True)
    found[at : at + 1] = [] if asked.ipc == "none" else [there]
    return found


def _labelled(step: st.Step, label: str) -> st.Step:
    """Give the files of a file system that is the container's own its label; the kernel's own ones have theirs by the policy."""
    if not (isinstance(step, ms.MountInRoot) and step.type in {"tmpfs", "devpts"}):
        return step
    return ms.MountInRoot(type=step.type, target=step.target, flags=step.flags, options=(*step.options, ("context", label)))


def _user_mount(planned: PlannedMount) -> st.Step:
    mount = planned.mount
    if mount.type == "bind":
        return ms.BindInRoot(
            source=mount.source, target=planned.target, read_only=planned.read_only or MountFlag.RDONLY in mount.flags,
            recursive=planned.recursive, internal=False,
        )  # fmt: skip
    flags = int(mount.flags) | (lm.MS_RDONLY if planned.read_only else 0)
    return ms.MountInRoot(type=mount.type, target=planned.target, flags=flags, options=mount.options)
