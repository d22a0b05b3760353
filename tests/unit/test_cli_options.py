"""How the options of `run`, `create` and others are read."""

import sys
from pathlib import Path
from typing import Any

import click
import pytest

from lamina.cli.container_options import IdFile, container_options, read_config
from lamina.cli.options import Command
from lamina.cli.process_options import check_working_dir, read_env
from lamina.cli.streams import NotATerminalError, Streams, check_terminal, joined
from lamina.errors import ConflictError, LaminaError, UsageError
from lamina.model.container import ContainerConfig


def parsed(*words: str, interspersed: bool = True) -> dict[str, Any]:
    @click.command(cls=Command, context_settings={"allow_interspersed_args": interspersed})
    @click.option("--rm", is_flag=True)
    @click.option("--tty", "-t", is_flag=True)
    @click.option("--proxy/--no-proxy", default=True)
    @click.option("--name", "-n", default="")
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(**values: Any) -> dict[str, Any]:
        return values

    found: dict[str, Any] = command.main(list(words), standalone_mode=False)
    return found


def config(**given: Any) -> ContainerConfig:
    @click.command(cls=Command)
    @container_options
    def command(**values: Any) -> dict[str, Any]:
        return values

    values: dict[str, Any] = command.main(["--network", "none"], standalone_mode=False)
    for name in ("name", "cidfile", "storage_driver", "attach", "pull"):  # those that `run` and `create` read themselves
        del values[name]
    values |= {"image": "busybox", "arguments": ()}
    return read_config(**values | given)


@pytest.mark.parametrize("value", ["true", "1", "T"])
def test_a_switch_may_be_said_to_be_on(value: str):
    assert parsed(f"--rm={value}", f"--proxy={value}")["rm"]


@pytest.mark.parametrize("value", ["false", "0", "F"])
def test_a_switch_may_be_said_to_be_off(value: str):
    found = parsed(f"--rm={value}", f"--proxy={value}", f"-t={value}")
    assert (found["rm"], found["proxy"], found["tty"]) == (False, False, False)


def test_a_switch_takes_no_other_value():
    with pytest.raises(click.BadParameter, match="'maybe' is not true or false"):
        parsed("--rm=maybe")


def test_what_comes_after_the_first_argument_is_left_alone():
    words = ("prog", "--rm=false", "-t=1", "--name", "x")
    assert parsed("-t", *words, interspersed=False)["words"] == words


def test_what_comes_after_two_dashes_is_left_alone():
    assert parsed("--", "--rm=false")["words"] == ("--rm=false",)


def test_an_options_value_is_not_taken_for_the_first_argument_or_a_switch():
    found = parsed("--name", "prog", "--rm=true", "-tn", "--rm=false", "--proxy=false", "x", interspersed=False)
    assert (found["name"], found["rm"], found["tty"], found["proxy"]) == ("--rm=false", True, True, False)
    assert found["words"] == ("x",)


@pytest.mark.parametrize(
    ("words", "name", "tty", "rest"),
    [
        (["-tnx"], "x", True, ()), (["-tn", "x", "y"], "x", True, ("y",)), (["-n=x"], "=x", False, ()),
        (["-n", "-t"], "-t", False, ()), (["-n--rm"], "--rm", False, ()), (["-tt", "-"], "", True, ("-",)),
    ],
)  # fmt: skip
def test_short_names_are_read_as_click_reads_them(words: list[str], name: str, tty: bool, rest: tuple[str, ...]):
    found = parsed(*words)
    assert (found["name"], found["tty"], found["words"], found["rm"]) == (name, tty, rest, False)


@pytest.mark.parametrize("word", ["-x", "-tx", "-xt"])
def test_a_short_name_that_is_not_known_is_told_as_it_was_typed(word: str):
    with pytest.raises(click.NoSuchOption, match="'-x'"):
        parsed(word)


def test_short_names_cost_no_search_for_likely_long_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "difflib", None)  # an import of it would fail
    assert parsed("-tn", "x", "-t")["name"] == "x"


def test_variables_come_from_files_then_from_options_and_a_bare_name_takes_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OURS", "here")
    monkeypatch.delenv("THEIRS", raising=False)
    file = tmp_path / "env"
    file.write_text("A=1\n# no\nOURS\nTHEIRS\n", encoding="utf-8")
    assert read_env(["B=2", "OURS", "THEIRS", "EMPTY="], [str(file)]) == ("A=1", "OURS=here", "B=2", "OURS=here", "EMPTY=")


def test_a_file_that_is_no_text_is_named(tmp_path: Path):
    file = tmp_path / "env"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="can't be read: it is not UTF-8 text"):
        read_env([], [str(file)])


def test_an_empty_entrypoint_is_not_the_same_as_none():
    assert config(entrypoint="").entrypoint == ("",)
    assert config().entrypoint == ()


def test_labels_come_from_files_and_options(tmp_path: Path):
    file = tmp_path / "labels"
    file.write_text("a=1\n\n# no\nb\n", encoding="utf-8")
    assert config(label_files=[str(file)], labels=["a=2", "c=x=y"]).labels == {"a": "2", "b": "", "c": "x=y"}


@pytest.mark.parametrize(
    "given",
    [
        {"labels": ["=x"]}, {"env": ["=x"]}, {"working_dir": "rel"}, {"hostname": "x" * 65}, {"hostname": "a b"},
        {"hostname": "a\nb"}, {"domainname": "a/b"}, {"stop_signal": "ZZZ"}, {"storage_options": ["x"]},
        {"storage_options": ["=x"]},
        {"volumes": ["rel/x:/y"]}, {"mounts": ["type=x"]}, {"tmpfses": ["rel"]}, {"label_files": ["/no/such"]},
    ],
    ids=str,
)  # fmt: skip
def test_a_value_that_cannot_be_meant_is_refused(given: dict[str, Any]):
    with pytest.raises(UsageError):
        config(**given)


def test_a_working_directory_is_absolute():
    check_working_dir("")
    check_working_dir("/x")
    with pytest.raises(UsageError, match="'x' is not absolute"):
        check_working_dir("x")


def test_an_id_file_is_new_and_stays_once_it_is_written(tmp_path: Path):
    path = tmp_path / "id"
    with pytest.raises(LaminaError, match="no luck"), IdFile(str(path)):
        raise LaminaError("no luck")
    assert not path.exists()
    with pytest.raises(LaminaError, match="no luck"), IdFile(str(path)) as file:
        file.write("abc")
        raise LaminaError("no luck")
    assert path.read_text(encoding="utf-8") == "abc"
    with pytest.raises(ConflictError, match="exists"), IdFile(str(path)):
        pass
    assert path.read_text(encoding="utf-8") == "abc"


def test_streams_are_joined_as_asked():
    assert joined(stdin=False) == Streams(stdin_fd=-1, stdout_fd=1, stderr_fd=2)
    assert joined(stdin=True) == Streams(stdin_fd=0, stdout_fd=1, stderr_fd=2)
    assert joined(stdin=True, attach=["stderr"]) == Streams(stdin_fd=-1, stdout_fd=-1, stderr_fd=2)
    assert not joined(stdin=True, attach=["stdin"]).shows_output


def test_a_terminal_needs_an_input_that_is_one(monkeypatch: pytest.MonkeyPatch):
    del monkeypatch
    check_terminal(joined(stdin=False), tty=True)
    check_terminal(joined(stdin=True), tty=False)
    with open("/dev/null", "rb") as nothing, pytest.raises(NotATerminalError, match="not a TTY"):
        check_terminal(Streams(stdin_fd=nothing.fileno(), stdout_fd=1, stderr_fd=2), tty=True)
