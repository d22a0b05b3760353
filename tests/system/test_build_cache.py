"""The build cache: what a step depends on and what it doesn't, that it outlives drivers and damage, and how it is emptied."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builds import Context
from cases import DRIVERS, Lamina, wait_until

one_driver = pytest.mark.parametrize("driver", [DRIVERS[0]], indirect=True)

DOCKERFILE = """
FROM base
ARG WHO=world
ENV GREETING=hello
WORKDIR /app
COPY file folder/ /files/
RUN echo $GREETING $WHO > /greeting
RUN cat /files/in > /out
CMD ["cat", "/out"]
"""
FILES = {"file": "file\n", "folder/in": "in\n", "other": "other\n"}


@pytest.fixture
def context(lamina: Lamina, tmp_path: Path) -> Context:
    return Context(lamina, tmp_path / "context", DOCKERFILE, FILES)


@one_driver
def test_only_what_a_step_depends_on_makes_it_anew(context: Context):
    def firsts(*words: str) -> list[str]:
        return [title.split(" ")[0] for title in context.made(*words)]

    everything = ["WORKDIR", "COPY", "RUN", "RUN"]
    assert firsts() == everything
    assert firsts() == []
    for name in ("file", "folder/in"):
        os.utime(context.directory / name, (1, 1))
    assert firsts() == [], "a time is no content"
    context.write({"other": "changed\n"})
    assert firsts() == [], "what isn't copied doesn't matter"
    context.write({"folder/in": "changed\n"})
    assert firsts() == ["COPY", "RUN", "RUN"]
    context.write({"folder/in": "in\n"})
    assert firsts() == [], "the old content is still known"
    (context.directory / "file").chmod(0o755)
    assert firsts() == ["COPY", "RUN", "RUN"]
    (context.directory / "file").chmod(0o644)
    assert firsts("--build-arg", "WHO=you") == ["RUN", "RUN"]
    assert firsts("--build-arg", "WHO=you") == []
    assert firsts("--network", "none") == ["RUN", "RUN"]
    assert firsts("--add-host", "db:10.0.0.1") == ["RUN", "RUN"]
    assert firsts("--build-arg", "HTTP_PROXY=http://127.0.0.1:1") == [], "a proxy leads to the same"
    context.write({"Dockerfile": DOCKERFILE.replace("CMD", "LABEL a=b\nCMD")})
    assert firsts() == []
    context.write({"Dockerfile": DOCKERFILE.replace("WORKDIR", "USER 0:0\nWORKDIR")})
    assert firsts() == everything
    context.write({"Dockerfile": DOCKERFILE})
    assert firsts("--no-cache") == everything
    assert firsts() == []


@one_driver
def test_a_build_from_the_cache_gives_the_same_image_and_writes_only_missing_names(context: Context, lamina: Lamina):
    first = context.id("-t", "one")
    before = sorted(os.listdir(lamina.root / "image/blobs/sha256"))
    assert context.id("-t", "one") == first
    assert context.id("-t", "two", "-t", "three:3") == first
    assert lamina.document("two", "image")["RepoTags"] == ["one:latest", "three:3", "two:latest"]
    assert sorted(os.listdir(lamina.root / "image/blobs/sha256")) == before
    lamina("rmi", "-f", first)
    assert context.id("-t", "one") == first, "the image has gone, the steps haven't"


@one_driver
def test_the_cache_outlives_a_change_of_drivers(context: Context, lamina: Lamina):
    made = context.id("-t", "made")
    for driver in DRIVERS[1:]:
        assert context.made(driver=driver) == []
        context.write({"Dockerfile": f"{DOCKERFILE}RUN cat /out > /{driver}\n"})
        assert context.made("-t", driver, driver=driver) == [f"RUN cat /out > /{driver}"], (
            "only the new step runs on the new driver"
        )
        assert lamina("run", "--rm", driver, "cat", f"/{driver}", driver=driver) == "in"
        context.write({"Dockerfile": DOCKERFILE})
    assert context.id() == made


@one_driver
def test_a_layer_that_is_gone_or_damaged_is_made_anew(context: Context, lamina: Lamina):
    context.build("-t", "made")
    for harm in ("gone", "cut", "changed"):
        layer = json.loads((lamina.root / "image/index.json").read_bytes())  # whichever is the image's: its last layers are ours
        manifest = next(
            one
            for one in layer["manifests"]
            if one.get("annotations", {}).get("io.containerd.image.name", "").endswith("made:latest")
        )
        document = json.loads((lamina.root / "image/blobs/sha256" / manifest["digest"].partition(":")[2]).read_bytes())
        blob = lamina.root / "image/blobs/sha256" / document["layers"][-2]["digest"].partition(":")[2]
        content = blob.read_bytes()
        lamina("rmi", "made")
        lamina("system", "prune", "-f", "--filter", "label=none")
        with lamina.library() as engine:
            engine.system.discard_unused_layers()
        assert blob.exists(), "the cache keeps it"
        if harm == "gone":
            blob.unlink()
        elif harm == "cut":
            blob.write_bytes(content[:-20])
        else:
            blob.write_bytes(content[:40] + bytes([content[40] ^ 0xFF]) + content[41:])
        context.write({"Dockerfile": DOCKERFILE + f"RUN echo {harm}\n"})
        context.build("-t", "made")
        assert lamina("run", "--rm", "made", "cat", "/greeting", "/out").splitlines() == ["hello world", "in"]


def test_copies_between_stages_are_keyed_by_what_is_copied(lamina: Lamina, tmp_path: Path):
    dockerfile = (
        "FROM base AS maker\nRUN echo {} > /noise; echo kept > /kept\nFROM base\nCOPY --from=maker /kept /\nRUN cat /kept > /out\n"
    )
    context = Context(lamina, tmp_path / "context", dockerfile.format("one"))
    assert len(context.made("-t", "made")) == 3
    context.write({"Dockerfile": dockerfile.format("two")})
    assert context.made("-t", "made") == ["RUN echo two > /noise; echo kept > /kept"], (
        "the other stage has changed, the file hasn't"
    )
    assert context.made("-t", "made") == []
    assert lamina("run", "--rm", "made", "cat", "/out") == "kept"
    context.write({"Dockerfile": dockerfile.format("two").replace("echo kept", "echo other")})
    assert len(context.made("-t", "made")) == 3, "now it has"
    assert lamina("run", "--rm", "made", "cat", "/out") == "other"


@one_driver
def test_a_linked_copy_stays_when_the_base_changes(lamina: Lamina, tmp_path: Path):
    context = Context(lamina, tmp_path / "context", "FROM base\nRUN echo 1\nCOPY --link file /there/\n", {"file": "x"})
    assert len(context.made()) == 2
    context.write({"Dockerfile": "FROM base\nRUN echo 2\nCOPY --link file /there/\n"})
    assert context.made("-t", "made") == ["RUN echo 2"]
    assert lamina("run", "--rm", "made", "cat", "/there/file") == "x"


PROGRAM = """
import json, sys
from lamina.cli.main import main
code = main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
sys.exit(code)
"""
HEAVY = {"lamina.archive.writer", "lamina.archive.compression", "lamina.runtime.monitor", "tempfile", "subprocess", "selectors"}


def imported(context: Context) -> set[str]:
    """What a build imports."""
    words = context.lamina.command("build", "-t", "made", str(context.directory))[1:]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def is_remembered(context: Context) -> bool:
    """Build, and tell whether it was enough to look; it isn't while files are so young that a change might be missed."""
    return "lamina.engine" not in imported(context)


