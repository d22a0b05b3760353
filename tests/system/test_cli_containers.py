"""The commands for containers as a person types them: what they print, on which stream, and with which exit code.

Not here: what a container is made of (`test_show_*`), terminals by `exec` (`test_show_2_exec`). One driver is enough: these tests
are about the words.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cases import FOREVER, PROGRAM, Lamina, is_gone, wait_until
from terminals import CTRL_C, CTRL_P, CTRL_Q, Terminal

from lamina.linux import mount


@pytest.fixture
def driver() -> str:
    """The driver of these tests."""
    return "overlay"


# run and create


def test_run_passes_output_and_exit_code_on(lamina: Lamina):
    done = lamina.result("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)


def test_run_exits_as_docker_run_does(lamina: Lamina):
    lamina("run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -TERM $$'; exit $?", code=143)
    assert "'nowhere'" in lamina.error("run", "--rm", "busybox", "nowhere", code=127)
    assert "permission denied: '/etc'" in lamina.error("run", "--rm", "busybox", "/etc", code=126)
    assert lamina("ps", "-aq") == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "no such image: 'nowhere'"),
        (("--storage-driver", "zzz", "busybox", "true"), "storage driver 'zzz' is not installed"),
        (("--net", "zzz", "busybox", "true"), "no such network: 'zzz'"),
        (("--name", "a/b", "busybox", "true"), "invalid container name 'a/b'"),
        (("-v", "rel/dir:/x", "busybox", "true"), "source 'rel/dir' is not absolute"),
        (("-v", "/no/such:/x", "busybox", "true"), "source '/no/such' doesn't exist"),
        (("-v", "/tmp:x", "busybox", "true"), "target 'x' is not absolute"),
        (("--mount", "type=zzz,dst=/x", "busybox", "true"), "type 'zzz' is not bind, volume or tmpfs"),
        (("--tmpfs", "x", "busybox", "true"), "target 'x' is not absolute"),
        (("-w", "x", "busybox", "true"), "the working directory 'x' is not absolute"),
        (("-u", "nobody-here", "busybox", "true"), "nobody-here"),
        (("-e", "=x", "busybox", "true"), "invalid environment variable '=x'"),
        (("-l", "=x", "busybox", "true"), "invalid label '=x'"),
        (("-h", "x" * 65, "busybox", "true"), "invalid host name"),
        (("--stop-signal", "ZZZ", "busybox", "true"), "invalid signal 'ZZZ'"),
        (("--env-file", "/no/such", "busybox", "true"), "'/no/such' can't be read"),
        (("--storage-opt", "zzz=1", "busybox", "true"), "doesn't know the option 'zzz'"),
        (("--storage-opt", "size=1g", "busybox", "true"), "can't limit a container's size here"),
        (("--storage-opt", "size=1x", "busybox", "true"), "invalid size '1x'"),
        (("--zzz", "busybox"), "no such option"),
        (("--pull", "sometimes", "busybox"), "'sometimes' is not one of"),
        (("-d", "-a", "stdout", "busybox"), "contradict"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_run_cannot_do_is_one_line_and_125_and_leaves_nothing(lamina: Lamina, words: tuple[str, ...], said: str):
    assert said.lower() in lamina.error("run", "--rm", *words, code=125).lower()
    assert lamina("ps", "-aq") == ""
    assert lamina("volume", "ls", "-q") == ""


def test_a_name_in_use_is_told_and_nothing_is_left(lamina: Lamina):
    lamina("create", "--name", "taken", "busybox", "true")
    before = sorted(os.listdir(lamina.home()))
    assert "'taken' is already in use by container" in lamina.error("run", "--name", "taken", "busybox", "true", code=125)
    assert sorted(os.listdir(lamina.home())) == before
    lamina("rm", "taken")


def test_a_failure_of_create_is_1_and_of_its_options_125(lamina: Lamina):
    lamina.error("create", "nowhere", code=1)
    lamina.error("create", "-e", "=", "busybox", code=125)
    lamina.error("create", code=1)


def test_options_after_the_image_are_the_commands(lamina: Lamina):
    assert lamina("run", "--rm", "busybox", "echo", "--rm", "-it", "--init=false") == "--rm -it --init=false"


def test_switches_take_a_value_as_dockers_do(lamina: Lamina):
    container = lamina("create", "--rm=false", "--read-only=true", "-i=false", "busybox", "true")
    document = lamina.document(container)
    assert (document["HostConfig"]["AutoRemove"], document["HostConfig"]["ReadonlyRootfs"]) == (False, True)
    lamina("rm", container)


def test_what_create_is_told_is_what_inspect_shows(lamina: Lamina, tmp_path: Path):
    (tmp_path / "env").write_text("# a comment\nA=file\nB=file\n", encoding="utf-8")
    (tmp_path / "labels").write_text("one=1\ntwo\n", encoding="utf-8")
    container = lamina(
        "create", "--name", "told", "-it", "-e", "A=word", "--env-file", str(tmp_path / "env"), "-w", "/tmp", "-u", "1:2",
        "-v", f"{tmp_path}:/host:ro", "-v", "named:/data", "--tmpfs", "/scratch:size=1m", "--net", "host", "-h", "here",
        "--domainname", "example.org", "--entrypoint", "echo", "--read-only", "--label", "three=3", "--label-file",
        str(tmp_path / "labels"), "--stop-signal", "INT", "--stop-timeout", "7", "--init", "busybox", "a", "b",
    )  # fmt: skip
    document = lamina.document(container)
    config, host = document["Config"], document["HostConfig"]
    assert {"A=word", "B=file"} <= set(config["Env"])
    assert config["Labels"] == {"one": "1", "two": "", "three": "3"}
    assert (config["Entrypoint"], config["Cmd"], config["WorkingDir"], config["User"]) == (["echo"], ["a", "b"], "/tmp", "1:2")
    assert (config["Hostname"], config["Domainname"], config["Tty"], config["OpenStdin"]) == ("here", "example.org", True, True)
    assert (config["StopSignal"], config["StopTimeout"]) == ("INT", 7)
    assert host["Binds"] == [f"{tmp_path}:/host:ro", "named:/data"]
    assert (host["Tmpfs"], host["NetworkMode"], host["ReadonlyRootfs"], host["Init"]) == (
        {"/scratch": "size=1m"},
        "host",
        True,
        True,
    )
    lamina("rm", "told")
    lamina("volume", "rm", "named")


def test_the_id_file_is_new_holds_the_id_and_is_gone_after_a_failure(lamina: Lamina, tmp_path: Path):
    path = tmp_path / "id"
    container = lamina("create", "--cidfile", str(path), "busybox", "true")
    assert path.read_text(encoding="utf-8") == container
    assert f"'{path}' exists" in lamina.error("run", "--cidfile", str(path), "busybox", "true", code=125)
    assert path.read_text(encoding="utf-8") == container
    path.unlink()
    lamina.error("run", "--cidfile", str(path), "nowhere", code=125)
    assert not path.exists()
    lamina("rm", container)


def test_standard_input_is_passed_on_with_i_alone(lamina: Lamina):
    assert lamina("run", "--rm", "-i", "busybox", "cat", stdin="typed\n") == "typed"
    assert lamina("run", "--rm", "busybox", "cat", stdin="typed\n") == ""


def test_a_chosen_stream_alone_is_joined(lamina: Lamina):
    script = ("sh", "-c", "echo out; echo err >&2")
    done = lamina.result("run", "--rm", "-a", "stderr", "busybox", *script)
    assert (done.stdout, done.stderr) == ("", "err\n")


def test_a_terminal_is_not_given_to_an_input_that_is_none(lamina: Lamina):
    assert "the input device is not a TTY" in lamina.error("run", "--rm", "-it", "busybox", "true", code=1)
    assert lamina("run", "--rm", "-t", "busybox", "tty") == "/dev/pts/0"


def test_signals_are_passed_on_unless_told_otherwise(lamina: Lamina):
    script = "trap 'echo got; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    for words, code in (((), 9), (("--sig-proxy=false",), -signal.SIGTERM)):
        client = subprocess.Popen(
            lamina.command("run", *words, "--name", "sig", "busybox", "sh", "-c", script), stdout=subprocess.PIPE, text=True
        )
        assert client.stdout is not None
        assert client.stdout.readline() == "up\n"
        client.terminate()
        assert client.wait(15) == code
        client.stdout.close()
        assert lamina.show("sig", "{{.State.Running}}") == str(code != 9).lower()
        lamina("rm", "-f", "sig")


def test_a_closed_standard_stream_is_not_taken_for_a_file_of_the_store(lamina: Lamina):
    command = shlex.join(lamina.command("run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo written"))
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        subprocess.run(["/bin/sh", "-c", f"{command} {closed}"], check=True, timeout=30, stdout=subprocess.DEVNULL)
    assert lamina("ps", "-aq") == ""


def test_a_reader_that_goes_away_ends_the_client_and_not_the_container(lamina: Lamina):
    client = subprocess.Popen(
        lamina.command("run", "--name", "loud", "busybox", "yes"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert client.stdout is not None
    assert client.stderr is not None
    assert client.stdout.read(2) == b"y\n"
    client.stdout.close()
    assert client.wait(15) == 141
    assert client.stderr.read() == b""
    client.stderr.close()
    assert lamina.show("loud", "{{.State.Running}}") == "true"
    lamina("rm", "-f", "loud")


def test_a_client_that_is_ended_gives_the_terminal_back(lamina: Lamina):
    lamina.background("--name", "left", "busybox", *FOREVER)
    script = (
        f"stty -a; {shlex.join(lamina.command('exec', '-it', 'left', 'sh', '-c', 'echo up; sleep 4711'))}; echo code $?; stty -a"
    )
    with Terminal(["/bin/sh", "-c", script]) as terminal:
        terminal.expect(r"up\r\n")
        children = Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read_text(encoding="ascii").split()
        os.kill(int(children[0]), signal.SIGTERM)
        terminal.expect("code 143")
        assert terminal.wait() == 0
    before, after = (part for part in terminal.all.split("speed") if "baud" in part)
    assert before.split("up\r\n")[0] == after
    lamina("rm", "-f", "left")


def test_ctrl_c_at_a_terminal_without_input_reaches_the_container(lamina: Lamina):
    script = "trap 'echo got; exit 9' INT; echo up; while :; do sleep 0.05; done"
    with Terminal(lamina.command("run", "--rm", "-t", "busybox", "sh", "-c", script)) as terminal:
        terminal.expect("up")
        terminal.type(CTRL_C)
        terminal.expect("got")
        assert terminal.wait() == 9


def test_start_joins_a_terminal_and_leaves_it_by_the_detach_keys(lamina: Lamina):
    lamina("create", "-it", "--name", "shell", "busybox", "sh")
    with Terminal(lamina.command("start", "-ai", "shell"), rows=30, columns=90) as terminal:
        terminal.expect("# ")
        terminal.type("stty size\n")
        terminal.expect("30 90")
        terminal.type(CTRL_P + CTRL_Q)
        assert terminal.wait() == 0
    assert lamina("ps", "--format", "{{.Names}} {{.State}}") == "shell running"
    lamina("rm", "-f", "shell")


# ps


def test_ps_prints_the_table_of_docker_ps(lamina: Lamina):
    container = lamina.background("--name", "one", "busybox", "sh", "-c", "sleep 1000000 # and more")
    head, row = lamina("ps").splitlines()
    assert re.split(r"\s{2,}", head) == ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert re.fullmatch(rf"{container[:12]}   busybox   \"sh -c 'sleep 100000…\"   .* ago   Up .*  one", row)
    assert head.index("NAMES") == row.index("one")
    lamina("rm", "-f", "one")


def test_ps_says_how_each_container_is(lamina: Lamina):
    lamina("create", "--name", "new", "busybox", "true")
    lamina("run", "--name", "done", "busybox", "sh", "-c", "exit 3", code=3)
    lamina.background("--name", "up", "busybox", *FOREVER)
    lamina.background("--name", "frozen", "busybox", *FOREVER)
    lamina.background("--name", "lost", "busybox", *FOREVER)
    lamina("pause", "frozen")
    stat = Path(f"/proc/{lamina.pid('lost')}/stat").read_text(encoding="utf-8")
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    status = dict(line.split(" ", 1) for line in lamina("ps", "-a", "--format", "{{.Names}} {{.Status}}").splitlines())
    assert status["new"] == "Created"
    assert re.fullmatch(r"Exited \(3\) .* ago", status["done"])
    assert re.fullmatch(r"Up (Less than a second|\d+ seconds?)", status["up"])
    assert status["frozen"].endswith(" (Paused)")
    assert status["lost"].endswith(" (monitor lost)")
    assert set(lamina("ps", "--format", "{{.Names}}").split()) == {"up", "frozen", "lost"}
    lamina("rm", "-f", "new", "done", "up", "frozen", "lost")


def test_ps_filters(lamina: Lamina):
    lamina("create", "--name", "first", "--label", "a=1", "busybox", "true")
    lamina("create", "--name", "second", "--label", "a=2", "--label", "b", "-v", "data:/d", "base", "true")
    lamina("run", "--name", "third", "--net", "host", "busybox", "sh", "-c", "exit 4", code=4)
    lamina("commit", "first", "child:1")
    lamina("create", "--name", "fourth", "child:1", "true")

    def names(*filters: str) -> list[str]:
        words = [word for text in filters for word in ("-f", text)]
        return sorted(lamina("ps", "-a", *words, "--format", "{{.Names}}").split())

    assert names("name=ir") == ["first", "third"]
    assert names("name=^/?second$") == ["second"]
    assert names("name=first", "name=second") == ["first", "second"]
    assert names("label=a") == ["first", "fourth", "second"]  # a committed image has its container's labels
    assert names("label=a=2", "label=b") == ["second"]
    assert names("status=created") == ["first", "fourth", "second"]
    assert names("status=exited", "name=first") == []
    assert names("exited=4") == ["third"]
    assert names("ancestor=busybox") == ["first", "fourth", "third"]
    assert names("ancestor=child:1") == ["fourth"]
    assert names("ancestor=nowhere") == []
    assert names("before=second") == ["first"]
    assert names("since=second") == ["fourth", "third"]
    assert names("volume=data") == ["second"]
    assert names("volume=/d") == ["second"]
    assert names("network=host") == ["third"]
    assert names(f"id={lamina.show('first', '{{.Id}}')[:9]}") == ["first"]
    assert lamina("ps", "-f", "status=created", "-q").count("\n") == 2
    lamina.error("ps", "-f", "zzz=1", code=1)
    lamina.error("ps", "-f", "zzz", code=1)
    lamina.error("ps", "-f", "status=zzz", code=1)
    lamina.error("ps", "-f", "before=nobody", code=1)
    lamina("rm", "first", "second", "third", "fourth")
    lamina("rmi", "child:1")
    lamina("volume", "rm", "data")


def test_ps_formats(lamina: Lamina):
    container = lamina("create", "--name", "one", "--label", "x=y", "--label", "b=c", "-v", "/tmp:/t", "busybox", "true")
    assert lamina("ps", "-aq") == container[:12]
    assert lamina("ps", "-aq", "--no-trunc") == container
    assert lamina("ps", "-a", "--format", '{{.Label "x"}} {{.Labels}} {{.Mounts}} {{.Driver}}') == "y b=c,x=y /tmp overlay"
    assert lamina("ps", "-a", "--format", r"table {{.Names}}\t{{.State}}") == "NAMES     STATE\none       created"
    row = json.loads(lamina("ps", "-a", "--format", "json"))
    assert (row["ID"], row["Names"], row["Command"], row["Size"]) == (container[:12], "one", '"true"', "0B")
    assert "virtual" in lamina("ps", "-as")
    lamina.error("ps", "-a", "--format", "{{.Nope}}", code=1)
    lamina("rm", "one")


def test_ps_shows_the_last_ones_made(lamina: Lamina):
    for name in ("one", "two", "three"):
        lamina("create", "--name", name, "busybox", "true")
    assert lamina("ps", "-l", "--format", "{{.Names}}") == "three"
    assert lamina("ps", "-n", "2", "--format", "{{.Names}}").split() == ["three", "two"]
    lamina("rm", "one", "two", "three")


def test_ps_names_the_image_by_its_id_when_the_name_is_anothers(lamina: Lamina):
    lamina("tag", "busybox", "moving")
    container = lamina("create", "moving", "true")
    lamina("tag", "base", "moving")
    short = lamina.show(container, "{{.Image}}").removeprefix("sha256:")[:12]
    assert lamina("ps", "-a", "--format", "{{.Image}}") == short
    lamina("rm", container)
    lamina("rmi", "moving")


def test_what_an_image_or_a_user_wrote_cannot_drive_the_terminal(lamina: Lamina):
    lamina("create", "--name", "bad", "--label", "x=\x1b[31mred", "busybox", "echo", "\x1b]0;title\x07")
    for words in (("ps", "-a", "--no-trunc"), ("ps", "-a", "--format", "{{.Labels}}"), ("inspect", "bad"),
                  ("inspect", "-f", "{{.Config.Labels}} {{.Args}}", "bad")):  # fmt: skip
        with Terminal(lamina.command(*words), columns=500) as terminal:
            assert terminal.wait() == 0
        assert "\x1b" not in terminal.all
        assert "1b[31mred" in terminal.all or "title" in terminal.all
    lamina("rm", "bad")


# inspect


def test_inspect_finds_containers_images_and_volumes_and_tells_of_the_missing(lamina: Lamina):
    lamina("create", "--name", "one", "-v", "data:/d", "busybox", "true")
    done = lamina.result("inspect", "one", "nobody", "busybox", "data")
    found = json.loads(done.stdout)
    assert [each.get("Name", each.get("Id", ""))[:4] for each in found] == ["/one", "sha2", "data"]
    assert done.stdout.startswith('[\n    {\n        "Id"')
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no such object: 'nobody'" in done.stderr
    assert json.loads(lamina.result("inspect", "nobody").stdout) == []
    lamina.error("image", "inspect", "-f", "{{.Id}}", "one", code=1)
    assert "no such container" in lamina.result("inspect", "--type", "container", "busybox").stderr
    assert "no such container" in lamina.result("container", "inspect", "busybox").stderr
    assert lamina("inspect", "--type", "volume", "-f", "{{.Driver}}", "data") == "local"
    assert int(lamina("inspect", "-s", "-f", "{{.SizeRootFs}}", "one")) > 1_000_000
    lamina("rm", "one")
    lamina("volume", "rm", "data")


# logs


def test_logs_keeps_the_streams_apart(lamina: Lamina):
    container = lamina.background("busybox", "sh", "-c", "echo out; echo err >&2")
    lamina("wait", container)
    done = lamina.result("logs", container)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    lamina("rm", container)


def test_logs_shows_a_part(lamina: Lamina):
    container = lamina.background("busybox", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done")
    lamina("wait", container)
    assert lamina("logs", "-n", "2", container) == "2\n3"
    assert lamina("logs", "--tail", "0", container) == ""
    assert lamina("logs", "--tail", "all", container) == "1\n2\n3"
    stamped = [line.split(" ") for line in lamina("logs", "-t", container).splitlines()]
    assert [text for _stamp, text in stamped] == ["1", "2", "3"]
    assert lamina("logs", "--since", stamped[1][0], container) == "2\n3"
    assert lamina("logs", "--until", stamped[1][0], container) == "1\n2"
    assert lamina("logs", "--since", "1h", "--details", container) == " 1\n 2\n 3"
    lamina.error("logs", "--since", "zzz", container, code=1)
    lamina.error("logs", "-n", "zzz", container, code=1)
    lamina("rm", container)


WAIT_FOR = "until [ -e /{} ]; do sleep 0.05; done"


def test_following_shows_lines_as_they_come_and_ends_with_the_container(lamina: Lamina):
    before = os.times()
    script = f"echo one; {WAIT_FOR.format('two')}; echo two; {WAIT_FOR.format('three')}; echo three; exit 5"
    lamina.background("--rm", "--name", "talk", "busybox", "sh", "-c", script)
    follower = subprocess.Popen(lamina.command("logs", "-f", "talk"), stdout=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    assert follower.stdout.readline() == "one\n"
    lamina("exec", "talk", "touch", "/two")
    assert follower.stdout.readline() == "two\n"
    lamina.result("exec", "talk", "touch", "/three")  # which may be killed with the container that it ends
    assert follower.stdout.read() == "three\n"
    assert follower.wait(10) == 0
    follower.stdout.close()
    assert os.times().children_user - before.children_user < 10  # it slept: the wait above would be a busy loop's otherwise


def test_following_what_has_ended_shows_it_and_ends(lamina: Lamina):
    lamina("run", "--name", "done", "busybox", "echo", "said")
    assert lamina("logs", "-f", "done") == "said"
    lamina("create", "--name", "new", "busybox", "true")
    assert lamina("logs", "new") == ""
    lamina("rm", "done", "new")


# The rest of a life


def test_stop_sends_the_signal_waits_and_kills(lamina: Lamina):
    deaf = lamina.background("busybox", "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    polite = lamina.background("busybox", "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done")
    other = lamina.background("--stop-signal", "USR1", "busybox", "sh", "-c", "trap 'exit 8' USR1; while :; do sleep 0.05; done")
    begun = time.monotonic()
    assert lamina("stop", "-t", "1", deaf, polite, other).splitlines() == [deaf, polite, other]
    assert 0.9 < time.monotonic() - begun < 8
    assert [lamina.show(each, "{{.State.ExitCode}}") for each in (deaf, polite, other)] == ["137", "7", "8"]
    assert lamina("stop", polite) == polite
    lamina("rm", deaf, polite, other)


def test_several_are_stopped_side_by_side(lamina: Lamina):
    deaf = [lamina.background("busybox", "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done") for _ in range(3)]
    begun = time.monotonic()
    lamina("stop", "--time", "2", *deaf)
    assert time.monotonic() - begun < 5
    lamina("rm", *deaf)


def test_wait_gives_exit_codes_of_those_that_go_away_too(lamina: Lamina):
    kept = lamina.background("busybox", "sh", "-c", f"{WAIT_FOR.format('go')}; exit 6")
    gone = lamina.background("--rm", "busybox", "sh", "-c", f"{WAIT_FOR.format('go')}; exit 5")
    waiting = subprocess.Popen(lamina.command("wait", kept, gone), stdout=subprocess.PIPE, text=True)
    wait_until(lambda: has_pidfd(waiting.pid), "a wait for the first")
    for container in (gone, kept):  # it still waits for the first when the second has gone
        lamina.result("exec", container, "touch", "/go")  # which may be killed with the container that it ends
    assert waiting.communicate(timeout=30)[0].split() == ["6", "5"]
    assert waiting.returncode == 0
    assert lamina("ps", "-aq") == kept[:12]
    lamina("rm", kept)


def has_pidfd(pid: int) -> bool:
    """Whether a process waits for another one's end."""
    held = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            held.append(os.readlink(each))
    return "anon_inode:[pidfd]" in held


