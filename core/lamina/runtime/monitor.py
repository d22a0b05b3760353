"""The monitor: the small process that stays while a container runs.

It forks the container's first process, waits for the creator's word to let it go, relays standard streams between the container,
its log and any attached clients, reaps it, and leaves its exit code in a file. It holds no database and no lock: who comes next
(the creator that still waits, or the program named in `finish_command`) takes the mounts down and records the end.

A client that reads slowly slows the container down, as a pipe would; nothing that was written is lost or kept without bound.
"""

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lamina.linux import libc, namespace, process
from lamina.runtime import frames, init
from lamina.runtime.logs import LogWriter
from lamina.runtime.steps import Step

if TYPE_CHECKING:
    from lamina.runtime.probes import ProbePlan, Probes

CHUNK_BYTES = 1 << 16
CLIENT_BUFFER_BYTES = 1 << 20


class MonitorPlan:
    """What the monitor needs to know; everything else is in the steps."""

    def __init__(
        self,
        *,
        steps: Sequence[Step],
        tty: bool,
        open_stdin: bool,
        log_path: str = "",
        log_file_bytes: int = 0,
        log_files: int = 1,
        exit_path: str = "",
        socket_path: str = "",
        terminal_size: tuple[int, int] = (0, 0),
        probe: "ProbePlan | None" = None,
        on_exit: Callable[[int], None] | None = None,
        finish_command: Sequence[str] = (),
        pid_namespace: str = "",
        ends_with_creator: bool = False,
        forks_again: bool = False,
    ) -> None:
        self.steps = steps
        self.tty = tty
        self.open_stdin = open_stdin
        self.log_path = log_path
        """"" for no log."""
        self.log_file_bytes = log_file_bytes
        """How large one file of it may grow, 0 for without limit; then there are up to `log_files`."""
        self.log_files = log_files
        self.exit_path = exit_path
        self.socket_path = socket_path
        self.terminal_size = terminal_size
        self.probe = probe
        """What checks the container's health, and when."""
        self.on_exit = on_exit
        """Called with the exit code, in the monitor."""
        self.finish_command = finish_command
        self.pid_namespace = pid_namespace
        """The PID namespace to enter; "" for a new one."""
        self.ends_with_creator = ends_with_creator
        """Kill the container when the creator closes the channel, or dies: a build's command has nobody else."""
        self.forks_again = forks_again
        """Whether the steps fork once more, so that the first process is a child of the child."""


def run(plan: MonitorPlan, channel_fd: int) -> None:
    """Be the monitor of one container; never returns. `channel_fd` is the creator's end of the conversation."""
    code = 1
    finish = False
    try:
        if libc.listener is not None:
            libc.listener.enters("monitor")
        os.setsid()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        os.chdir("/")
        null_fd = os.open("/dev/null", os.O_RDWR)
        for standard_fd in (0, 1, 2):
            os.dup2(null_fd, standard_fd)
        process.close_descriptors(frozenset({0, 1, 2, channel_fd}))
        monitor = _Monitor(plan, socket.socket(fileno=channel_fd))
        if monitor.start():
            monitor.relay()
            finish = not monitor.creator_waits
        code = 0
    except BaseException as error:  # noqa: BLE001 - the last resort: say what happened where somebody may look
        try:
            with open((plan.exit_path or "/nowhere") + ".monitor-error", "w", encoding="utf-8") as file:
                file.write(f"{type(error).__name__}: {error}\n")
        except OSError:
            pass
    if finish and plan.finish_command:
        try:
            os.execv(plan.finish_command[0], list(plan.finish_command))
        except OSError:
            pass  # the next command finds the exit file and finishes
    os._exit(code)


