"""A build's values: variables, stages, settings, requests, the scheduler, what is shown."""

import io
import os
import re
from collections.abc import Mapping

import pytest

from lamina.build.excerpt import excerpt
from lamina.build.graph import needed_stages, target_stage
from lamina.build.memo import looked_at, looked_for
from lamina.build.progress import CACHED, DONE, FAILED
from lamina.build.progress_live import Live
from lamina.build.progress_plain import Plain, readable
from lamina.build.request import BuildRequest, parse_host, parse_secret, parse_ssh
from lamina.build.scheduler import Again, NeedStage, Readable, Scheduler, Work
from lamina.build.session import parse_platform
from lamina.build.settings import apply_setting, copy_history, joined
from lamina.build.state import State, key_of, scratch
from lamina.build.variables import Arguments
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.instructions import Arg, Copy
from lamina.dockerfile.parse import parse
from lamina.errors import UsageError
from lamina.model.image import Platform

MACHINE = Platform(os="linux", architecture="amd64")
DOCKERFILE = b"""
ARG BASE=one TAG=$BASE-x
FROM $BASE AS a
FROM a AS b
COPY --from=c /x /
FROM two AS c
FROM b
RUN --mount=type=bind,from=a,target=/a true
"""


def arguments(text: bytes, given: Mapping[str, str] | None = None) -> Arguments:
    return Arguments(parse(text), BuildRequest(build_args=given or {}), target=MACHINE, machine=MACHINE)


def test_global_arguments_see_those_before_and_what_was_given():
    assert arguments(DOCKERFILE).globals["TAG"] == "one-x"
    given = arguments(DOCKERFILE, {"BASE": "two", "HTTP_PROXY": "p", "other": "1"})
    assert given.globals["TAG"] == "two-x"
    assert given.globals["TARGETPLATFORM"] == "linux/amd64"
    assert given.proxies == {"HTTP_PROXY": "p"}
    assert given.unused() == ["other"]


def test_a_stage_sees_a_global_argument_only_where_it_says_so_and_the_later_of_arg_and_env():
    made = arguments(b"ARG A=global\nFROM x\nARG A B=$A-b C\nENV A=env\nARG A=own\n")
    first, env, second = made.dockerfile.stages[0].instructions
    assert isinstance(first, Arg)
    assert isinstance(second, Arg)
    state = scratch(MACHINE)
    assert state.variables == {}
    state, said = made.declare(state, first)
    assert said == ["A=global", "B=global-b", "C"]
    assert state.variables == {"A": "global", "B": "global-b"}
    state, _ = apply_setting(state, env, cmd_is_set=False)
    assert state.variables == {"A": "env", "B": "global-b"}
    state, _ = made.declare(state, second)
    assert state.variables == {"A": "own", "B": "global-b"}
    assert state.defaults.env == ("A=env",)
    assert state.declared == ("A", "B")


def test_only_the_stages_that_the_target_needs():
    dockerfile = parse(DOCKERFILE.replace(b"--from=c", b"--from=a"))
    made = Arguments(dockerfile, BuildRequest(), target=MACHINE, machine=MACHINE)
    assert needed_stages(dockerfile, made, 3) == [0, 1, 3]
    assert needed_stages(dockerfile, made, 2) == [2]
    assert [target_stage(dockerfile, name) for name in ("", "B", "0")] == [3, 1, 0]
    with pytest.raises(UsageError, match="there is no stage 'nowhere'"):
        target_stage(dockerfile, "nowhere")
    with pytest.raises(DockerfileError, match="Dockerfile:5: COPY: the stage 'c' doesn't come before this one"):
        needed_stages(parse(DOCKERFILE), made, 3)


@pytest.mark.parametrize(
    ("text", "path", "variable"),
    [
        ("id=a,src=f", "f", ""),
        ("id=a,env=V", "", "V"),
        ("type=env,id=a,src=V", "", "V"),
        ("id=a", "a", ""),
        ("id=PATH", "", "PATH"),
    ],
)
def test_secrets_are_files_or_variables(text: str, path: str, variable: str):
    secret = parse_secret(text)
    assert (secret.path, secret.variable) == (path, variable)


