"""The monitor: the small process that stays while a container runs.

It forks the container's first process and waits for the creator's word to let it go; what it does from then on is `watch.py`. It
holds no database and no lock: who comes next (the creator that still waits, or the program named in `finish_command`) takes the
mounts down and records the end.
"""

import errno
import gc
import os
import signal
from collections.abc import Sequence

from lamina.linux import libc, namespace, process, unix_socket
from lamina.linux.unix_socket import Socket
from lamina.runtime import frames, init
from lamina.runtime.cgroup_steps import EnterCgroup
from lamina.runtime.logs import LogWriter
from lamina.runtime.steps import END_OF_REPORT, Step
from lamina.runtime.watch import Client, Watch, WatchPlan, leave_word, see_to_the_end, unlisten


class MonitorPlan:
    """What the monitor needs to know; everything else is in the steps."""

    def __init__(
        self,
        *,
        steps: Sequence[Step],
        open_stdin: bool,
        watch: WatchPlan,
        terminal_size: tuple[int, int] = (0, 0),
        pid_namespace: str = "",
        forks_again: bool = False,
    ) -> None:
        self.steps = steps
        self.open_stdin = open_stdin
        self.watch = watch
        """What follows once the command runs."""
        self.terminal_size = terminal_size
        self.pid_namespace = pid_namespace
        """The PID namespace to enter; "" for a new one."""
        self.forks_again = forks_again
        """Whether the steps fork once more, so that the first process is a child of the child."""


def run(plan: MonitorPlan, channel: Socket) -> None:
    """Be the monitor of one container; never returns. `channel` is the creator's end of the conversation."""
    try:
        if libc.listener is not None:
            libc.listener.enters("monitor")
        gc.disable()  # nothing here makes cycles, and a collection would copy each page that the creator has
        os.setsid()
        watch = _Start(plan, channel).start()
    except BaseException as error:  # noqa: BLE001 - the last resort: say what happened where somebody may look
        leave_word(plan.watch.exit_path, error)
        os._exit(1)
    if watch is not None:
        see_to_the_end(watch)
    os._exit(0)


