"""The plan: every step from a fresh process to the command, for one container, as a list.

Pure: values in, values out. `run --trace` prints it, tests compare it without root, and `init.py` carries it out.
The mounts are Docker's (moby: oci/defaults.go); what else confines a container is in `confinement.py`.
"""

from collections.abc import Sequence

from lamina.api.types import Attachment, NetworkNamespace
from lamina.dataclasses import dataclass
from lamina.linux import mount as lm
from lamina.model.container import ContainerConfig, merge_env
from lamina.model.mount import Mount, MountFlag
from lamina.runtime import mount_steps as ms
from lamina.runtime import process_steps as ps
from lamina.runtime import steps as st
from lamina.runtime.cgroup_steps import EnterCgroup, ShowCgroup
from lamina.runtime.confinement import MASKED_PATHS, READ_ONLY_PATHS, Confined

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SAFE = lm.MS_NOSUID | lm.MS_NODEV | lm.MS_NOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMount:
    """A user's mount, resolved: what its driver or its request says is to be seen at `target`."""

    target: str
    mount: Mount
    read_only: bool
    recursive: bool = True


def plan(
    *, root: str, config: ContainerConfig, container_id: str, attachment: Attachment, mounts: Sequence[PlannedMount],
    files: Sequence[tuple[str, str]], confined: Confined, cgroup: tuple[tuple[str, str], ...] = (),
    devices: tuple[tuple[str, int, int, int, int], ...] = (),
) -> list[st.Step]:  # fmt: skip
    """List the steps. `root` is where the union is mounted; `files` are (host path, target) of hosts, hostname and resolv.conf.

    `cgroup` are the directories of the container's cgroup as `ShowCgroup` takes them, `devices` nodes as `MakeDevices` takes them.
    """
    kinds = ["mnt", "uts", "ipc"]
    steps = _entering(cgroup)
    if attachment.namespace is NetworkNamespace.NEW:
        kinds.append("net")
    steps.append(st.LeaveNamespaces(kinds=tuple(kinds)))
    if attachment.namespace is NetworkNamespace.JOIN:
        steps.append(st.JoinNamespace(kind="net", path=attachment.path))
    elif attachment.namespace is NetworkNamespace.NEW and attachment.loopback:
        steps.append(st.LoopbackUp())
    steps += [ms.PrivateMounts(), ms.NewRoot(path=root)]
    steps += kernel_mounts(privileged=confined.is_privileged)
    if cgroup:
        steps.append(ShowCgroup(shown=cgroup, read_only=not confined.is_privileged))
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
    if not confined.has_system_paths:
        steps += [ms.MaskPaths(paths=MASKED_PATHS), ms.ReadOnlyPaths(paths=READ_ONLY_PATHS)]
    if config.read_only:
        steps.append(ms.ReadOnlyRoot())
    steps += [ms.PivotRoot(path=root), st.SetHostname(hostname=config.hostname or container_id[:12])]
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
    )
    return steps


def plan_entering(
    *, pid: int, container_id: str, config: ContainerConfig, arguments: Sequence[str], environment: Sequence[str], user: str,
    working_dir: str, tty: bool, confined: Confined, cgroup: tuple[tuple[str, str], ...] = (),
) -> list[st.Step]:  # fmt: skip
    """List the steps of a second process that enters a running container (`exec`); its PID namespace is entered by its parent."""
    steps = [*_entering(cgroup), st.JoinNamespaces(pid=pid, kinds=("mnt", "uts", "ipc", "net"))]
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
    )


def _entering(cgroup: tuple[tuple[str, str], ...]) -> list[st.Step]:
    return [EnterCgroup(directories=tuple(directory for _name, directory in cgroup))] if cgroup else []


def command_environment(config: ContainerConfig, container_id: str) -> tuple[str, ...]:
    """The environment of a container's command: the usual names, then the image's and the user's."""
    usual = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={config.hostname or container_id[:12]}"]
    return merge_env(usual, ["TERM=xterm"] if config.tty else [], config.env)


def _command(
    *, user: str, working_dir: str, makes_working_dir: bool, arguments: tuple[str, ...], environment: Sequence[str], init: bool,
    confined: Confined,
) -> list[st.Step]:  # fmt: skip
    words = list(environment)
    labels: list[st.Step] = []
    if confined.apparmor or confined.selinux:
        labels.append(ps.LabelProgram(apparmor=confined.apparmor, selinux=confined.selinux))
    return [
        ps.FindUser(user=user, environment=words),
        ps.WorkingDirectory(path=working_dir or "/", makes=makes_working_dir),
        ps.NewSessionKeyring(),
        *labels,
        ps.BecomeUser(capabilities=confined.capabilities),
        ps.FindProgram(name_of_program=arguments[0], environment=words),
        ps.LimitPrivileges(
            capabilities=confined.capabilities, seccomp=confined.seccomp, no_new_privileges=confined.no_new_privileges
        ),
        ps.Execute(arguments=arguments, environment=words, init=init),
    ]


def kernel_mounts(*, privileged: bool = False) -> list[st.Step]:
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
        ms.MountInRoot(type="tmpfs", target="/dev/shm", flags=_SAFE, options=(("mode", "1777"), ("size", "65536k"))),
        ms.MountInRoot(type="mqueue", target="/dev/mqueue", flags=_SAFE, options=()),
        ms.MountInRoot(type="sysfs", target="/sys", flags=_SAFE | (0 if privileged else lm.MS_RDONLY), options=()),
    ]  # fmt: skip


def _user_mount(planned: PlannedMount) -> st.Step:
    mount = planned.mount
    if mount.type == "bind":
        return ms.BindInRoot(
            source=mount.source, target=planned.target, read_only=planned.read_only or MountFlag.RDONLY in mount.flags,
            recursive=planned.recursive, internal=False,
        )  # fmt: skip
    flags = int(mount.flags) | (lm.MS_RDONLY if planned.read_only else 0)
    return ms.MountInRoot(type=mount.type, target=planned.target, flags=flags, options=mount.options)
