"""What variables an instruction sees: ARG and ENV, their scopes, and those that are there by themselves. No files, no state.

BuildKit's rules (Dockerfile reference, "Scope", "Predefined ARGs", "Automatic platform ARGs"; its dispatchArg): of ARG and ENV the
later one of a name is seen; ARGs before the first FROM are seen by FROM, and in a stage only where it says ARG again; a stage sees
those of the stage that it is built on; proxies may be given without ARG, reach RUN, and leave no trace in the image or the cache.
"""

from collections.abc import Mapping
from typing import TypeVar

from lamina.build.request import BuildRequest
from lamina.build.state import State
from lamina.dockerfile.errors import DockerfileError, ExpandError
from lamina.dockerfile.expand import expand_instruction
from lamina.dockerfile.instructions import Arg, Dockerfile, Instruction
from lamina.model.image import Platform

AnInstruction = TypeVar("AnInstruction", bound=Instruction)
PROXIES = frozenset(
    name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY") for name in (upper, upper.lower())
)


class Arguments:
    """The build's arguments: what the person gave, what the machine gives, and the ARGs before the first FROM."""

    def __init__(self, dockerfile: Dockerfile, request: BuildRequest, *, target: Platform, machine: Platform) -> None:
        self.dockerfile = dockerfile
        self.given: Mapping[str, str] = request.build_args
        self.used: set[str] = set()
        self.automatic = {**_platform("TARGET", target), **_platform("BUILD", machine), "TARGETSTAGE": request.target or "default"}
        self.globals: dict[str, str] = dict(self.automatic)
        for arg in dockerfile.arguments:
            for one in arg.apart():
                ((name, _),) = one.pairs
                value = self.value(one, self.globals)
                if value is not None:
                    self.globals[name] = value

    def value(self, arg: Arg, variables: Mapping[str, str], inherited: Mapping[str, str] | None = None) -> str | None:
        """Give an ARG's value: the person's, else its default, else a global one's; None if it has none."""
        ((name, default),) = arg.pairs
        if name in self.given:
            self.used.add(name)
            return self.given[name]
        if default is not None:
            ((_, value),) = self.expanded(arg, variables).pairs
            return value
        return (inherited or {}).get(name)

    def expanded(self, instruction: AnInstruction, variables: Mapping[str, str]) -> AnInstruction:
        """Replace an instruction's variables. Raises `DockerfileError` with its place."""
        try:
            return expand_instruction(instruction, variables, escape=self.dockerfile.escape)
        except ExpandError as error:
            raise DockerfileError(
                error.message,
                file_name=self.dockerfile.file_name,
                line=instruction.line,
                instruction=instruction.name,
                hint=error.hint,
            ) from None

    def declare(self, state: State, arg: Arg) -> tuple[State, list[str]]:
        """Take a stage's ARG in: give the state that sees it, and what of it goes into the history.

        One without any value leaves alone what is seen under its name.
        """
        said = []
        for one in arg.apart():
            ((name, _),) = one.pairs
            value = self.value(one, state.variables, self.globals)
            if value is not None:
                state = state.with_arg(name, value)
            if name not in PROXIES:
                said.append(name if value is None else f"{name}={value}")
        return state, said

    @property
    def proxies(self) -> dict[str, str]:
        """The predefined arguments that were given: for RUN alone, and no part of any key or history."""
        return {name: value for name, value in self.given.items() if name in PROXIES}

    def unused(self) -> list[str]:
        """List what was given and nobody asked for."""
        quiet = {*self.used, *PROXIES, *self.automatic, "SOURCE_DATE_EPOCH"}
        return [name for name in self.given if name not in quiet and not name.startswith("BUILDKIT_")]


def _platform(prefix: str, platform: Platform) -> dict[str, str]:
    return {
        f"{prefix}PLATFORM": str(platform),
        f"{prefix}OS": platform.os,
        f"{prefix}ARCH": platform.architecture,
        f"{prefix}VARIANT": platform.variant,
    }
