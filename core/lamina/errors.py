"""The errors that a person may see, each with the exit code and the hint that belong to it.

`lamina.linux` raises plain `OSError`; everything above raises these. Only the command line turns them into text
(`error: MESSAGE` and, if there is one, the hint). Exit codes are Docker's: 1, and in `run`, whose other
codes are the command's own, 125; 126 the command can't be executed, 127 the command isn't there.
"""


class LaminaError(Exception):
    """Base of every error that the engine raises on purpose.

    `message` is lower case, without a full stop, and quotes the value that was wrong; `hint` says what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(LaminaError):
    """A value that can't be meant: a malformed reference, a relative volume path."""


class NotFoundError(LaminaError):
    """A container, image, volume, network or driver of that name doesn't exist."""


class ConflictError(LaminaError):
    """The name is taken, or the thing is in use."""


class NotUsableError(LaminaError):
    """A driver exists but can't work here."""


class PluginError(LaminaError):
    """A plugin is broken: it doesn't import, has another contract's version, or answers nonsense."""


class ArchiveError(LaminaError):
    """An archive is corrupt, truncated or hostile."""


class IntegrityError(LaminaError):
    """Bytes don't have the digest that names them."""


class StateError(LaminaError):
    """The thing is there but in the wrong state: stopping what doesn't run, starting what runs."""


class StartError(LaminaError):
    """A container couldn't be started; `step` names where it stopped.

    The exit code is 126 when the command can't be executed, 127 when it isn't there, else 125.
    """

    exit_code = 125

    def __init__(self, message: str, *, hint: str = "", exit_code: int = 125, step: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.step = step


class TransferError(LaminaError):
    """A registry or another place that images come from can't be reached, or broke off: trying again may help."""
