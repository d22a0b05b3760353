"""An image of a small Python, called `python:2.7-slim` as the tutorial's is, out of the one that runs the tests; and its packages.

The interpreter lies where it lies on this machine, with the libraries that it has loaded when it has imported what a program may
want; `python` and `pip` in /usr/local/bin lead to it. It looks for packages on loopback, in what set-up has downloaded.
"""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import archives
from corpus_builds import served
from outside import TOP

from lamina.store.elf import read_program

NAME = "python:2.7-slim"
CONTEXT = TOP / "tests" / "data" / "tutorial"
WHEELS = TOP / ".venv" / "tutorial-wheels"
_LOOK = """
import importlib, json, pkgutil, sys, sysconfig
for folder in [path for path in sys.path if path.endswith("lib-dynload")]:
    for module in pkgutil.iter_modules([folder]):
        if not module.name.startswith(("_test", "_tkinter", "xx", "_xx")):
            try:
                importlib.import_module(module.name)
            except ImportError:
                pass
maps = [line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if "r-x" in line and "/" in line]
print(json.dumps({
    "program": sys.executable, "stdlib": sysconfig.get_path("stdlib"), "packages": sysconfig.get_path("purelib"), "maps": maps,
}))
"""
# What is compiled has its source's time in it. A "no" switches this option on: pip's documentation, "Boolean options".
_PIP_CONF = """\
[global]
index-url = {index_url}
disable-pip-version-check = true
no-cache-dir = false
[install]
no-compile = no
"""
_LEFT_OUT = re.compile(
    r"(?:^|/)(?:test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|pydoc_data|site-packages|dist-packages|__pycache__|config-.*"
    r"|sitecustomize\.py|EXTERNALLY-MANAGED)(?:/|$)|\.opt-\d\.pyc$"
)


def python_image(place: Path, *, index_url: str) -> Path:
    """Write the image as an archive, in the form of `docker save`, which looks for packages at `index_url`."""
    program = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    said = subprocess.run([program, "-I", "-c", _LOOK], capture_output=True, text=True, check=True).stdout
    found = json.loads(said)
    out = io.BytesIO(archives.busybox_layer("sh", "ls", "cat", "id"))
    with tarfile.open(fileobj=out, mode="a", format=tarfile.PAX_FORMAT) as tar:
        made: set[str] = set()
        for path, source in _libraries(program, found["maps"]).items():
            _add(tar, source, path, made)
        for folder, target in ((found["stdlib"], found["stdlib"]), (_pip_dir(), f"{found['packages']}/pip")):
            _add_directory(tar, folder, target, made)
        _add_text(tar, "/usr/local/bin/pip", f"#!{program}\nfrom pip._internal.cli.main import main\n\nraise SystemExit(main())\n")
        _add_text(tar, "/etc/pip.conf", _PIP_CONF.format(index_url=index_url))
        link = tarfile.TarInfo("usr/local/bin/python")
        link.type, link.linkname = tarfile.SYMTYPE, program
        tar.addfile(link)
    env = [
        "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1",
        "PIP_ROOT_USER_ACTION=ignore", "PIP_PROGRESS_BAR=off",
    ]  # fmt: skip
    return archives.image(place, NAME, [out.getvalue()], Env=env, Cmd=["python"])


def _libraries(program: str, mapped: list[str]) -> dict[str, str]:
    """The program, its loader and all libraries, by the names that they are loaded by; their places are the loader's own."""
    read = {path: one for path in {program, *mapped} if os.path.isabs(path) and (one := read_program(path))}
    needed = {name for one in read.values() for name in one.needed}
    found = {program: program, read[program].interpreter: read[program].interpreter}
    for path in read:
        names = [name for name in needed if os.path.realpath(os.path.join(os.path.dirname(path), name)) == path]
        found |= {os.path.join(os.path.dirname(path), name): path for name in names}
    return found


def _pip_dir() -> str:
    """The directory of the pip that the tests' own environment has."""
    import pip  # not one of the project's packages, but part of every environment that set-up makes

    return os.path.dirname(pip.__file__)


def _add_directory(tar: tarfile.TarFile, source: str, target: str, made: set[str]) -> None:
    for folder, directories, files in os.walk(source):
        directories[:] = sorted(name for name in directories if not _LEFT_OUT.search(name))
        for name in sorted(files):
            if not _LEFT_OUT.search(name):
                path = os.path.join(folder, name)
                _add(tar, os.path.realpath(path), os.path.join(target, os.path.relpath(path, source)), made)


def _add(tar: tarfile.TarFile, source: str, target: str, made: set[str]) -> None:
    if target in made:
        return
    made.add(target)
    info = tar.gettarinfo(os.path.realpath(source), target.lstrip("/"))
    info.uid = info.gid = 0
    info.type, info.linkname = tarfile.REGTYPE, ""
    info.size = os.path.getsize(source)
    with open(source, "rb") as file:
        tar.addfile(info, file)


def _add_text(tar: tarfile.TarFile, target: str, text: str) -> None:
    info = tarfile.TarInfo(target.lstrip("/"))
    info.size, info.mode = len(text.encode()), 0o755
    tar.addfile(info, io.BytesIO(text.encode()))


def make_index(place: Path) -> None:
    """Lay the downloaded packages out as pip looks for them (PEP 503)."""
    for wheel in sorted(WHEELS.glob("*.whl")):
        name = re.sub(r"[-_.]+", "-", wheel.name.partition("-")[0]).lower()
        folder = place / "simple" / name
        folder.mkdir(parents=True)
        folder.joinpath(wheel.name).symlink_to(wheel)
        folder.joinpath("index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>', encoding="utf-8")


__all__ = ["CONTEXT", "NAME", "WHEELS", "make_index", "python_image", "served"]