def test_all_names_are_tried_and_each_failure_is_one_line(lamina: Lamina):
    lamina("create", "--name", "one", "busybox", "true")
    lamina("create", "--name", "two", "busybox", "true")
    for words in (("start",), ("wait",), ("stop",), ("rm",)):
        done = lamina.result(*words, "one", "nobody", "two", "noone")
        assert done.returncode == 1
        assert len(done.stdout.splitlines()) == 2
        assert [line.split(" (")[0] for line in done.stderr.splitlines()] == [
            "error: no such container: 'nobody'",
            "error: no such container: 'noone'",
        ]


def test_rm_refuses_what_runs_and_with_force_does_not_mind_what_is_gone(lamina: Lamina):
    lamina.background("--name", "up", "busybox", *FOREVER)
    pid = lamina.pid("up")
    assert "container 'up' is running" in lamina.error("rm", "up", code=1)
    done = lamina.result("rm", "-f", "nobody", "up")
    assert (done.stdout, done.returncode) == ("up\n", 0)
    assert "no such container: 'nobody'" in done.stderr
    assert is_gone(pid)


def test_start_of_what_runs_is_no_error_and_of_what_cannot_is_one_line(lamina: Lamina):
    lamina.background("--name", "up", "busybox", *FOREVER)
    assert lamina("start", "up") == "up"
    lamina("create", "--name", "bad", "busybox", "nowhere")
    for _ in range(2):
        lamina.error("start", "bad", code=1)
        assert lamina("ps", "-a", "-f", "name=bad", "--format", "{{.Status}}") == "Created"
    lamina.error("start", "-a", "up", "bad", code=1)
    lamina("rm", "-f", "up", "bad")


