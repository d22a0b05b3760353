"""What to show, 2: `exec` enters by setns, and with `-it` it is a real terminal, as `run -it` and `attach` are."""

import os
import signal
from pathlib import Path

import pytest
from cases import FOREVER, Lamina, driver_of, each_driver, is_gone, namespaces, wait_until
from terminals import CTRL_C, CTRL_D, CTRL_P, CTRL_Q, CTRL_Z, Terminal

PROMPT = r"/ # (\x1b\[6n)?$"


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


@pytest.fixture
def container(lamina: Lamina) -> str:
    """A container that runs on."""
    return lamina.background("base", *FOREVER)


def at_a_prompt(lamina: Lamina, *words: str, rows: int = 24, columns: int = 80) -> Terminal:
    """A shell in a container, at a terminal, waiting for a command."""
    terminal = Terminal(lamina.command(*words), rows=rows, columns=columns)
    terminal.expect(PROMPT)
    return terminal


@each_driver
def test_inside_exec_every_namespace_is_the_containers(lamina: Lamina, container: str):
    seen = lamina("exec", container, "sh", "-c", "for kind in /proc/self/ns/*; do echo ${kind##*/} $(readlink $kind); done")
    assert dict(line.split() for line in seen.splitlines()) == namespaces(lamina.pid(container))


@each_driver
def test_exec_sees_the_containers_files_processes_and_hostname(lamina: Lamina, container: str):
    lamina("exec", container, "sh", "-c", "echo made > /made")
    assert lamina("exec", container, "cat", "/made", "/test/inside") == "made\nthe image's own"
    assert (lamina.merged(container) / "made").read_text(encoding="utf-8") == "made\n"
    assert "sleep 1000000" in lamina("exec", container, "ps")
    assert lamina("exec", container, "hostname") == container[:12]


def test_exec_takes_user_directory_and_environment(lamina: Lamina, container: str):
    assert lamina(
        "exec", "-u", "alice", "-w", "/files", "-e", "COLOUR=blue", container, "sh", "-c", "id; pwd; echo $COLOUR $HOME"
    ) == ("uid=1000(alice) gid=1000(alice) groups=10(wheel),1000(alice)\n/files\nblue /home/alice")


def test_exec_gives_the_commands_exit_code(lamina: Lamina, container: str):
    lamina("exec", container, "sh", "-c", "exit 41", code=41)
    lamina("exec", container, "sh", "-c", "kill -TERM $$", code=143)
    lamina("exec", container, "nowhere", code=127)
    lamina("exec", container, "/files/plain", code=126)
    lamina.error("exec", "nobody", "true", code=1)


def test_exec_carries_standard_input_output_and_error_apart(lamina: Lamina, container: str):
    done = lamina.result("exec", "-i", container, "sh", "-c", "cat; echo bad >&2", stdin="one\ntwo\n")
    assert (done.stdout, done.stderr, done.returncode) == ("one\ntwo\n", "bad\n", 0)
    large = "0123456789abcdef" * (1 << 16)
    assert lamina("exec", "-i", container, "cat", stdin=large) == large


def test_exec_detached_leaves_its_command_running(lamina: Lamina, container: str):
    lamina("exec", "-d", container, "sh", "-c", "sleep 0.2; echo done > /done")
    wait_until((lamina.merged(container) / "done").exists, "what the detached command writes")


def test_exec_in_a_container_that_does_not_run_or_is_paused_is_one_line(lamina: Lamina, container: str):
    lamina("pause", container)
    assert "is paused" in lamina.error("exec", container, "true", code=1)
    lamina("unpause", container)
    lamina("kill", container)
    assert "is not running" in lamina.error("exec", container, "true", code=1)


def test_exec_it_is_a_terminal_and_without_t_it_is_not(lamina: Lamina, container: str):
    with at_a_prompt(lamina, "exec", "-it", container, "sh") as terminal:
        terminal.type("tty; test -t 0 && test -t 1 && test -t 2 && echo all $((40 + 2))\n")
        terminal.expect(r"/dev/pts/\d+\r\n")
        terminal.expect("all 42")
        terminal.expect(PROMPT)
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
    assert lamina("exec", "-i", container, "tty", stdin="", code=1) == "not a tty"


def is_in_front(lamina: Lamina, container: str, command: str) -> bool:
    """Whether the command's process group is its terminal's foreground group (proc_pid_stat(5), fields 5 and 8)."""
    pid = next(line.split()[1] for line in lamina("top", container).splitlines() if command in line)
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return fields[2] == fields[5]


def test_exec_it_has_job_control(lamina: Lamina, container: str):
    with at_a_prompt(lamina, "exec", "-it", container, "sh") as terminal:
        terminal.type("sleep 4711\n")
        wait_until(lambda: "sleep 4711" in lamina("exec", container, "ps"), "the job")
        terminal.type(CTRL_Z)
        terminal.expect(r"\[1\]\+\s+Stopped\s+sleep 4711")
        terminal.expect(PROMPT)
        terminal.type("bg\n")
        terminal.expect(r"\[1\] sleep 4711")
        terminal.type("jobs\n")
        terminal.expect(r"\[1\]\+\s+Running\s+sleep 4711")
        terminal.type("fg\n")
        terminal.expect(r"sleep 4711")
        wait_until(lambda: is_in_front(lamina, container, "sleep 4711"), "the job to be given the terminal")
        terminal.type(CTRL_C)
        terminal.expect(PROMPT)
        terminal.type("jobs; echo code $?; exit 7\n")
        terminal.expect("code 0")
        assert terminal.wait() == 7
    assert "4711" not in lamina("exec", container, "ps")