@one_driver
def test_a_build_that_is_remembered_is_done_again_when_anything_is_touched(context: Context, lamina: Lamina):
    wait_until(lambda: is_remembered(context), "the build is remembered")
    first = context.id("-t", "made")
    context.write({"file": "other\n"})
    second = context.id("-t", "made")
    assert second != first
    context.write({"file": "file\n", ".dockerignore": "folder/in\n"})
    assert "/files/in" in context.result("-t", "made").stderr
    (context.directory / ".dockerignore").unlink()
    wait_until(lambda: is_remembered(context), "the build is remembered")
    assert context.id("-t", "made") == first
    context.write({"folder/more": "more\n"})
    assert context.id("-t", "made") not in {first, second}
    shutil.rmtree(context.directory / "folder")
    (context.directory / "folder").symlink_to("/etc")
    assert context.result().returncode == 1
    (context.directory / "folder").unlink()
    context.write({"folder/in": "in\n"})
    wait_until(lambda: is_remembered(context), "the build is remembered")
    lamina("tag", "busybox", "base")
    assert context.id("-t", "made") != first, "FROM means another image now"


@one_driver
def test_a_build_that_is_remembered_imports_neither_the_language_nor_the_engine(context: Context):
    context.build("-t", "made")
    assert not imported(context) & {"lamina.archive.writer", "lamina.archive.compression", "tempfile", "selectors"}
    wait_until(lambda: is_remembered(context), "the build is remembered")
    modules = imported(context)
    assert not modules & HEAVY
    unwanted = ("lamina.dockerfile", "lamina.store.images", "lamina.store.database", "lamina.api", "lamina.engine")
    assert not {name for name in modules if name.startswith(unwanted)}
    assert len(modules) <= 150