def test_restart_pause_and_kill(lamina: Lamina):
    lamina.background("--name", "up", "busybox", *FOREVER)
    pid = lamina.pid("up")
    assert lamina("restart", "-t", "0", "up") == "up"
    assert lamina.pid("up") != pid
    assert lamina("pause", "up") == "up"
    assert "is paused" in lamina.error("attach", "up", code=1)
    lamina.error("pause", "up", code=1)
    assert lamina("unpause", "up") == "up"
    lamina.error("unpause", "up", code=1)
    lamina.error("kill", "-s", "ZZZ", "up", code=1)
    assert lamina("kill", "-s", "SIGKILL", "up") == "up"
    assert lamina.show("up", "{{.State.ExitCode}}") == "137"
    lamina.error("kill", "up", code=1)
    lamina("rm", "up")


def test_rename(lamina: Lamina):
    lamina("create", "--name", "one", "busybox", "true")
    lamina("create", "--name", "two", "busybox", "true")
    lamina("rename", "one", "uno")
    assert set(lamina("ps", "-a", "--format", "{{.Names}}").split()) == {"uno", "two"}
    assert "already in use" in lamina.error("rename", "uno", "two", code=1)
    lamina.error("rename", "uno", "a/b", code=1)
    lamina("rm", "uno", "two")


