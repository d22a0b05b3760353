"""Which of our standard streams a container is joined to, and what is known of our terminal."""

import os
from collections.abc import Sequence

from lamina.dataclasses import dataclass
from lamina.errors import LaminaError
from lamina.linux import terminal


class NotATerminalError(LaminaError):
    """A terminal was asked for and there is none; 1 in Docker even where every other failure of the engine is 125."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Descriptors, -1 for a stream that isn't joined."""

    stdin_fd: int
    stdout_fd: int
    stderr_fd: int

    @property
    def shows_output(self) -> bool:
        """Whether anything of what the container writes is seen."""
        return self.stdout_fd >= 0 or self.stderr_fd >= 0


def joined(*, stdin: bool, attach: Sequence[str] = ()) -> Streams:
    """Join what `--attach` names, by default all output, and input if `stdin`."""
    if attach:
        fds = {name: fd if name in attach else -1 for fd, name in enumerate(("stdin", "stdout", "stderr"))}
        return Streams(stdin_fd=fds["stdin"], stdout_fd=fds["stdout"], stderr_fd=fds["stderr"])
    return Streams(stdin_fd=0 if stdin else -1, stdout_fd=1, stderr_fd=2)


def check_terminal(streams: Streams, *, tty: bool) -> None:
    """Refuse to join a container's terminal to an input that isn't one; Docker's rule and words."""
    if tty and streams.stdin_fd >= 0 and not os.isatty(streams.stdin_fd):
        raise NotATerminalError("the input device is not a TTY", hint="leave out -t, or run it in a terminal")


def terminal_size() -> tuple[int, int]:
    """Rows and columns of the terminal that we are on; zeros if on none."""
    for fd in (1, 0, 2):
        size = terminal.size(fd)
        if all(size):
            return size
    return 0, 0
