"""A trace: how a container comes to be, step by step, with the system calls of each, as text or as JSON lines.

`lamina.linux.recorder` notes the calls; here the notes become rows and the engine's own steps are added: its use cases, every
hook that is called, the statements to the database. Nothing of this exists unless a trace is asked for.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from lamina import json
from lamina.linux.libc import told
from lamina.linux.recorder import FIELDS, Recorder
from lamina.model.mount import Mount
from lamina.usecases.content import Content
from lamina.usecases.context import Context
from lamina.usecases.control import Control
from lamina.usecases.create import Creation
from lamina.usecases.enter import Entering
from lamina.usecases.start import Starter

_WRITING = ("INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT", "ROLLBACK", "CREATE", "PRAGMA user_version")
_LONGEST = 300
"""How much of a line of text is shown; JSON has all."""


class UseCases(Protocol):
    """What of an engine is followed."""

    @property
    def context(self) -> Context: ...
    @property
    def creation(self) -> Creation: ...
    @property
    def starter(self) -> Starter: ...
    @property
    def control(self) -> Control: ...
    @property
    def entering(self) -> Entering: ...
    @property
    def content(self) -> Content: ...


@dataclass(slots=True, kw_only=True)
class Row:
    """One line of the trace: a step, a call, or a statement to the database."""

    kind: str
    process: str
    role: str
    depth: int
    began_ns: int
    took_ns: int | None
    """None for what never came back: a process that became another program."""
    name: str
    text: str
    """A step's command lines, a call's arguments."""
    result: str = ""
    pid: int = 0

    @property
    def commands(self) -> list[str]:
        """A step's equivalent command lines."""
        return self.text.split("; ") if self.kind == "step" and self.text else []

    def document(self, start_ns: int) -> dict[str, Any]:
        """The row as JSON."""
        document: dict[str, Any] = {
            "kind": self.kind, "process": self.role, "pid": self.pid, "at_us": (self.began_ns - start_ns) // 1000,
            "took_us": None if self.took_ns is None else self.took_ns // 1000, "depth": self.depth, "name": self.name,
        }  # fmt: skip
        if self.kind == "step":
            document["commands"] = self.commands
        elif self.kind == "call":
            document |= {"arguments": self.text, "result": self.result}
        else:
            document["text"] = self.text
        return document

    def lines(self, start_ns: int) -> Iterator[str]:
        """The row as text."""
        indent = "  " * self.depth
        left = f"{(self.began_ns - start_ns) / 1e6:9.3f}  {self.role:<9}  {indent}"
        took = "" if self.took_ns is None else f"  [{self.took_ns / 1e6:.3f} ms]"
        if self.kind == "step":
            yield f"{left}{self.name}{took}"
            for command in self.commands:
                yield f"{'':20}  {indent}  $ {_short(command)}"
        elif self.kind == "call":
            yield f"{left}{self.name}({_short(self.text)}) = {self.result}{took}"
        else:
            yield f"{left}{self.kind}: {_short(self.text)}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


