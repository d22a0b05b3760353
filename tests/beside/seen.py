"""The script that Lamina and Docker both carry out, and what each then says and shows that there is.

What is looked at is what a user can: names, and every file of every image, container and volume, read through the engine. Left out
are times and ids, which differ from run to run, and what is as durable as a container's own process made it.
"""

import hashlib
import re
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

from changing import Change, script
from engines import Engine, StartError
from states import PASSED_OVER

OURS_ALONE = frozenset({"pull", "migrate", "image_bootstrap"})
"""Commands of the script that Docker hasn't, or not for a file."""
LEFT_OUT_WORDS = frozenset({"host", "passing"})
"""In commands about an image that isn't there then, or a container that Docker's daemon removes whenever it starts (`--rm`)."""
MADE_BY_US = "seen-from-outside"
LEFT_OUT = PASSED_OVER | {".dockerenv", "etc/mtab"}

Seen = dict[str, str]
Wrong = dict[str, list[str]]
"""What was wrong, by the kind of it."""


def common_script(place: Path) -> list[Change]:
    """Give the commands of `changing.py` that both have. Makes in `place` what they read."""
    commands = script(place, "overlay", "vfs")
    return [each for each in commands if each.module not in OURS_ALONE and LEFT_OUT_WORDS.isdisjoint(each.words)]


def carry_out(engine: Engine, change: Change) -> None:
    """Say one command, which must end as it should."""
    done = engine.result(*change.words)
    assert done.returncode == change.code, f"{engine.name}: {change.name}: {done.returncode} {done.stdout}{done.stderr}"


def see(engine: Engine) -> Seen:
    """Describe each image, container, volume and network by its name: what it is made of, or why that can't be told."""
    found: Seen = {}
    contents: dict[str, str] = {}
    for line in lines(engine, "images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"):
        image, name = line.split(" ", 1)
        if image not in contents and "<none>" not in name:
            container = f"{MADE_BY_US}-{len(contents)}"
            made = engine.result("create", "--network", "none", "--name", container, name, "true")
            contents[image] = exported(engine, container) if made.returncode == 0 else first_line(made)
        if "<none>" not in name:
            found[f"image {name}"] = contents[image]
    if contents:
        engine.result("rm", "-f", *(f"{MADE_BY_US}-{number}" for number in range(len(contents))))
    for line in lines(engine, "ps", "-a", "--format", "{{.Names}}\t{{.State}}"):
        name, state = line.split("\t")
        is_at_rest = state in {"created", "exited"}
        found[f"container {name}"] = exported(engine, name) if is_at_rest else state
    anonymous = []
    for name in lines(engine, "volume", "ls", "-q"):
        place = Path(engine("volume", "inspect", "--format", "{{.Mountpoint}}", name))
        content = tree(place) if place.is_dir() else "its folder is missing"
        if re.fullmatch("[0-9a-f]{64}", name):
            anonymous.append(content)
        else:
            found[f"volume {name}"] = content
    found |= {f"volume {number + 1} without a name": each for number, each in enumerate(sorted(anonymous))}
    found |= {f"network {name}": "there" for name in lines(engine, "network", "ls", "--format", "{{.Name}}")}
    return found


def differences(found: Seen, old: Seen, new: Seen) -> Wrong:
    """Sort what is neither as it was nor as it was to become into `lost`, `damaged` and `left over`."""
    sorted_out: Wrong = {"lost": [], "damaged": [], "left over": []}
    for name in sorted({*found, *old, *new}):
        if found.get(name) not in (old.get(name), new.get(name)):
            kind = "left over" if name not in old and name not in new else "damaged" if name in found else "lost"
            sorted_out[kind].append(f"{name}: {found.get(name, 'is gone')}")
    return sorted_out


def tell(when: str, wrong: Wrong) -> None:
    """Print what was wrong."""
    for kind, names in wrong.items():
        for each in names:
            print(f"  {when}, {kind}: {each}", flush=True)


def lines(engine: Engine, *words: str) -> list[str]:
    """Give a listing's lines. Raises `StartError` if the engine can't even list."""
    done = engine.result(*words)
    if done.returncode:
        raise StartError(first_line(done))
    return done.stdout.splitlines()


def exported(engine: Engine, container: str) -> str:
    """Digest all files of a container, as `export` gives them."""
    digest = hashlib.sha256()
    with subprocess.Popen(engine.command("export", container), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        facts, size_bytes = [], 0
        try:
            with tarfile.open(fileobj=export.stdout, mode="r|") as tar:
                for member in tar:
                    path = member.name.strip("/").removeprefix("./")
                    if path.split("/")[0] not in LEFT_OUT and path not in LEFT_OUT:
                        file = tar.extractfile(member) if member.isreg() else None
                        content = hashlib.sha256(file.read()).hexdigest() if file else member.linkname
                        size_bytes += member.size
                        facts.append((path, member.type, member.mode, member.uid, member.gid, content))
        except tarfile.TarError as error:
            facts.append(("", b"", 0, 0, 0, str(error)))
        said = export.stderr.read().decode(errors="replace")
    if export.returncode:
        return f"can't be read: {(said.splitlines() or [''])[-1]}"
    for each in sorted(facts):
        digest.update(repr(each).encode())
    return f"{digest.hexdigest()[:16]}, {len(facts)} files, {size_bytes} bytes"


def tree(place: Path) -> str:
    """Digest all files of a directory."""
    digest = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        digest.update(repr((str(path.relative_to(place)), path.lstat().st_mode, content)).encode())
    return digest.hexdigest()[:16]


def first_line(done: subprocess.CompletedProcess[str]) -> str:
    """Give what a command said went wrong."""
    return (done.stderr.splitlines() or [f"ended with {done.returncode}"])[0]


def tally(found: list[Wrong], what: str, kinds: tuple[str, ...]) -> dict[str, str]:
    """Sum up as rows of a table: how often there was something of each kind."""
    often = Counter(kind for each in found for kind, names in each.items() if names)
    return {what: str(len(found)), **{kind: str(often[kind]) for kind in (*kinds, *sorted(often.keys() - {*kinds}))}}