def _leave_the_creators() -> None:
    """Let go of the creator's signals, directory and standard streams."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    null_fd = os.open("/dev/null", os.O_RDWR)
    for standard_fd in (0, 1, 2):
        os.dup2(null_fd, standard_fd)
    if null_fd > 2:
        os.close(null_fd)


class _Start:
    """The conversation between creator, monitor and the container's first process, up to its execve."""

    def __init__(self, plan: MonitorPlan, channel: Socket) -> None:
        self.plan = plan
        self.creator = Client(channel)
        self.pid = 0
        self.stdin_fd = -1
        self.outputs: dict[int, int] = {}
        self.early: list[tuple[int, bytes]] = []
        """What the creator said besides GO."""
        self.reported = b""

    def start(self) -> Watch | None:
        """Fork the child and see it through to its execve; None if it did not come to that, the creator then knows why.

        The fork comes first of all: whatever else this process has to do for itself it does beside its child.
        """
        plan = self.plan
        stdin_pair = os.pipe() if plan.open_stdin and not plan.watch.tty else None
        stdout_pair, stderr_pair = (None, None) if plan.watch.tty else (os.pipe(), os.pipe())
        console = unix_socket.pair() if plan.watch.tty else None
        report_read, report_write = os.pipe()
        go_read, go_write = os.pipe()
        if plan.forks_again:
            process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
        must_begin = bool(_slow_entrance(plan.steps[0]))
        if must_begin:  # to be born in its cgroup, which isn't there before
            self._pass_on(frames.BEGIN, go_write)
        if plan.pid_namespace:
            own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
            with open(plan.pid_namespace, "rb") as entered:
                namespace.setns(entered.fileno(), namespace.CLONE_NEWPID)
        # For the child: its /proc/PID/exe is our interpreter until execve (CVE-2019-5736).
        process.prctl(process.PR_SET_DUMPABLE, 0)
        self.pid, is_born_inside = _fork(plan.steps[0], 0 if plan.pid_namespace else namespace.CLONE_NEWPID)
        if self.pid == 0:
            stdio = (
                stdin_pair[0] if stdin_pair else -1,
                stdout_pair[1] if stdout_pair else -1,
                stderr_pair[1] if stderr_pair else -1,
            )
            init.run(
                plan.steps,
                stdio=stdio,
                report_fd=report_write,
                go_fd=go_read,
                console_fd=console[1].fileno() if console else -1,
                terminal_size=plan.terminal_size,
                is_born_inside=is_born_inside,
            )
        if plan.pid_namespace:  # for children to come; the container's is not ours to fill
            namespace.setns(own_pid_namespace, namespace.CLONE_NEWPID)
        for fd in (report_write, go_read, *(pair[1] for pair in (stdout_pair, stderr_pair) if pair)):
            os.close(fd)
        if stdin_pair:
            os.close(stdin_pair[0])
            self.stdin_fd = stdin_pair[1]
            os.set_blocking(self.stdin_fd, False)
        if stdout_pair and stderr_pair:
            self.outputs = {stdout_pair[0]: frames.STDOUT, stderr_pair[0]: frames.STDERR}
        if console:
            console[1].close()
        kept = {0, 1, 2, self.creator.connection.fileno(), go_write, report_read, self.stdin_fd, *self.outputs}
        process.close_descriptors(frozenset(kept | {console[0].fileno()} if console else kept))
        if not must_begin:
            self._pass_on(frames.BEGIN, go_write)
        _leave_the_creators()
        listening = unix_socket.listen(plan.watch.socket_path) if plan.watch.socket_path else None
        if console and not self._receive_terminal(console[0]):
            self._fail(report_read)
            return None
        kind, *words = self._report(report_read)
        if kind != b"ready":
            self._fail(report_read, [kind, *words])
            return None
        self._send_now(frames.READY, b"\0".join([str(self.pid).encode(), *words]))
        self._pass_on(frames.GO, go_write)
        os.close(go_write)
        error = self._report(report_read)
        if error[0]:
            self._fail(report_read, error)
            return None
        os.close(report_read)
        self._send_now(frames.STARTED)
        return self._watch(listening)

    def _watch(self, listening: Socket | None) -> Watch:
        plan = self.plan.watch
        watch = Watch(
            plan, pid=self.pid, creator=self.creator, clients=[self.creator], listening=listening, stdin_fd=self.stdin_fd,
            outputs=self.outputs, creator_waits=True,
            log=LogWriter(plan.log_path, file_bytes=plan.log_file_bytes, files=plan.log_files) if plan.log_path else None,
        )  # fmt: skip
        if libc.listener is not None:
            watch.slim_at_s = None  # a trace goes on in this program
        for kind, payload in self.early:
            watch.hear(kind, payload)
        return watch

    def _receive_terminal(self, channel: Socket) -> bool:
        master = unix_socket.receive_descriptor(channel)
        channel.close()
        if master is None:
            return False
        self.stdin_fd = master
        self.outputs = {master: frames.STDOUT}
        os.set_blocking(master, False)
        return True

    def _report(self, fd: int) -> list[bytes]:
        while END_OF_REPORT not in self.reported:
            chunk = os.read(fd, 4096)
            if not chunk:
                break
            self.reported += chunk
        line, _, self.reported = self.reported.partition(END_OF_REPORT)
        words = line.split(b"\0")
        if words[0] != b"pid":
            return words
        os.waitpid(self.pid, 0)  # the child has forked again, and its child is ours now
        self.pid = int(words[1])
        return self._report(fd)

    def _fail(self, report_fd: int, words: list[bytes] | None = None) -> None:
        words = words or self._report(report_fd)
        _, status = os.waitpid(self.pid, 0)
        if words[0] != b"error":
            words = [b"error", b"125", b"0", b"begin", f"the first process ended with status {status}".encode()]
        unlisten(self.plan.watch.socket_path)
        self._send_now(frames.FAILED, b"\0".join(words[1:]))

    def _send_now(self, kind: int, payload: bytes = b"") -> None:
        try:
            self.creator.connection.setblocking(True)
            self.creator.connection.sendall(frames.pack(kind, payload))
        except OSError:
            pass  # the creator is gone; what follows finds out
        finally:
            self.creator.connection.setblocking(False)

    def _pass_on(self, wanted: int, go_fd: int) -> None:
        """Wait for the creator's word and let the child go on by a byte; a creator that is gone ends both of us."""
        if not self._creator_says(wanted):
            os.close(go_fd)
            if self.pid:
                os.waitpid(self.pid, 0)
            os._exit(0)
        try:
            os.write(go_fd, b"g")
        except BrokenPipeError:
            pass  # it has ended, and why is in its report

    def _creator_says(self, wanted: int) -> bool:
        connection = self.creator.connection
        connection.setblocking(True)
        try:
            while data := connection.recv(4096):
                said = self.creator.parser.feed(data)
                self.early += [each for each in said if each[0] != wanted]
                if any(kind == wanted for kind, _ in said):
                    return True
        except OSError:
            pass
        finally:
            connection.setblocking(False)
        return False


def _fork(first: Step, kinds: int) -> tuple[int, bool]:
    """Fork into new namespaces; gives the pid, and whether the child is born in its cgroup of version 2.

    If it isn't, it enters that in its first step.
    """
    if entrance := _slow_entrance(first):
        cgroup_fd = os.open(os.path.dirname(entrance), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return process.fork_into(kinds, cgroup_fd=cgroup_fd), True
        except OSError:
            pass  # a sandbox that hides clone3, or a cgroup that has as many processes as it may: entering is allowed then
        finally:
            os.close(cgroup_fd)
    try:
        return process.fork_into(kinds), False
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    with open("/proc/self/ns/pid", "rb") as own:
        if kinds:
            namespace.unshare(kinds)
        pid = os.fork()
        if pid:
            namespace.setns(own.fileno(), namespace.CLONE_NEWPID)  # for children to come; the container's is not ours to fill
    return pid, False


def _slow_entrance(first: Step) -> str:
    return first.slow_entrance if isinstance(first, EnterCgroup) else ""