class _Client:
    """One attached client: what it still has to be sent, and what it has sent so far."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.parser = frames.Parser()
        self.outgoing = bytearray()
        connection.setblocking(False)


class _Monitor:
    def __init__(self, plan: MonitorPlan, channel: socket.socket) -> None:
        self.plan = plan
        self.creator = _Client(channel)
        self.clients: list[_Client] = [self.creator]
        self.pid = 0
        self.stdin_fd = -1
        self.outputs: dict[int, int] = {}
        self.log: LogWriter | None = None
        if plan.log_path:
            self.log = LogWriter(plan.log_path, file_bytes=plan.log_file_bytes, files=plan.log_files)
        self.probes: Probes | None = None
        self.creator_waits = False
        self.listening: socket.socket | None = None
        self.stdin_ends = False
        self.pending_stdin = bytearray()
        self.reported = b""

    # Starting

    def start(self) -> bool:
        """Fork the child and see it through to its execve; False if it did not come to that, the creator then knows why."""
        plan = self.plan
        stdin_pair = os.pipe() if plan.open_stdin and not plan.tty else None
        stdout_pair, stderr_pair = (None, None) if plan.tty else (os.pipe(), os.pipe())
        console = socket.socketpair() if plan.tty else None
        report_read, report_write = os.pipe()
        go_read, go_write = os.pipe()
        if plan.forks_again:
            process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
        own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
        if plan.pid_namespace:
            with open(plan.pid_namespace, "rb") as entered:
                namespace.setns(entered.fileno(), namespace.CLONE_NEWPID)
        else:
            namespace.unshare(namespace.CLONE_NEWPID)
        process.prctl(
            process.PR_SET_DUMPABLE, 0
        )  # for the child: its /proc/PID/exe is our interpreter until execve (CVE-2019-5736)
        self.pid = os.fork()
        if self.pid == 0:
            stdio = (
                stdin_pair[0] if stdin_pair else 0,
                stdout_pair[1] if stdout_pair else 1,
                stderr_pair[1] if stderr_pair else 2,
            )
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)
            init.run(
                plan.steps,
                stdio=stdio,
                report_fd=report_write,
                go_fd=go_read,
                console_fd=console[1].fileno() if console else -1,
                terminal_size=plan.terminal_size,
            )
        namespace.setns(own_pid_namespace, namespace.CLONE_NEWPID)  # for children to come; the container's is not ours to fill
        for fd in (own_pid_namespace, report_write, go_read, *(pair[1] for pair in (stdout_pair, stderr_pair) if pair)):
            os.close(fd)
        if stdin_pair:
            os.close(stdin_pair[0])
            self.stdin_fd = stdin_pair[1]
            os.set_blocking(self.stdin_fd, False)
        if stdout_pair and stderr_pair:
            self.outputs = {stdout_pair[0]: frames.STDOUT, stderr_pair[0]: frames.STDERR}
        if console:
            console[1].close()
            if not self._receive_terminal(console[0]):
                return self._failed(report_read)
        kind, *words = self._report(report_read)
        if kind != b"ready":
            return self._failed(report_read, [kind, *words])
        self.listening = self._listen() if plan.socket_path else None
        self._send_now(frames.READY, b"\0".join([str(self.pid).encode(), *words]))
        if not self._creator_says_go():
            os.close(go_write)
            os.waitpid(self.pid, 0)
            os._exit(0)
        os.write(go_write, b"g")
        os.close(go_write)
        error = self._report(report_read)
        if error[0]:
            return self._failed(report_read, error)
        os.close(report_read)
        self._send_now(frames.STARTED)
        return True

    def _receive_terminal(self, channel: socket.socket) -> bool:
        from lamina.linux import terminal

        master = terminal.receive_descriptor(channel.fileno())
        channel.close()
        if master is None:
            return False
        self.stdin_fd = master
        self.outputs = {master: frames.STDOUT}
        os.set_blocking(master, False)
        return True

    def _report(self, fd: int) -> list[bytes]:
        while b"\n" not in self.reported:
            chunk = os.read(fd, 4096)
            if not chunk:
                break
            self.reported += chunk
        line, _, self.reported = self.reported.partition(b"\n")
        words = line.split(b"\0")
        if words[0] != b"pid":
            return words
        os.waitpid(self.pid, 0)  # the child has forked again, and its child is ours now
        self.pid = int(words[1])
        return self._report(fd)

    def _failed(self, report_fd: int, words: list[bytes] | None = None) -> bool:
        words = words or self._report(report_fd)
        _, status = os.waitpid(self.pid, 0)
        if words[0] != b"error":
            words = [b"error", b"125", b"0", b"begin", f"the first process ended with status {status}".encode()]
        self._unlisten()
        self._send_now(frames.FAILED, b"\0".join(words[1:]))
        return False

    def _listen(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        directory_fd = os.open(os.path.dirname(self.plan.socket_path), os.O_PATH | os.O_DIRECTORY)
        try:  # a socket's path has at most 107 bytes; this one always fits
            name = f"/proc/self/fd/{directory_fd}/{os.path.basename(self.plan.socket_path)}"
            try:
                os.unlink(name)
            except FileNotFoundError:
                pass
            listening.bind(name)
        finally:
            os.close(directory_fd)
        listening.listen(16)
        listening.setblocking(False)
        return listening

    def _unlisten(self) -> None:
        if self.listening is not None:
            try:
                os.unlink(self.plan.socket_path)
            except OSError:
                pass

    def _send_now(self, kind: int, payload: bytes = b"") -> None:
        try:
            self.creator.connection.setblocking(True)
            self.creator.connection.sendall(frames.pack(kind, payload))
        except OSError:
            pass  # the creator is gone; what follows finds out
        finally:
            self.creator.connection.setblocking(False)

    def _creator_says_go(self) -> bool:
        connection = self.creator.connection
        connection.setblocking(True)
        try:
            while data := connection.recv(4096):
                for kind, payload in self.creator.parser.feed(data):
                    if kind == frames.GO:
                        self.creator_waits = True
                    else:
                        self._hear(self.creator, kind, payload)
                if self.creator_waits:
                    return True
        except OSError:
            pass
        finally:
            connection.setblocking(False)
        return False

    # Running

    def relay(self) -> None:
        """Carry bytes until the container has ended and all that it wrote is delivered; then tell everybody its exit code."""
        if self.plan.probe is not None:
            from lamina.runtime.probes import Probes  # loaded already by whoever made the plan

            self.probes = Probes(self.plan.probe)
        pidfd = os.pidfd_open(self.pid)
        ended = False
        while not ended:
            ready = self._wait(pidfd)
            ended = pidfd in ready
            if self.probes is not None and not ended:
                self.probes.go_on()
            for fd in [fd for fd in self.outputs if fd in ready or ended]:
                self._read_output(fd, drain=ended)
            if ready.get(self.stdin_fd, 0) & (select.POLLOUT | select.POLLERR):
                self._write_stdin()
            if self.listening is not None and self.listening.fileno() in ready:
                self._accept(self.listening)
            for client in list(self.clients):
                events = ready.get(client.connection.fileno(), 0)
                if events & select.POLLOUT:
                    self._flush(client)
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    self._read_client(client)
        if self.probes is not None:
            self.probes.end()
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        code = code if code >= 0 else 128 - code
        if self.log:
            self.log.close()
        self._record_exit(code)
        if self.plan.on_exit is not None:
            self.plan.on_exit(code)
        self._unlisten()
        self._say_goodbye(code)

    def _wait(self, pidfd: int) -> dict[int, int]:
        """Wait until something can go on; gives the ready descriptors and their events."""
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if self.listening is not None:
            poll.register(self.listening.fileno(), select.POLLIN)
        if all(len(client.outgoing) < CLIENT_BUFFER_BYTES for client in self.clients):
            for fd in self.outputs:
                poll.register(fd, select.POLLIN)
        if self.stdin_fd >= 0 and self.pending_stdin:
            both = select.POLLIN if self.stdin_fd in self.outputs else 0
            poll.register(self.stdin_fd, select.POLLOUT | both)
        for client in self.clients:
            reads = select.POLLIN if len(self.pending_stdin) < CLIENT_BUFFER_BYTES else 0
            poll.register(client.connection.fileno(), reads | (select.POLLOUT if client.outgoing else 0))
        if self.probes is None:
            return dict(poll.poll())
        if self.probes.pid:
            poll.register(self.probes.pidfd, select.POLLIN)
        return dict(poll.poll(self.probes.timeout_ms()))

    def _read_output(self, fd: int, *, drain: bool) -> None:
        os.set_blocking(fd, False)
        while True:
            try:
                data = os.read(fd, CHUNK_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EIO:  # a terminal whose other end nobody has open any more
                    raise
                data = b""
            if not data:
                kind = self.outputs.pop(fd)
                if self.log:
                    self.log.end_of_stream(kind)
                if fd != self.stdin_fd:
                    os.close(fd)
                return
            kind = self.outputs[fd]
            if self.log:
                self.log.write(kind, data)
            frame = frames.pack(kind, data)
            for client in self.clients:
                client.outgoing += frame
                self._flush(client)
            if not drain:
                return

    def _flush(self, client: _Client) -> None:
        try:
            while client.outgoing:
                del client.outgoing[: client.connection.send(client.outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        if client in self.clients:
            self.clients.remove(client)
            client.outgoing.clear()
            client.connection.close()
            if client is self.creator:
                self.creator_waits = False
                if self.plan.ends_with_creator:
                    self._kill()

    def _kill(self) -> None:
        """Kill the first process, which isn't reaped yet and so is still the container's, with all of its process group."""
        for kill in (os.killpg, os.kill):  # the first fails while it hasn't got as far as setsid
            try:
                kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        self.clients.append(_Client(connection))

    def _read_client(self, client: _Client) -> None:
        try:
            data = client.connection.recv(CHUNK_BYTES)
            received = client.parser.feed(data)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            data, received = b"", []
        for kind, payload in received:
            self._hear(client, kind, payload)
        if not data:
            self._drop(client)

    def _hear(self, client: _Client, kind: int, payload: bytes) -> None:
        del client
        if kind == frames.STDIN and self.stdin_fd >= 0:
            if payload:
                self.pending_stdin += payload
                self._write_stdin()
            elif not self.plan.tty:
                self.stdin_ends = True
                self._write_stdin()
        elif kind == frames.RESIZE and self.plan.tty and self.stdin_fd >= 0:
            from lamina.linux import terminal

            rows, _, columns = payload.decode().partition(" ")
            terminal.set_size(self.stdin_fd, int(rows), int(columns))

    def _write_stdin(self) -> None:
        try:
            while self.pending_stdin:
                del self.pending_stdin[: os.write(self.stdin_fd, self.pending_stdin)]
        except BlockingIOError:
            return
        except OSError:  # the container has closed its standard input
            self.pending_stdin.clear()
            self.stdin_ends = not self.plan.tty
        if self.stdin_ends and not self.pending_stdin:
            os.close(self.stdin_fd)
            self.stdin_fd = -1

    # Ending

    def _record_exit(self, code: int) -> None:
        if not self.plan.exit_path:
            return
        temporary = self.plan.exit_path + ".new"
        with open(temporary, "w", encoding="ascii") as file:
            file.write(f"{code} {time.time_ns()}\n")
        os.rename(temporary, self.plan.exit_path)

    def _say_goodbye(self, code: int) -> None:
        for client in list(self.clients):
            client.outgoing += frames.pack(frames.EXIT, str(code).encode())
            client.connection.settimeout(10 if client is self.creator else 1)
            try:
                client.connection.sendall(client.outgoing)
                client.connection.shutdown(socket.SHUT_WR)
                if client is self.creator:
                    self._wait_until_heard(client)
            except OSError:
                self._drop(client)

    def _wait_until_heard(self, creator: _Client) -> None:
        """See whether the creator has taken our last word, and so settles the container, or went away just before it came.

        Who closes a Unix socket without reading what has come resets it (unix(7), ECONNRESET): that one had detached meanwhile.
        """
        try:
            while creator.connection.recv(CHUNK_BYTES):
                pass
        except TimeoutError:
            pass  # it is there, but slow: whatever it doesn't do, the next command does
