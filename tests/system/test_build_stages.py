"""Stages side by side, FROM in all its forms, configuration, history, reproducible images, and what killed builds leave."""

import contextlib
import os
import pty
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Context
from cases import DRIVERS, Lamina, driver_of, each_driver, wait_until

from lamina.linux import mountinfo

one_driver = pytest.mark.parametrize("driver", [DRIVERS[0]], indirect=True)


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


@each_driver
def test_independent_stages_run_at_the_same_time_and_unused_ones_not_at_all(lamina: Lamina, tmp_path: Path):
    meet = (
        "RUN --mount=type=cache,id=meet,target=/c touch /c/{me}; until [ -e /c/{other} ]; do usleep 5000; done; echo {me} > /{me}\n"
    )
    context = Context(
        lamina,
        tmp_path / "context",
        f"FROM base AS a\n{meet.format(me='a', other='b')}FROM base AS b\n{meet.format(me='b', other='a')}"
        "FROM no-such-image AS unused\nRUN false\nFROM base\nCOPY --from=a /a /\nCOPY --from=1 /b /\n",
    )
    told = context.build("-t", "made")
    assert "no-such-image" not in told
    assert lamina("run", "--rm", "made", "cat", "/a", "/b").splitlines() == ["a", "b"]


@one_driver
def test_a_stage_that_fails_ends_the_others(lamina: Lamina, tmp_path: Path):
    context = Context(
        lamina,
        tmp_path / "context",
        "FROM base AS a\nRUN --mount=type=cache,id=m,target=/c touch /c/a; sleep 1000\n"
        "FROM base AS b\nRUN --mount=type=cache,id=m,target=/c until [ -e /c/a ]; do usleep 5000; done; false\n"
        "FROM base\nCOPY --from=a /etc /a\nCOPY --from=b /etc /b\n",
    )
    done = context.result()
    assert done.returncode == 1
    assert "CANCELED" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: Dockerfile:4: RUN: ")


@one_driver
@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ("FROM nowhere\n", "Dockerfile:1: FROM: "),
        ("FROM base\nCOPY --from=nowhere /a /\n", "Dockerfile:2: COPY: "),
        ("FROM base\nCOPY --from=7 /a /\n", "Dockerfile:2: COPY: there is no stage '7' before this one"),
        ("FROM base AS x\nCOPY --from=x /a /\n", "Dockerfile:2: COPY: the stage 'x' doesn't come before this one"),
        ("FROM base\nCOPY nothing /\n", "Dockerfile:2: COPY: "),
        ("FROM base\nWORKDIR /etc/passwd/x\n", "Dockerfile:2: WORKDIR: "),
        ("FROM base\nWORKDIR /etc/passwd\n", "Dockerfile:2: WORKDIR: '/etc/passwd' is a file, not a directory"),
        ("ARG EMPTY\nFROM $EMPTY\n", "Dockerfile:2: FROM: "),
        ("FROM --platform=linux/s390x base\n", "Dockerfile:1: FROM: the image 'base' is for linux/amd64, not for linux/s390x"),
        ("FROM --platform=windows/amd64 base\n", "Dockerfile:1: FROM: the platform 'windows/amd64' can't be built here"),
        ("FROM base\nFOO bar\n", "Dockerfile:2: "),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(lamina: Lamina, tmp_path: Path, dockerfile: str, message: str):
    context = Context(lamina, tmp_path / "context", dockerfile)
    assert message in context.error("-q")
    assert len(context.result("-q").stderr.splitlines()) == 1


@one_driver
def test_a_target_is_a_name_or_a_number(lamina: Lamina, tmp_path: Path):
    context = Context(lamina, tmp_path / "context", "FROM base AS First\nRUN touch /1\nFROM first AS second\nRUN touch /2\n")
    first = context.id("--target", "FIRST")
    assert context.id("--target", "0") == first
    assert context.id("--target", "second") == context.id()
    assert "there is no stage 'third' in Dockerfile" in context.error("--target", "third", "-q")


