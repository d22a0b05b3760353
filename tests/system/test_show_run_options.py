"""What else users of Docker type, on each driver: options of run, logs, pause, rename, top, wait, restart, exit codes, removal."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from cases import FOREVER, Lamina, driver_of, each_driver, is_gone, wait_until
from leaks import cgroups, left_on_disk, rows

from lamina.linux import mountinfo

COUNT = "i=0; while :; do i=$((i + 1)); echo $i > /tmp/count; sleep 0.01; done"


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def test_user_by_name_number_and_group(lamina: Lamina):
    def who(*words: str) -> str:
        command = lamina.command("run", "--rm", *words, "base", "sh", "-c", "id -u; id -g; id -G; echo $HOME")
        # The engine's own groups are none of the container's.
        return (
            subprocess.run(command, extra_groups=[20, 4242], capture_output=True, text=True, check=True)
            .stdout.strip()
            .replace("\n", " ")
        )

    assert who() == "0 0 0 /root"
    assert who("-u", "alice") == "1000 1000 1000 10 /home/alice"
    assert who("--user", "1000") == "1000 1000 1000 10 /home/alice"
    assert who("-u", "alice:wheel") == "1000 10 10 /home/alice"
    assert who("-u", "4711:4712") == "4711 4712 4712 /"
    assert "'bob'" in lamina.error("run", "--rm", "-u", "bob", "base", "true", code=125)


def test_a_user_has_no_capabilities_and_root_has_dockers(lamina: Lamina):
    def effective(*words: str) -> str:
        return lamina("run", "--rm", *words, "base", "grep", "CapEff", "/proc/self/status").split()[1]

    assert effective() == "00000000a80425fb"
    assert effective("-u", "alice") == "0000000000000000"


@each_driver
def test_working_directory_is_made_if_it_is_missing(lamina: Lamina):
    assert lamina("run", "--rm", "-w", "/files", "base", "pwd") == "/files"
    assert lamina("run", "--rm", "--workdir", "/fresh/place", "-u", "alice", "base", "sh", "-c", "pwd; ls -A") == "/fresh/place"


def test_environment_from_words_the_caller_and_files(lamina: Lamina, tmp_path: Path):
    file = tmp_path / "env"
    file.write_text("# a comment\nONE=from file\nCALLER\n", encoding="utf-8")
    words = (
        "-e",
        "TWO=a=b",
        "-e",
        "MINE",
        "--env-file",
        str(file),
        "base",
        "sh",
        "-c",
        'echo "$ONE|$TWO|$MINE|$CALLER|$PATH|$HOSTNAME"',
    )
    done = lamina.result("run", "--rm", "--hostname", "ship", *words, env={"MINE": "mine", "CALLER": "called"})
    assert done.stdout == "from file|a=b|mine|called|/bin:/usr/bin|ship\n"


def test_entrypoint_replaces_the_images_and_drops_its_command(lamina: Lamina):
    assert lamina("run", "--rm", "--entrypoint", "echo", "base", "one", "two") == "one two"
    lamina("run", "--name", "made", "base", "true")
    lamina("commit", "-c", 'ENTRYPOINT ["echo", "from the image"]', "-c", 'CMD ["and its command"]', "made", "talking")
    assert lamina("run", "--rm", "talking") == "from the image and its command"
    assert lamina("run", "--rm", "talking", "mine") == "from the image mine"
    assert lamina("run", "--rm", "--entrypoint", "cat", "talking", "/test/inside") == "the image's own"


@each_driver
def test_read_only_means_the_root_and_not_what_is_mounted_in_it(lamina: Lamina, tmp_path: Path):
    script = (
        "touch /x 2>/dev/null && echo wrote; touch /etc/hosts 2>/dev/null && echo wrote; touch /v/x /t/x /dev/shm/x && echo mounts"
    )
    words = ("--read-only", "-v", f"{tmp_path}:/v", "--tmpfs", "/t", "base", "sh", "-c", script)
    assert lamina("run", "--rm", *words) == "mounts"
    container = lamina("create", "--read-only", "base", "true")
    lamina("start", "-a", container)
    assert lamina("diff", container) == ""


def test_labels_hostname_and_cidfile(lamina: Lamina, tmp_path: Path):
    cidfile = tmp_path / "cid"
    lamina("create", "--label", "a=b", "--label", "alone", "--cidfile", str(cidfile), "--name", "labelled", "base", "true")
    document = lamina.document("labelled")
    assert document["Config"]["Labels"] == {"a": "b", "alone": ""}
    assert cidfile.read_text(encoding="ascii").strip() == document["Id"]
    assert "cid" in lamina.error("create", "--cidfile", str(cidfile), "base", "true", code=1)
    assert lamina("ps", "-aq", "--no-trunc", "--filter", "label=a=b") == document["Id"]


def test_exit_codes_are_dockers(lamina: Lamina):
    lamina("run", "--rm", "base", "sh", "-c", "exit 3", code=3)
    lamina("run", "--rm", "base", "false", code=1)
    assert "'nowhere'" in lamina.error("run", "--rm", "base", "nowhere", code=127)
    assert "/no/such" in lamina.error("run", "--rm", "base", "/no/such", code=127)
    lamina.error("run", "--rm", "base", "/files/plain", code=126)
    lamina.error("run", "--rm", "base", "/files", code=126)
    assert "'nobody'" in lamina.error("run", "--rm", "nobody", "true", code=125)
    lamina.error("run", "--rm", "--net", "nowhere", "base", "true", code=125)
    lamina("run", "--rm", "base", "sh", "-c", "kill -KILL $$; sleep 1; kill -9 1; exit 12", code=12)
    assert lamina("ps", "-aq") == ""


@each_driver
def test_a_start_that_fails_leaves_the_container_with_its_error_and_no_mount(lamina: Lamina):
    before = mountinfo.mounts()
    lamina.error("run", "--name", "failed", "base", "nowhere", code=127)
    assert mountinfo.mounts() == before
    state = lamina.document("failed")["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("created", 127, 0)
    assert "nowhere" in state["Error"]
    lamina("rm", "failed")


def test_streams_of_run_are_kept_apart_and_large_ones_arrive_whole(lamina: Lamina):
    done = lamina.result("run", "--rm", "-i", "base", "sh", "-c", "cat; echo bad >&2", stdin="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "bad\n")
    large = "0123456789abcde\n" * (1 << 17)
    assert lamina.result("run", "--rm", "-i", "base", "cat", stdin=large).stdout == large
    assert lamina("run", "--rm", "base", "sh", "-c", "read x; echo end of input", stdin="unread") == "end of input"


def test_logs_has_all_that_was_written_both_streams_and_its_end(lamina: Lamina):
    lamina(
        "run", "--name", "talker", "base", "sh", "-c", "echo one; echo two >&2; sleep 0.3; printf three"
    )  # two pipes have no order
    done = lamina.result("logs", "talker")
    assert (done.stdout, done.stderr) == ("one\nthree", "two\n")
    assert lamina("logs", "--tail", "1", "talker") == "three"
    container = lamina.background("base", "sh", "-c", "echo first; sleep 0.3; echo last")
    assert lamina("logs", "-f", container) == "first\nlast"
    lines = (lamina.root / "containers" / container / f"{container}-json.log").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["log"] for line in lines] == ["first\n", "last\n"]


def test_pause_stops_every_process_and_unpause_lets_them_go_on(lamina: Lamina):
    container = lamina.background("base", "sh", "-c", f"({COUNT}) & {COUNT.replace('count', 'other')}")
    merged = lamina.merged(container)

    def counts() -> list[str]:
        return [(merged / "tmp" / name).read_text(encoding="ascii") for name in ("count", "other")]

    wait_until(lambda: (merged / "tmp/count").exists() and (merged / "tmp/other").exists() and all(counts()), "counting")
    for _ in range(2):
        lamina("pause", container)
        assert lamina.status(container) == "paused"
        still = counts()
        time.sleep(0.2)
        assert counts() == still
        assert "paused already" in lamina.error("pause", container, code=1)
        lamina("unpause", container)
        wait_until(lambda still=still: all(one != other for one, other in zip(still, counts(), strict=True)), "counting again")
    lamina("pause", container)
    lamina("stop", "-t", "0", container)
    assert lamina.status(container) == "exited"
    assert not [path for path in cgroups() if path.endswith(container)]


@each_driver
def test_a_paused_container_can_be_removed_with_force_and_leaves_no_cgroup(lamina: Lamina):
    container = lamina.background("base", *FOREVER)
    lamina("pause", container)
    pid = lamina.pid(container)
    lamina("rm", "-f", container)
    assert is_gone(pid)
    assert not [path for path in cgroups() if path.endswith(container)]


def test_rename_top_and_ps(lamina: Lamina):
    container = lamina.background("--name", "old", "base", *FOREVER)
    lamina("rename", "old", "new")
    assert lamina.show("new", "{{ .Id }}") == container
    lamina.error("inspect", "old", code=1)
    assert "in use" in lamina.error("run", "--name", "new", "base", "true", code=125)
    titles, row = lamina("top", "new").splitlines()
    assert titles.split()[:3] == ["UID", "PID", "PPID"]
    assert row.split()[1] == str(lamina.pid("new"))
    assert row.endswith("sleep 1000000")
    assert lamina("ps", "--format", "{{.Names}} {{.Image}} {{.Status}}").startswith("new base Up")
    ended = lamina("run", "-d", "base", "false")
    lamina("wait", ended)
    assert lamina("ps", "-q", "--no-trunc") == container
    assert lamina("ps", "-aq", "--no-trunc").split() == [ended, container]
    assert lamina("ps", "-aq", "--no-trunc", "--filter", "status=exited") == ended


@each_driver
def test_wait_restart_and_start_again(lamina: Lamina):
    container = lamina.background("base", "sh", "-c", "echo run >> /runs; wc -l < /runs; sleep 0.2; exit 8")
    assert lamina("wait", container) == "8"
    lamina("start", container)
    assert lamina("wait", container, container) == "8\n8"
    assert lamina("logs", container) == "1\n2"
    running = lamina.background("base", *FOREVER)
    pid = lamina.pid(running)
    lamina("restart", "-t", "0", running)
    assert is_gone(pid)
    assert lamina.pid(running) != pid
    assert lamina.status(running) == "running"


@each_driver
def test_rm_leaves_nothing_and_refuses_what_runs(lamina: Lamina):
    container = lamina.background("base", *FOREVER)
    assert "running" in lamina.error("rm", container, code=1)
    merged, pid = lamina.merged(container), lamina.pid(container)
    lamina("rm", "-f", container)
    assert is_gone(pid)
    assert not merged.exists()
    assert left_on_disk(lamina.root) == []


@each_driver
def test_run_rm_leaves_nothing_in_front_or_in_the_background(lamina: Lamina):
    lamina("run", "--rm", "-v", "/data", "base", "true")
    assert left_on_disk(lamina.root) == []
    container = lamina("run", "-d", "--rm", "-v", "/data", "base", "sleep", "0.2")
    wait_until(lambda: not (lamina.root / "containers" / container).exists(), "the removal")
    wait_until(lambda: left_on_disk(lamina.root) == [], "nothing left")
    assert lamina("ps", "-aq") == ""
    assert lamina("volume", "ls", "-q") == ""


@each_driver
def test_a_container_that_ends_by_itself_leaves_no_mount_behind(lamina: Lamina):
    before = [each.target for each in mountinfo.mounts()]
    container = lamina.background("base", "true")
    ended = f"SELECT 1 FROM containers WHERE id = '{container}' AND status = 'exited'"
    # asked of the database as it lies: a command would clean up by itself
    wait_until(lambda: rows(lamina.root, ended), "the record of its end")
    assert [each.target for each in mountinfo.mounts()] == before
    assert lamina("wait", container) == "0"


@each_driver
def test_many_at_once_do_not_disturb_each_other(lamina: Lamina):
    import subprocess

    clients = [
        subprocess.Popen(lamina.command("run", "--rm", "-v", "shared:/v", "base", "sh", "-c", f"echo {n} > /v/{n}; cat /v/{n}"),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(6)
    ]  # fmt: skip
    for n, client in enumerate(clients):
        out, err = client.communicate(timeout=60)
        assert (client.returncode, out, err) == (0, f"{n}\n", "")
    assert sorted(os.listdir(lamina.root / "volumes/shared/_data")) == [str(n) for n in range(6)]


@pytest.mark.parametrize("words", [("run", "-d"), ("create",)])
def test_an_image_of_another_name_is_one_line_and_leaves_nothing(lamina: Lamina, words: tuple[str, ...]):
    assert "'missing:1'" in lamina.error(*words, "missing:1", "true", code=125 if words[0] == "run" else 1)
    assert left_on_disk(lamina.root) == []
