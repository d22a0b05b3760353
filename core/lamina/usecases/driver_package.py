"""Write a new storage driver's package from the templates in `lamina/templates/driver`. Installing it is for its author."""

import os
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from lamina.api.host import PluginHost
from lamina.errors import ConflictError, UsageError
from lamina.linux.fs import removed_on_error

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MAX_NAME = 40
_SUFFIX = ".template"


def write_package(name: str, directory: str = "") -> str:
    """Write the package of the driver `name` into `directory`, or `lamina-NAME` here, and give its path.

    Raises `UsageError` for a name that a driver can't have, `ConflictError` if a driver of that name is installed or the directory
    is there. It is written aside and renamed, so that it is there whole or not at all.
    """
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise UsageError(
            f"'{name}' can't be a driver's name", hint=f"use up to {_MAX_NAME} small letters, digits and '-', a letter first"
        )
    if name in PluginHost().names("storage"):
        raise ConflictError(f"a storage driver '{name}' is installed already", hint="choose another name")
    place = os.path.abspath(directory or f"lamina-{name}")
    if os.path.lexists(place):
        raise ConflictError(f"'{place}' is there already", hint="choose another directory with --dir")
    words = {"name": name, "module": f"lamina_{name.replace('-', '_')}", "class": _class_name(name)}
    os.makedirs(os.path.dirname(place), exist_ok=True)
    making = f"{place}.{os.getpid()}"
    with removed_on_error(making):
        for path, text in _templates(files("lamina") / "templates" / "driver"):
            target = f"{making}/{_filled(path, words)}"
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w", encoding="utf-8") as file:
                file.write(_filled(text, words))
        os.rename(making, place)
    return place


def _templates(folder: Traversable, below: str = "") -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, f"{below}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            yield below + entry.name.removesuffix(_SUFFIX), entry.read_text(encoding="utf-8")


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace("{{" + word + "}}", value)
    return text


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-")) + "Driver"