@pytest.mark.parametrize("text", ["", "src=x", "id=a,src=b,env=c", "id=a,what=b", "id=a,type=x"])
def test_a_secret_that_says_nothing_sensible_is_refused(text: str):
    with pytest.raises(UsageError, match="invalid secret"):
        parse_secret(text)


def test_hosts_and_agents(monkeypatch: pytest.MonkeyPatch):
    assert parse_host("db:10.0.0.1") == ("db", "10.0.0.1")
    assert parse_host("db:::1") == ("db", "::1")
    assert parse_host("db=[::1]") == ("db", "::1")
    for text in ("db", "db:here", ":10.0.0.1", "a b:10.0.0.1"):
        with pytest.raises(UsageError, match="invalid host"):
            parse_host(text)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(UsageError, match="there is no SSH agent to forward"):
        parse_ssh("default")
    with pytest.raises(UsageError, match="is not an SSH agent's socket"):
        parse_ssh(f"default={__file__}")


def test_platforms():
    assert str(parse_platform("linux/arm64/v8", machine=MACHINE)) == "linux/arm64"
    assert str(parse_platform("x86_64", machine=MACHINE)) == "linux/amd64"
    assert str(parse_platform("local", machine=MACHINE)) == "linux/amd64"
    assert str(parse_platform("linux/arm/v7", machine=MACHINE)) == "linux/arm/v7"
    for text in ("windows/amd64", "linux/", "a/b/c/d", "linux/a b"):
        with pytest.raises(UsageError):
            parse_platform(text, machine=MACHINE)


def test_working_directories_are_joined():
    assert [joined("/a", path) for path in ("b", "/b/", "../c", "..//../../d", ".")] == ["/a/b", "/b/", "/c", "/d", "/a"]


def test_every_fact_is_in_a_key():
    assert key_of("run", {"a": ["b", "c"]}) != key_of("run", {"a": ["b,c"]})
    assert key_of("run", {"a": "b"}) != key_of("copy", {"a": "b"})
    assert key_of("run", {"a": "b", "c": "d"}) == key_of("run", {"c": "d", "a": "b"})
    key_of("run", {"name": os.fsdecode(b"\xff")})


def _stage(log: list[str], name: str, *waits: object) -> Work:
    try:
        for wait in waits:
            log.append(f"{name} waits")
            yield wait  # type: ignore[misc]
        log.append(f"{name} done")
        return scratch(MACHINE)
    finally:
        log.append(f"{name} closed")


def test_stages_wait_for_each_other_for_descriptors_and_for_a_moment():
    log: list[str] = []
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"x")
    works = {0: lambda: _stage(log, "a", Readable(read_fd), Again()), 1: lambda: _stage(log, "b", NeedStage(0), NeedStage(2))}
    works[2] = lambda: _stage(log, "c")
    scheduler = Scheduler(lambda index: works[index](), tick=lambda: None)
    scheduler.run([1, 0])
    os.close(read_fd)
    os.close(write_fd)
    assert sorted(scheduler.states) == [0, 1, 2]
    assert all(isinstance(state, State) for state in scheduler.states.values())
    assert log.index("a done") < log.index("b done")


def test_a_stage_that_fails_closes_the_others():
    log: list[str] = []
    read_fd, write_fd = os.pipe()

    def failing() -> Work:
        yield Again()
        raise UsageError("no")

    works = [lambda: _stage(log, "a", Readable(read_fd)), failing]
    with pytest.raises(UsageError, match="no"):
        Scheduler(lambda index: works[index](), tick=lambda: None).run([0, 1])
    assert log == ["a waits", "a closed"]
    os.close(read_fd)
    os.close(write_fd)


def test_plain_progress_is_buildkits():
    out = io.StringIO()
    progress = Plain(out)
    one, two = progress.step("[1/2] RUN a"), progress.step("[2/2] RUN b")
    one.begin()
    two.begin()
    one.output(b"begun ")
    one.output(b"and ended\nrest")
    two.end(CACHED)
    one.end(DONE)
    lines = out.getvalue().splitlines()
    assert lines[:3] == ["#1 [1/2] RUN a", "", "#2 [2/2] RUN b"]
    assert [line.split(" ", 2)[-1] for line in lines if line.startswith("#1 0")] == ["begun and ended", "rest"]
    assert "#2 CACHED" in lines
    assert lines[-2].startswith("#1 DONE 0.")