class Tracing:
    """A trace while the block runs, written out line by line through `write`.

    Rows come whenever one of the command's outermost steps is over, and the rest at the end, in the order in which they began.
    """

    def __init__(self, *, form: str, write: Callable[[str], None]) -> None:
        self.rows = Notes()
        self._form = form
        self._write = write
        self._recorder = Recorder()
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        self.rows.pids["0"] = os.getpid()
        self._recorder.start(self.flush)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._recorder.stop()
        for undo in reversed(self._undo):
            undo()
        self.flush()
        self._recorder.close()

    def follow(self, engine: UseCases) -> None:
        """Have an engine's use cases, hooks and database statements told as steps."""
        told_methods = (
            (engine.creation, "create", "create the container"), (engine.creation, "created", "record it as complete"),
            (engine.starter, "start", "start the container"), (engine.starter, "relay", "carry its streams until it ends"),
            (engine.starter, "settle", "record its end, undo the start"), (engine.control, "remove", "remove the container"),
            (engine.control, "pause", "pause the container"), (engine.control, "unpause", "let the container go on"),
            (engine.content, "commit", "commit the container"), (engine.content, "changes", "find what it has changed"),
            (engine.entering, "execute", "enter the container"),
        )  # fmt: skip
        for owner, method, name in told_methods:
            setattr(owner, method, _told(getattr(owner, method), name))
        self._undo.append(engine.context.host.manager.add_hookcall_monitoring(self._before_hook, self._after_hook))
        engine.context.database.connection.set_trace_callback(self._statement)
        self._undo.append(lambda: engine.context.database.connection.set_trace_callback(None))

    def _before_hook(self, hook: str, implementations: Sequence[Any], _arguments: Mapping[str, Any]) -> None:
        driver = implementations[-1].plugin_name if implementations else "nobody"
        self._recorder.begins(f"{hook} ({driver})", lambda: "")

    def _after_hook(self, outcome: Any, _hook: str, _implementations: Sequence[Any], _arguments: Mapping[str, Any]) -> None:
        if outcome.exception is None:
            answer = outcome.get_result()
            mounts = getattr(answer, "mounts", answer if isinstance(answer, list | tuple) else ())
            for mount in mounts:
                if isinstance(mount, Mount):
                    self._recorder.remark("answer", mount.describe())
        self._recorder.ends()

    def _statement(self, statement: str) -> None:
        if statement.lstrip().upper().startswith(_WRITING):
            self._recorder.remark("database", " ".join(statement.split()))

    def flush(self) -> None:
        """Write out what has been noted since."""
        for row in self.rows.read(self._recorder.kept_fd):
            if self._form == "json":
                self._write(json.dumps(row.document(self.rows.start_ns), ensure_ascii=False))
            else:
                for line in row.lines(self.rows.start_ns):
                    self._write(line)


def _told(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    def with_step(*arguments: Any, **options: Any) -> Any:
        with told(name, lambda: ""):
            return method(*arguments, **options)

    return with_step


@dataclass(slots=True)
class Notes:
    """The recorder's notes, read as rows."""

    pids: dict[str, int] = field(default_factory=dict)
    """Process to pid, as its parent sees it: the host's, but for the child of a container's own init."""
    start_ns: int = 0
    _offset: int = 0
    _rest: bytes = b""

    def read(self, fd: int) -> list[Row]:
        """Read what is new, in the order of beginning."""
        data = self._rest
        while chunk := os.pread(fd, 1 << 20, self._offset):
            self._offset += len(chunk)
            data += chunk
        *lines, self._rest = data.split(b"\n")
        rows: list[Row] = []
        steps: dict[tuple[str, int], Row] = {}
        for line in lines:
            self._take(line.decode("utf-8", "surrogateescape").split(FIELDS), rows, steps)
        for row in rows:
            row.pid = self.pids.get(row.process, 0)
        rows.sort(key=lambda row: row.began_ns)
        if rows and not self.start_ns:
            self.start_ns = rows[0].began_ns
        return rows

    def _take(self, fields: list[str], rows: list[Row], steps: dict[tuple[str, int], Row]) -> None:
        kind, process, role, depth, began, ended, name, result, text = fields
        began_ns, ended_ns = int(began), int(ended)
        if kind == "end":
            row = steps.get((process, began_ns))
            if row is not None:
                row.took_ns = ended_ns - began_ns
            return
        if kind == "failed":
            last = next((row for row in reversed(rows) if row.process == process and row.name == name), None)
            if last is not None:
                last.result, last.took_ns = result, ended_ns - began_ns
            return
        if name in {"clone", "clone3", "vfork"} and result.isdecimal():
            child, _, text = text.partition(" ")
            self.pids[child] = int(result)
        is_step = kind == "begin"
        row = Row(
            kind="step" if is_step else kind, process=process, role=role, depth=int(depth) - is_step, began_ns=began_ns,
            took_ns=None if is_step or name == "execve" else ended_ns - began_ns, name=name, text=text, result=result,
        )  # fmt: skip
        rows.append(row)
        if is_step:
            steps[process, began_ns] = row
