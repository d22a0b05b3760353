"""What a monitor does while its container runs: relay, log, check its health, reap it, leave its exit code in a file.

A monitor is forked by the command that starts the container, and so it is as large as that. When the container has run for five
seconds it executes the interpreter anew with this module alone, a quarter of the memory: the same process and descriptors, the
state handed over as JSON. So nothing may be imported here but sockets, frames, logs, probes and few of the standard library's
(`typing` is a seventh).

A client that reads slowly slows the container down, as a pipe would; nothing that was written is lost or kept without bound.
"""

import errno
import gc
import os
import select
import signal
import sys
import time
from collections.abc import Sequence

from lamina import json
from lamina.linux import unix_socket
from lamina.linux.unix_socket import Socket
from lamina.runtime import frames
from lamina.runtime.logs import LogWriter
from lamina.runtime.probes import ProbePlan, Probes

CHUNK_BYTES = 1 << 16
CLIENT_BUFFER_BYTES = 1 << 20
SLIM_AFTER_S = 5.0
"""A container that ends sooner pays nothing for it, nor do others that start meanwhile: it takes a fourth of a start's time."""


class EndEvent:
    """The event that is written down when the container has ended, but for what is known only then (`store/events.py`)."""

    def __init__(
        self, *, path: str, action: str, actor: str, attributes: dict[str, str], begun_ns: int = 0, oom_path: str = ""
    ) -> None:
        self.path = path
        self.action = action
        self.actor = actor
        self.attributes = attributes
        self.begun_ns = begun_ns
        """Since when `execDuration` counts; 0 for an event without it."""
        self.oom_path = oom_path
        """The file in which the cgroup counts who was killed for want of memory; an event `oom` comes first if there are some."""

    def write(self, code: int) -> None:
        """Append it; a full disk loses it."""
        now_ns = time.time_ns()
        duration = {"execDuration": str((now_ns - self.begun_ns) // 10**9)} if self.begun_ns else {}
        events = [(self.action, {**self.attributes, **duration, "exitCode": str(code)})]
        if self._oom_kills():
            events.insert(0, ("oom", self.attributes))
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            for action, attributes in events:
                event = {"time": now_ns, "type": "container", "action": action, "id": self.actor, "attributes": attributes}
                os.write(fd, json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n")
            os.close(fd)
        except OSError:
            pass

    def _oom_kills(self) -> bool:
        try:
            fd = os.open(self.oom_path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                lines = os.read(fd, 4096).splitlines()
            finally:
                os.close(fd)
        except OSError:  # the cgroup has gone, perhaps between the two
            return False
        return any(line.startswith(b"oom_kill ") and line.split()[1] != b"0" for line in lines)


class WatchPlan:
    """What is to be done while the container runs and when it has ended."""

    def __init__(
        self, *, tty: bool, title: str = "", log_path: str = "", log_file_bytes: int = 0, log_files: int = 1, exit_path: str = "",
        socket_path: str = "", probe: ProbePlan | None = None, end_event: EndEvent | None = None,
        finish_command: Sequence[str] = (), ends_with_creator: bool = False,
    ) -> None:  # fmt: skip
        self.tty = tty
        self.title = title
        """What a list of processes shows the monitor by: the container's id."""
        self.log_path = log_path
        """"" for no log."""
        self.log_file_bytes = log_file_bytes
        """How large one file of it may grow, 0 for without limit; then there are up to `log_files`."""
        self.log_files = log_files
        self.exit_path = exit_path
        self.socket_path = socket_path
        self.probe = probe
        """What checks the container's health, and when."""
        self.end_event = end_event
        self.finish_command = finish_command
        self.ends_with_creator = ends_with_creator
        """Kill the container when the creator closes the channel, or dies: a build's command has nobody else."""


class Client:
    """One attached client: what it still has to be sent, and what it has sent so far."""

    def __init__(self, connection: Socket) -> None:
        self.connection = connection
        self.parser = frames.Parser()
        self.outgoing = bytearray()
        connection.setblocking(False)


class Watch:
    """One running container, watched."""

    def __init__(
        self, plan: WatchPlan, *, pid: int, creator: Client | None, clients: list[Client], listening: Socket | None,
        stdin_fd: int, outputs: dict[int, int], log: LogWriter | None, creator_waits: bool,
    ) -> None:  # fmt: skip
        self.plan = plan
        self.pid = pid
        self.creator = creator
        self.clients = clients
        self.listening = listening
        self.stdin_fd = stdin_fd
        self.outputs = outputs
        self.log = log
        self.creator_waits = creator_waits
        self.stdin_ends = False
        self.pending_stdin = bytearray()
        self.probes = Probes(plan.probe) if plan.probe is not None else None
        self.slim_at_s: float | None = None if plan.ends_with_creator else time.monotonic() + SLIM_AFTER_S

    def to_the_end(self) -> None:
        """Carry bytes until the container has ended and all that it wrote is delivered; then tell everybody its exit code."""
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
            if self.slim_at_s is not None and time.monotonic() >= self.slim_at_s and not ended:
                self._slim()
        if self.probes is not None:
            self.probes.end()
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        code = code if code >= 0 else 128 - code
        if self.log:
            self.log.close()
        self._record_exit(code)
        if self.plan.end_event is not None:
            self.plan.end_event.write(code)
        unlisten(self.plan.socket_path)
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
        timeouts_ms = [-1]
        if self.slim_at_s is not None:
            timeouts_ms.append(max(0, int((self.slim_at_s - time.monotonic()) * 1000) + 1))
        if self.probes is not None:
            if self.probes.pid:
                poll.register(self.probes.pidfd, select.POLLIN)
            timeouts_ms.append(self.probes.timeout_ms())
        return dict(poll.poll(min((each for each in timeouts_ms if each >= 0), default=-1)))

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

    def _flush(self, client: Client) -> None:
        try:
            while client.outgoing:
                del client.outgoing[: client.connection.send(client.outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _drop(self, client: Client) -> None:
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

    def _accept(self, listening: Socket) -> None:
        try:
            connection = unix_socket.accept(listening)
        except OSError:
            return
        self.clients.append(Client(connection))

    def _read_client(self, client: Client) -> None:
        try:
            data = client.connection.recv(CHUNK_BYTES)
            received = client.parser.feed(data)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            data, received = b"", []
        for kind, payload in received:
            self.hear(kind, payload)
        if not data:
            self._drop(client)

    def hear(self, kind: int, payload: bytes) -> None:
        """Do what a client's frame asks."""
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

    # Becoming small

    def _slim(self) -> None:
        """Execute the interpreter anew with this module alone; not now if something is half said, and not at all if that fails."""
        self.slim_at_s = time.monotonic() + SLIM_AFTER_S
        if self.pending_stdin or any(each.outgoing or each.parser.has_some for each in self.clients):
            return
        if self.probes is not None and self.probes.pid:
            return
        self.slim_at_s = None
        if not os.path.isfile(__file__):  # imported from within an archive: a fresh interpreter wouldn't find it
            return
        state_fd = os.memfd_create("state", 0)
        try:
            os.write(state_fd, json.dumps(self._state(), default=vars).encode("ascii"))
            os.lseek(state_fd, 0, os.SEEK_SET)
            for fd in self.descriptors():
                os.set_inheritable(fd, True)
            top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
            program = f"import sys; sys.path.insert(0, {top!r}); from lamina import standins; standins.put_in(); "
            program += f"from lamina.runtime.watch import resume; resume({state_fd})"
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", program, "lamina-monitor", self.plan.title])
        except OSError:  # no memory: then as large as it is
            os.close(state_fd)
            for fd in self.descriptors():
                os.set_inheritable(fd, False)

    def descriptors(self) -> list[int]:
        """All that it has open for the container and its clients; the log it opens by itself."""
        found = {self.stdin_fd, *self.outputs, *(each.connection.fileno() for each in self.clients)}
        if self.listening is not None:
            found.add(self.listening.fileno())
        return [fd for fd in found if fd >= 0]

    def _state(self) -> dict[str, object]:
        return {
            "plan": vars(self.plan),
            "pid": self.pid,
            "clients": [each.connection.fileno() for each in self.clients],
            "creator": self.creator.connection.fileno() if self.creator in self.clients and self.creator is not None else -1,
            "creator_waits": self.creator_waits,
            "listening": self.listening.fileno() if self.listening is not None else -1,
            "stdin_fd": self.stdin_fd,
            "stdin_ends": self.stdin_ends,
            "outputs": list(self.outputs.items()),
            "log": {kind: text.decode("latin-1") for kind, text in self.log.partial.items()} if self.log is not None else {},
            "probes": self.probes.state() if self.probes is not None else None,
        }

    # Ending

    def _record_exit(self, code: int) -> None:
        if not self.plan.exit_path:
            return
        temporary = self.plan.exit_path + ".new"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, b"%d %d\n" % (code, time.time_ns()))
        finally:
            os.close(fd)
        os.rename(temporary, self.plan.exit_path)

    def _say_goodbye(self, code: int) -> None:
        for client in list(self.clients):
            client.outgoing += frames.pack(frames.EXIT, str(code).encode())
            client.connection.settimeout(10 if client is self.creator else 1)
            try:
                client.connection.sendall(client.outgoing)
                client.connection.shutdown(unix_socket.SHUT_WR)
                if client is self.creator:
                    self._wait_until_heard(client)
            except OSError:
                self._drop(client)

    def _wait_until_heard(self, creator: Client) -> None:
        """See whether the creator has taken our last word, and so settles the container, or went away just before it came.

        Who closes a Unix socket without reading what has come resets it (unix(7), ECONNRESET): that one had detached meanwhile.
        """
        try:
            while creator.connection.recv(CHUNK_BYTES):
                pass
        except TimeoutError:
            pass  # it is there, but slow: whatever it doesn't do, the next command does


def see_to_the_end(watch: Watch) -> None:
    """Watch until the container has ended, then become what settles it if the creator doesn't. Never returns."""
    code = 1
    try:
        watch.to_the_end()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the last resort: say what happened where somebody may look
        leave_word(watch.plan.exit_path, error)
    if code == 0 and not watch.creator_waits and watch.plan.finish_command:
        try:
            os.execv(watch.plan.finish_command[0], list(watch.plan.finish_command))
        except OSError:
            pass  # the next command finds the exit file and finishes
    os._exit(code)


def leave_word(exit_path: str, error: BaseException) -> None:
    """Write a monitor's own failure beside where the exit code would be."""
    try:
        with open((exit_path or "/nowhere") + ".monitor-error", "w", encoding="utf-8") as file:
            file.write(f"{type(error).__name__}: {error}\n")
    except OSError:
        pass


def unlisten(socket_path: str) -> None:
    """Take the socket's name away."""
    if socket_path:
        try:
            os.unlink(socket_path)
        except OSError:
            pass


def resume(state_fd: int) -> None:
    """Go on as the monitor that has just executed this program; never returns."""
    gc.disable()  # nothing here makes cycles, and what is collected first is what the interpreter has just imported
    with os.fdopen(state_fd, "rb") as file:
        state = json.load(file)
    plan = WatchPlan(**state["plan"])
    plan.probe = ProbePlan(**state["plan"]["probe"]) if plan.probe is not None else None
    plan.end_event = EndEvent(**state["plan"]["end_event"]) if plan.end_event is not None else None
    clients = {fd: Client(unix_socket.opened(fd)) for fd in state["clients"]}
    log = None
    if plan.log_path:
        log = LogWriter(plan.log_path, file_bytes=plan.log_file_bytes, files=plan.log_files)
        log.partial = {int(kind): text.encode("latin-1") for kind, text in state["log"].items()}
    watch = Watch(
        plan,
        pid=state["pid"],
        creator=clients.get(state["creator"]),
        clients=list(clients.values()),
        listening=unix_socket.opened(state["listening"]) if state["listening"] >= 0 else None,
        stdin_fd=state["stdin_fd"],
        outputs={int(fd): kind for fd, kind in state["outputs"]},
        log=log,
        creator_waits=state["creator_waits"],
    )
    watch.stdin_ends = state["stdin_ends"]
    watch.slim_at_s = None
    if watch.probes is not None:
        watch.probes.resume(state["probes"])
    for fd in watch.descriptors():
        os.set_inheritable(fd, False)
    see_to_the_end(watch)
