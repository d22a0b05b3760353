"""Finds and reads modules whose place is known, those of Lamina and what it always imports, without the search that Python makes.

The search asks first whether a module is built in, or frozen, or an extension by one of three names: 20 µs for each of 120 modules.
And what is found is looked at twice, and its bytecode read in small pieces: 15 µs more. What isn't a source file in its package's
directory, and what has no bytecode of its own age, is left to Python, which writes bytecode as ever.

To the modules that are found here, `import` gives light ones (`lamina.light`) for some of the standard library's.
Source: importlib, Python library reference ("meta path finder", `ModuleSpec`), and PEP 552 for bytecode's first 16 bytes.
"""

import builtins
import os
import sys
from collections.abc import Mapping, Sequence
from importlib._bootstrap_external import MAGIC_NUMBER  # importlib.util's, which brings more with it
from importlib.machinery import ModuleSpec, SourceFileLoader
from marshal import loads
from types import CodeType, ModuleType

from lamina.light import LightModule, enum, re, typing

PACKAGES = ("lamina.", "click.", "pluggy.")
"""Of source files alone: an extension by the same name would be the one to take."""
ENDING = f".{sys.implementation.cache_tag}.pyc"
BY_TIME = MAGIC_NUMBER + bytes(4)
"""How bytecode begins that is told by its source's time and size, which follow."""
MAX_BYTES = 96 << 10
"""More than this is left to Python; a larger buffer would be mapped anew each time."""


def importing(light: Mapping[str, ModuleType]) -> ModuleType:
    """Make what is `builtins` to modules to which `import` gives what is light; who replaces a function there does so here, too."""

    def import_light(
        name: str, variables: Mapping[str, object] | None = None, local: Mapping[str, object] | None = None,
        names: Sequence[str] = (), level: int = 0,
    ) -> ModuleType:  # fmt: skip
        return light.get(name) or __import__(name, variables, local, names, level)

    made = ModuleType("builtins")
    vars(made).update(vars(builtins), __import__=import_light)
    return made


LIGHT: dict[str, ModuleType] = {"enum": enum.MODULE, "re": re.MODULE, "typing": typing.MODULE}
LIGHT_FOR_OTHERS = {
    **LIGHT,
    "datetime": LightModule("datetime", datetime=typing.Light),
    "uuid": LightModule("uuid", UUID=typing.Light),
    "weakref": LightModule("weakref", WeakKeyDictionary=dict),
}
"""To click and pluggy. Click has options that are a date or an UUID, where it names these classes; no command has one."""
OWN, OTHERS = importing(LIGHT), importing(LIGHT_FOR_OTHERS)


class Loader(SourceFileLoader):
    """Takes bytecode from where it lies, if it is the source's."""

    def __init__(self, name: str, path: str, bytecode_path: str, source: os.stat_result) -> None:
        super().__init__(name, path)
        self._bytecode_path = bytecode_path
        self._source = source

    def get_code(self, fullname: str) -> CodeType | None:
        """Give the module's code."""
        try:
            fd = os.open(self._bytecode_path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                content = os.read(fd, MAX_BYTES)
            finally:
                os.close(fd)
        except OSError:
            return super().get_code(fullname)
        age = int(self._source.st_mtime) & 0xFFFFFFFF | (self._source.st_size & 0xFFFFFFFF) << 32
        if content[:8] != BY_TIME or int.from_bytes(content[8:16], "little") != age or len(content) == MAX_BYTES:
            return super().get_code(fullname)
        code: CodeType = loads(memoryview(content)[16:])
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code, with imports of its own."""
        namespace = vars(module)
        namespace["__builtins__"] = vars(OWN if self.name.startswith("lamina.") else OTHERS)
        code = self.get_code(self.name)
        if code is None:
            raise ImportError(f"no code for module '{self.name}'", name=self.name)
        exec(code, namespace)


class Finder:
    """A meta path finder."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Say where a module is; None for one that has to be searched for."""
        if path is None or not name.startswith(PACKAGES):
            return None
        file = name.rpartition(".")[2]
        source_path, bytecode_path = f"{path[0]}/{file}.py", f"{path[0]}/__pycache__/{file}{ENDING}"
        try:
            source = os.stat(source_path)
        except OSError:
            return None
        spec = ModuleSpec(name, Loader(name, source_path, bytecode_path, source), origin=source_path)
        spec.has_location = True
        spec.cached = bytecode_path
        return spec


def put_in() -> None:
    """Have imports ask it first, unless bytecode lies elsewhere or is made otherwise (`-O`)."""
    if sys.pycache_prefix is None and sys.flags.optimize == 0:
        sys.meta_path.insert(0, Finder)
