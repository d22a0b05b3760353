"""Which shared libraries a program loads, read from its ELF headers as ld.so(8) does. It is never run for that, as ldd would."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lamina.errors import NotFoundError

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29
_CACHE_PATH, _CACHE_MAGIC = "/etc/ld.so.cache", b"glibc-ld.so.cache1.1"
_CACHE_HEADER_BYTES = 48
_STANDARD_DIRS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What an ELF file says about how it is loaded."""

    kind: tuple[int, int]
    """Class (32 or 64 bits) and machine: libraries must have the same."""
    interpreter: str
    """The loader's path; "" for a static program or a library."""
    needed: tuple[str, ...]
    search_dirs: tuple[str, ...]


def read_program(path: str) -> Program | None:
    """Read an ELF file's headers; None for a script or anything else that isn't ELF."""
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF" or len(head) < 52:
            return None
        wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
        (machine,) = struct.unpack_from(order + "H", head, 18)
        table_at = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
        entry_bytes, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
        file.seek(table_at)
        table = file.read(entry_bytes * count)
        segments = [_segment(table, index * entry_bytes, order, wide=wide) for index in range(count)]

        def read(at: int, size: int) -> bytes:
            file.seek(at)
            return file.read(size)

        interpreter = next((read(at, size) for kind, at, _, size in segments if kind == _PT_INTERP), b"")
        entry = struct.Struct(order + ("qQ" if wide else "iI"))
        dynamic = next((read(at, size) for kind, at, _, size in segments if kind == _PT_DYNAMIC), b"")
        tags = list(entry.iter_unpack(dynamic[: len(dynamic) // entry.size * entry.size]))
        strings_at = next((_file_offset(segments, value) for tag, value in tags if tag == _DT_STRTAB), 0)
        texts = [(tag, _text(read(strings_at + value, 4096))) for tag, value in tags if tag in {_DT_NEEDED, _DT_RPATH, _DT_RUNPATH}]
    origin = os.path.dirname(os.path.realpath(path))
    search = [directory for tag, text in texts if tag != _DT_NEEDED for directory in text.split(":") if directory]
    return Program(
        kind=(head[4], machine),
        interpreter=_text(interpreter),
        needed=tuple(text for tag, text in texts if tag == _DT_NEEDED),
        search_dirs=tuple(one.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for one in search),
    )


def loaded_files(path: str) -> tuple[str, dict[str, str]]:
    """Find what a program needs to run: its loader's path, "" if it is static, and each library's path by its soname.

    Raise NotFoundError for a library that isn't there.
    """
    program = read_program(path)
    if program is None or not program.interpreter:
        return "", {}
    cache = dict(_read_cache())
    found: dict[str, str] = {}
    waiting = [(program, path)]
    while waiting:
        one, whose = waiting.pop()
        for name in one.needed:
            if name in found or name == os.path.basename(program.interpreter):
                continue
            library_path = _find(name, program.kind, (*one.search_dirs, *program.search_dirs), cache, program.interpreter)
            if library_path is None:
                raise NotFoundError(f"'{whose}' needs the library '{name}', which isn't there")
            found[name] = library_path
            library = read_program(library_path)
            if library is not None:
                waiting.append((library, library_path))
    return program.interpreter, found


def _find(name: str, kind: tuple[int, int], dirs: tuple[str, ...], cache: dict[str, list[str]], interpreter: str) -> str | None:
    places = [os.path.join(directory, name) for directory in dirs] + cache.get(name, [])
    places += [os.path.join(directory, name) for directory in (os.path.dirname(interpreter), *_STANDARD_DIRS)]
    for place in places:
        if os.path.isfile(place):
            library = read_program(place)
            if library is not None and library.kind == kind:
                return place
    return None


def _read_cache() -> Iterator[tuple[str, list[str]]]:
    """Read glibc's cache of libraries (its form since 2.2, perhaps after the older one); nothing where there is none."""
    try:
        with open(_CACHE_PATH, "rb") as file:
            content = file.read()
    except OSError:
        return
    start = content.find(_CACHE_MAGIC)
    if start < 0:
        return
    content = content[start:]
    (count,) = struct.unpack_from("=I", content, len(_CACHE_MAGIC))
    paths: dict[str, list[str]] = {}
    for index in range(count):
        _, name_at, path_at = struct.unpack_from("=iII", content, _CACHE_HEADER_BYTES + 24 * index)
        paths.setdefault(_text(content[name_at : name_at + 256]), []).append(_text(content[path_at : path_at + 4096]))
    yield from paths.items()


def _segment(table: bytes, at: int, order: str, *, wide: bool) -> tuple[int, int, int, int]:
    """Give a program header's type, offset, address and size in the file."""
    if wide:
        kind, _, offset, address, _, size = struct.unpack_from(order + "IIQQQQ", table, at)
    else:
        kind, offset, address, _, size = struct.unpack_from(order + "IIIII", table, at)
    return kind, offset, address, size


def _file_offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, start, size in segments:
        if kind == _PT_LOAD and start <= address < start + size:
            return offset + address - start
    return 0


def _text(data: bytes) -> str:
    return os.fsdecode(data.split(b"\0", 1)[0])