@one_driver
def test_configuration_comes_about_in_order(lamina: Lamina, tmp_path: Path):
    context = Context(
        lamina,
        tmp_path / "context",
        """
ARG TAG=latest
ARG FROM_GLOBAL=global
FROM base:$TAG AS parent
CMD ["inherited"]
ENV A=1 B=$A
ENV B=$A
ARG FROM_GLOBAL
ARG X=x Y=$X
ARG TARGETARCH
LABEL shown="$FROM_GLOBAL-$X-$Y-$TARGETARCH-$TAG"
SHELL ["/bin/ash", "-ec"]
ENTRYPOINT run it
EXPOSE 80 53/udp
VOLUME ["/data"]
USER 5
WORKDIR /one
WORKDIR two
STOPSIGNAL SIGINT
HEALTHCHECK --interval=3s CMD check
MAINTAINER somebody
ONBUILD RUN echo triggered > /tmp/triggered
FROM parent
CMD later
""",
    )
    told = context.build("-t", "made", "--build-arg", "X=given", "--build-arg", "unknown=1", "--label", "more=here")
    assert "warning: the build argument 'unknown' was given" in told
    document = lamina.document("made", "image")
    config = document["Config"]
    assert config["Env"] == ["PATH=/bin:/usr/bin", "A=1", "B=1"]
    assert config["Labels"] == {"shown": "global-given-given-amd64-", "more": "here"}
    assert (config["Entrypoint"], config["Cmd"]) == (["/bin/ash", "-ec", "run it"], ["/bin/ash", "-ec", "later"])
    assert config["ExposedPorts"] == {"53/udp": {}, "80/tcp": {}}
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("5", "/one/two", "SIGINT")
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "check"], "Interval": 3000000000}
    assert document["Author"] == "somebody"
    history = lamina("history", "--no-trunc", "--format", "{{.CreatedBy}}", "made").splitlines()
    assert history[0] == 'CMD ["/bin/ash" "-ec" "later"]'
    assert "RUN |4 FROM_GLOBAL=global X=given Y=given TARGETARCH=amd64 /bin/ash -ec echo triggered > /tmp/triggered" in history
    assert 'ENTRYPOINT ["/bin/ash" "-ec" "run it"]' in history
    assert "ENV A=1 B=" in history
    lamina("tag", "made", "parent")
    context.write({"Dockerfile": 'FROM parent\nENTRYPOINT ["e"]\nENTRYPOINT ["f"]\n'})
    context.build("-t", "made")
    assert lamina.document("made", "image")["Config"].get("Cmd") is None, "ENTRYPOINT takes an inherited CMD away"


@one_driver
def test_triggers_of_the_base_run_once_and_name_it_when_they_fail(lamina: Lamina, tmp_path: Path):
    context = Context(
        lamina, tmp_path / "context", "FROM base\nONBUILD COPY file /\nONBUILD RUN cat /file > /copied\n", {"file": "file\n"}
    )
    context.build("-t", "parent")
    context.write({"Dockerfile": "FROM parent\nRUN cat /copied > /again\n"})
    context.build("-t", "child")
    assert lamina("run", "--rm", "child", "cat", "/again") == "file"
    assert lamina.document("child", "image")["Config"].get("OnBuild") is None
    (context.directory / "file").unlink()
    context.write({"Dockerfile": "# a comment\nFROM parent\n"})
    assert "Dockerfile:2: COPY (ONBUILD of 'parent'): " in context.error("-q")


@one_driver
def test_from_scratch_from_a_digest_and_from_alone(lamina: Lamina, tmp_path: Path):
    context = Context(lamina, tmp_path / "context", "FROM scratch\nCOPY file /\n", {"file": "x"})
    context.build("-t", "scratchy")
    assert len(lamina.diff_ids("scratchy")) == 1
    context.write({"Dockerfile": "FROM base\n"})
    assert context.id("-t", "same") == lamina.document("base", "image")["Id"]
    digest = lamina.document("base", "image")["Id"]
    context.write({"Dockerfile": f"FROM {digest.partition(':')[2]}\nRUN true\n"})
    context.build()