def test_a_commands_output_does_nothing_to_the_terminal():
    assert readable(b"10%\r20%\r") == "20%"
    assert readable(b"\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J") == "\x1b[31mred\x1b[0m]0;title[2J\x1b[0m"
    assert "\x07" not in readable(b"bell\x07")


class Terminal(io.StringIO):
    """A terminal of a size, without being one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, lines: int, columns: int) -> None:
        super().__init__()
        monkeypatch.setattr(os, "get_terminal_size", lambda _fd: os.terminal_size((columns, lines)))

    def fileno(self) -> int:
        return 1


def picture(text: str) -> list[str]:
    """The last picture that was drawn, without colours and controls."""
    last = re.split(r"\r(?:\x1b\[\d+A)?", text)[-1]
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).splitlines()


def test_the_live_view_fits_the_terminal_and_shows_what_is_at_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal(monkeypatch, lines=8, columns=40)
    progress = Live(out)
    steps = [progress.step(f"[{number}/12] RUN {'long ' * 20}") for number in range(12)]
    for step in steps[:9]:
        step.begin()
        step.end(DONE)
    steps[9].begin()
    for number in range(30):
        steps[9].output(b"%d \x1b[2J\x1b[31mline of output that is longer than the terminal\n" % number)
    steps[10].begin()
    shown = picture(out.getvalue())
    assert len(shown) <= 7
    assert all(len(line) <= 40 for line in shown)
    assert shown[0].startswith("[+] Building")
    assert any("[9/12]" in line for line in shown)
    assert any("[10/12]" in line for line in shown)
    assert any(line.startswith(" => => # ") for line in shown)
    steps[10].end(FAILED)
    progress.failed(steps[10], "Dockerfile:3")
    progress.close()
    progress.close()
    text = out.getvalue()
    assert text.count("\x1b[?25h") == 1
    assert "Dockerfile:3" in text.partition("\x1b[?25h")[2]
    whole = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.rpartition("A")[2])
    assert "ERROR [10/12]" in whole


def test_an_excerpt_marks_the_lines():
    text = b"FROM a\nRUN one\nRUN two \\\n  three\nRUN four\n"
    shown = excerpt(text, parse(text), line=3, last_line=4).splitlines()
    assert shown[0] == "Dockerfile:3"
    assert shown[4:7] == ["   3 | >>> RUN two \\", "   4 | >>>   three", "   5 |     RUN four"]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://me:hush@r.example/a", "http://xxxxx@r.example/a"),
        ("HTTPS://hush@r.example/a.git#main", "HTTPS://xxxxx@r.example/a.git#main"),
        ("https://me:hu@hush@r.example/a@b", "https://xxxxx@r.example/a@b"),
        ("https://r.example/a@b", "https://r.example/a@b"),
        ("https://r.example?a=b@c", "https://r.example?a=b@c"),
        ("git@r.example:team/app", "git@r.example:team/app"),
    ],
)
def test_accounts_in_urls_are_in_no_history_and_in_no_excerpt(url: str, kept: str):
    text = f"FROM a\nADD {url} /x/\n".encode()
    dockerfile = parse(text)
    (add,) = dockerfile.stages[0].instructions
    assert isinstance(add, Copy)
    assert add.sources == (url,)
    assert copy_history(add) == f"ADD {kept} /x/"
    assert f"ADD {kept} /x/" in excerpt(text, dockerfile, line=2, last_line=2)


def test_what_a_copy_looks_at(tmp_path):  # type: ignore[no-untyped-def]
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/f").write_text("x")
    (tmp_path / "link").symlink_to("d")
    root = str(tmp_path)
    assert set(looked_at(root, ["d"], ["d", "d/f", "d/e"], with_patterns=False) or ()) == {
        root, f"{root}/d", f"{root}/d/e", f"{root}/d/f",
    }  # fmt: skip
    assert f"{root}/d/e" in (looked_at(root, ["*"], [], with_patterns=True) or ())
    assert looked_at(root, ["link/f"], ["d/f"], with_patterns=False) is None
    assert f"{root}/.dockerignore" in (looked_for(root, "") or ())
    (tmp_path / "Dockerfile").symlink_to("d/f")
    assert looked_for(root, "") is None
