"""The errors of this room: what is wrong, in which file and line, with which instruction."""

from lamina.errors import UsageError


class DockerfileError(UsageError):
    """A Dockerfile that can't be built, or a step of it that failed. The message begins `FILE:LINE: INSTRUCTION: `."""

    def __init__(self, message: str, *, file_name: str, line: int, instruction: str = "", hint: str = "") -> None:
        where = f"{file_name}:{line}: " + (f"{instruction}: " if instruction else "")
        super().__init__(where + message, hint=hint)
        self.file_name = file_name
        self.line = line
        self.instruction = instruction


class ExpandError(UsageError):
    """A text that can't be expanded, or says nothing valid once it is. Who knows the place makes it a `DockerfileError`."""