@pytest.mark.parametrize("driver", [DRIVERS[0]], indirect=True)
def test_the_same_build_gives_the_same_image_on_every_driver_and_twice(lamina: Lamina, tmp_path: Path):
    context = Context(
        lamina,
        tmp_path / "context",
        "FROM base AS one\nRUN mkdir -p /d/e && echo x > /d/e/f && ln /d/e/f /d/g && rm -r /data /files/doomed && mv /tree /wood\n"
        "FROM base\nARG SOURCE_DATE_EPOCH\nWORKDIR /made/here\nCOPY file .\nCOPY --from=one /d /d\n"
        "RUN echo $SOURCE_DATE_EPOCH > /epoch; rm -r /tree; mkdir /tree; chown 5:6 /single; echo $HOSTNAME > /name\nENV A=b\n",
        {"file": "x"},
    )
    epoch = {"SOURCE_DATE_EPOCH": "1500000000"}
    ids = {context.id("--no-cache", "-t", driver, env=epoch, driver=driver) for driver in (*DRIVERS, DRIVERS[0])}
    assert len(ids) == 1
    document = lamina.document(DRIVERS[0], "image")
    assert document["Created"] == "2017-07-14T02:40:00Z"
    assert (
        lamina("run", "--rm", DRIVERS[0], "sh", "-c", "cat /epoch; stat -c %Y /epoch /made /made/here/file /d/e").splitlines()
        == ["1500000000"] * 5
    )
    assert context.id("--build-arg", "SOURCE_DATE_EPOCH=1500000001") not in ids


@contextlib.contextmanager
def building(lamina: Lamina, tmp_path: Path, marker: str) -> Iterator[subprocess.Popen[str]]:
    """A build in the middle of a RUN that never ends; `marker` is a word of its command line."""
    context = Context(
        lamina, tmp_path / "context", f"FROM base\nRUN echo one > /one\nRUN touch /half; echo at work; sleep 10{marker}\n"
    )
    with subprocess.Popen(
        lamina.command("build", "--progress", "plain", "-t", "made", str(context.directory)), stderr=subprocess.PIPE, text=True
    ) as builder:
        assert builder.stderr is not None
        for line in builder.stderr:
            if line.endswith("at work\n") and not line.endswith("echo at work\n"):
                break
        yield builder


def runs(marker: str) -> bool:
    """Whether the command is still there."""
    done = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return f"sleep 10{marker}" in done.stdout.splitlines()


def left(lamina: Lamina) -> list[str]:
    """What is half made."""
    with contextlib.closing(sqlite3.connect(f"file:{lamina.root}/lamina.db?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT key FROM layers WHERE state != 'sealed'").fetchall()
        rows += connection.execute("SELECT operation FROM build_blobs").fetchall()
    return [str(row) for row in rows] + [each.target for each in mountinfo.mounts() if each.target.startswith(f"{lamina.root}/")]


@each_driver
def test_a_builder_that_is_killed_leaves_nothing_after_the_next_command(lamina: Lamina, tmp_path: Path):
    marker = str(os.getpid())
    with building(lamina, tmp_path, marker) as builder:
        assert runs(marker)
        builder.kill()
        builder.wait()
        wait_until(lambda: not runs(marker), "the command dies with its builder")
        assert left(lamina)
        lamina("images")
        assert not left(lamina)
    assert Context(lamina, tmp_path / "again", "FROM base\nRUN echo one > /one\n").made() == [], "what was done stays"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_builder_that_is_stopped_leaves_nothing_at_once(lamina: Lamina, tmp_path: Path, number: signal.Signals):
    marker = str(os.getpid())
    with building(lamina, tmp_path, marker) as builder:
        builder.send_signal(number)
        assert builder.wait(30) == 130
        assert not runs(marker)
        assert not left(lamina)


@one_driver
def test_a_terminal_gets_a_live_view_and_its_cursor_back(lamina: Lamina, tmp_path: Path):
    context = Context(lamina, tmp_path / "context", "FROM base\nRUN echo said; false\n")
    ours, theirs = pty.openpty()
    done = subprocess.Popen(lamina.command("build", str(context.directory)), stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    told = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while data := os.read(ours, 65536):
            told += data
    os.close(ours)
    assert done.wait() == 1
    text = told.decode()
    assert "[+] Building" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown again"
    assert " > [2/2] RUN echo said; false:\r\nsaid\r\n" in text
    assert text.splitlines()[-1].startswith("error: Dockerfile:2: RUN: ")