def test_ctrl_c_ends_the_command_in_front_and_nothing_else(lamina: Lamina, container: str):
    with Terminal(lamina.command("exec", "-it", container, "sleep", "4711")) as terminal:
        wait_until(lambda: "sleep 4711" in lamina("exec", container, "ps"), "the command")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
    assert lamina.show(container, "{{ .State.Running }}") == "true"


def test_the_window_size_is_that_of_the_terminal_and_follows_it(lamina: Lamina, container: str):
    script = "trap 'echo now $(stty size)' WINCH; echo first $(stty size); while :; do sleep 0.02; done"
    for words in (("exec", "-it", container), ("run", "-it", "--init", "base"), ("run", "-it", "base")):
        with Terminal(lamina.command(*words, "sh", "-c", script), rows=33, columns=101) as terminal:
            terminal.expect(r"first 33 101\r\n")
            terminal.resize(50, 132)
            terminal.expect(r"now 50 132\r\n")
            terminal.resize(20, 40)
            terminal.expect(r"now 20 40\r\n")
            is_first = words == ("run", "-it", "base")  # which, without a handler, no Ctrl-C ends
            terminal.type(CTRL_P + CTRL_Q if is_first else CTRL_C)
            assert terminal.wait() == (0 if is_first else 130)


def test_the_first_size_is_there_before_the_command_runs(lamina: Lamina, container: str):
    for words in (("exec", "-it", container), ("run", "--rm", "-it", "base")):
        with Terminal(lamina.command(*words, "stty", "size"), rows=41, columns=99) as terminal:
            assert terminal.wait() == 0
            assert terminal.all == "41 99\r\n"


def test_ctrl_p_ctrl_q_leaves_exec_and_the_command_runs_on(lamina: Lamina, container: str):
    with at_a_prompt(lamina, "exec", "-it", container, "sh") as terminal:
        terminal.type("sleep 0.5; echo survived > /survived; sleep 4711\n")
        terminal.type(CTRL_P)
        terminal.type(CTRL_Q)
        assert terminal.wait() == 0
    wait_until((lamina.merged(container) / "survived").exists, "what the left command writes")
    assert "sleep 4711" in lamina("exec", container, "ps")


def test_one_ctrl_p_alone_is_passed_on(lamina: Lamina, container: str):
    with Terminal(
        lamina.command("exec", "-it", container, "sh", "-c", "stty raw -echo; echo up; head -c 2 | od -An -tx1")
    ) as terminal:
        terminal.expect("up")
        terminal.type(CTRL_P)
        terminal.type("x")
        terminal.expect("10 78")
        assert terminal.wait() == 0


def test_run_it_is_left_with_the_detach_keys_and_joined_again_with_attach(lamina: Lamina):
    with at_a_prompt(lamina, "run", "-it", "--name", "shell", "base", "sh") as terminal:
        terminal.type("WORD=kept; tty; ls -l /dev/console\n")
        terminal.expect(r"/dev/pts/0\r\n")
        terminal.expect(r"crw\S+ .* /dev/console")
        terminal.expect(PROMPT)
        terminal.type(CTRL_P + CTRL_Q)
        assert terminal.wait() == 0
    assert lamina.show("shell", "{{ .State.Running }}") == "true"
    with Terminal(lamina.command("attach", "shell")) as terminal:
        terminal.type("echo word $WORD\n")
        terminal.expect(r"word kept\r\n")
        terminal.type("exit 9\n")
        assert terminal.wait() == 9
    assert lamina.show("shell", "{{ .State.ExitCode }}") == "9"


def test_other_detach_keys_can_be_chosen(lamina: Lamina, container: str):
    del container
    with at_a_prompt(lamina, "run", "-it", "--rm", "--detach-keys", "ctrl-x,q", "--name", "shell", "base", "sh") as terminal:
        terminal.type(CTRL_P + CTRL_Q + b"\x03")
        terminal.expect(PROMPT)
        terminal.type(b"\x18q")
        assert terminal.wait() == 0
    assert lamina.show("shell", "{{ .State.Running }}") == "true"


def test_the_terminal_is_put_back_as_it_was(lamina: Lamina, container: str):
    script = f"stty -a; {' '.join(lamina.command('exec', '-it', container, 'true'))}; stty -a"
    with Terminal(["/bin/sh", "-c", script]) as terminal:
        assert terminal.wait() == 0
    before, after = (part for part in terminal.all.split("speed") if "baud" in part)
    assert before == after


def test_a_terminal_that_hangs_up_leaves_the_exec_running_as_under_docker(lamina: Lamina, container: str):
    terminal = at_a_prompt(lamina, "exec", "-it", container, "sh")
    terminal.type("sleep 4711\n")
    wait_until(lambda: "sleep 4711" in lamina("exec", container, "ps"), "the command")
    terminal.hang_up()
    wait_until(lambda: is_gone(terminal.pid), "the end of the client")
    os.waitpid(terminal.pid, 0)
    terminal.code = -signal.SIGHUP
    assert "sleep 4711" in lamina("exec", container, "ps")