def test_top_shows_the_hosts_pids_and_runs_no_program_of_the_container(lamina: Lamina):
    lamina.background("--name", "up", "busybox", "sh", "-c", "rm /bin/ps; sleep 1000000; :")
    wait_until(lambda: "sleep 1000000" in lamina("top", "up"), "the child")
    head, *rows = lamina("top", "up").splitlines()
    assert head.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert str(lamina.pid("up")) in [row.split()[1] for row in rows]
    head, *rows = lamina("top", "up", "-o", "pid,comm").splitlines()
    assert head.split() == ["PID", "COMMAND"]
    assert sorted(row.split()[1] for row in rows) == ["sh", "sleep"]
    lamina.error("top", "up", "-o", "comm", code=1)
    lamina.error("top", "up", "-o", "comm=PID,pid=X", code=1)
    lamina.error("top", "up", "--zzz", code=1)
    lamina("rm", "-f", "up")


def test_diff_commit_and_export(lamina: Lamina, tmp_path: Path):
    lamina("run", "--name", "one", "busybox", "sh", "-c", "echo x > /new; rm /bin/arch")
    assert lamina("diff", "one").splitlines() == ["C /bin", "D /bin/arch", "A /new"]
    image = lamina("commit", "-a", "me", "-m", "note", "-c", "ENV K=V", "one", "made:1")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image)
    document = lamina.document("made:1", "image")
    assert (document["Id"], document["Author"], document["Comment"]) == (image, "me", "note")
    assert "K=V" in document["Config"]["Env"]
    archive = tmp_path / "out.tar"
    lamina("export", "-o", str(archive), "one")
    listed = subprocess.run(["tar", "tf", str(archive)], capture_output=True, text=True, check=True).stdout.split()
    assert "new" in listed
    assert "bin/arch" not in listed
    assert os.listdir(tmp_path / "root" / "containers") != []
    with Terminal(lamina.command("export", "one")) as terminal:
        assert terminal.wait() == 1
    assert "terminal" in terminal.all
    lamina("rm", "one")
    lamina("rmi", "made:1")