@one_driver
def test_pruning_takes_what_no_image_has_and_says_what_that_freed(lamina: Lamina, tmp_path: Path):
    big = "RUN dd if=/dev/urandom of=/big bs=1k count=300 2>/dev/null"
    context = Context(lamina, tmp_path / "context", f"FROM base\n{big}\nRUN --mount=type=cache,target=/c echo kept > /c/x\n")
    image = context.id()
    shared = lamina("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}}").splitlines()[-1]
    assert shared == "Build Cache 3 2 8.192kB"
    lamina("rmi", image)
    alone = lamina("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}").splitlines()[-1]
    assert alone == "Build Cache 3 0"
    assert "Total reclaimed space: 0B" in lamina("builder", "prune", "-f", "--filter", "until=1h")
    assert "Total reclaimed space: 0B" in lamina("builder", "prune", "-f", "--keep-storage", "1g")
    assert context.made() == []
    said = lamina("builder", "prune", "-f")  # the image is there again: only the cache mount can go
    assert "Total reclaimed space: 8.192kB" in said
    lamina("rmi", context.id())
    said = lamina("builder", "prune", "--force")
    assert said.startswith("Deleted build cache objects:\n")
    assert "kB" in said.splitlines()[-1] and float(said.split()[-1].removesuffix("kB")) > 300
    assert lamina("system", "df", "--format", "{{.Type}} {{.TotalCount}}").splitlines()[-1] == "Build Cache 0"
    keys = {*lamina.layer_keys("base"), *lamina.layer_keys("busybox")}
    with lamina.library() as engine:
        assert {key for _, key, _, _ in engine.context.layers.records()} <= keys, "its unpacked layers went with it"
    context.build()
    assert "This will remove all build cache." in lamina.result("builder", "prune", "-a", stdin="n\n").stderr
    lamina("builder", "prune", "-af")
    assert len(context.made()) == 2


@one_driver
def test_image_and_system_prune_leave_a_running_builds_layers(lamina: Lamina, tmp_path: Path):
    gate = tmp_path / "context" / "gate"
    context = Context(
        lamina,
        tmp_path / "context",
        "FROM base\nRUN echo one > /one\nRUN --mount=type=bind,target=/ctx until [ -e /ctx/gate ]; do usleep 10000; done\n"
        "RUN cat /one\n",
    )
    builder = subprocess.Popen(
        lamina.command("build", "--progress", "plain", "-t", "made", str(context.directory)), stderr=subprocess.PIPE, text=True
    )
    assert builder.stderr is not None
    for line in builder.stderr:
        if "[3/4]" in line:
            break
    lamina("rmi", "-f", "base")
    lamina("system", "prune", "-af")
    lamina("builder", "prune", "-af")
    gate.touch()
    rest = builder.stderr.read()
    builder.stderr.close()
    assert builder.wait() == 0, rest
    assert lamina("run", "--rm", "made", "cat", "/one") == "one"