def test_container_prune_asks_and_tells_what_it_freed(lamina: Lamina):
    lamina("create", "--name", "one", "--label", "keep", "busybox", "true")
    two = lamina("create", "--name", "two", "busybox", "true")
    lamina.background("--name", "up", "busybox", *FOREVER)
    assert "WARNING! This will remove all stopped containers." in lamina.result("container", "prune", stdin="n\n").stderr
    assert len(lamina("ps", "-aq").split()) == 3
    done = lamina("container", "prune", "-f", "--filter", "label!=keep").splitlines()
    assert done[:2] == ["Deleted Containers:", two]
    assert done[-1].startswith("Total reclaimed space: ")
    assert lamina("container", "prune", "-f", "--filter", "until=1h") == "Total reclaimed space: 0B"
    assert lamina("container", "prune", stdin="y\n").splitlines()[0] == "Deleted Containers:"
    assert lamina("ps", "-a", "--format", "{{.Names}}") == "up"
    lamina("rm", "-f", "up")


# Where nothing can be done


def test_a_root_that_cannot_be_written_is_one_line(tmp_path: Path):
    for words, code in ((("ps",), 1), (("run", "busybox", "true"), 125)):
        done = subprocess.run([PROGRAM, "--root", "/proc/nowhere", *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith("error: '/proc/nowhere' can't be made")
        assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_one_line_and_leaves_no_container(lamina: Lamina, tmp_path: Path):
    place = tmp_path / "small"
    place.mkdir()
    mount.mount("tmpfs", str(place), "tmpfs", 0, "size=6m")
    small = Lamina(place / "root", "vfs")
    small("image", "bootstrap")
    made = []
    for number in range(9):
        done = small.result("run", "-d", "--name", f"c{number}", "busybox", "true")
        if done.returncode:
            break
        made.append(f"c{number}")
    assert done.returncode == 125
    assert done.stderr.startswith("error: no space left on device")
    assert done.stderr.count("\n") == 1
    assert sorted(small("ps", "-a", "--format", "{{.Names}}").split()) == made
    assert len(os.listdir(small.home() / "dir")) == len(made) + 1
    small("rm", "-f", *made)
    small("run", "--rm", "busybox", "true")
    del lamina
    mount.unmount(str(place))
