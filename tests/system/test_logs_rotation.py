"""A log with a limit: several files on disk, and one log for `lamina logs`, also while it is followed."""

import subprocess
from pathlib import Path

import pytest
from cases import Lamina, driver_of, wait_until

LINES = 250


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def test_a_rotated_log_is_followed_without_losing_or_repeating_a_line_and_read_over_its_files(lamina: Lamina, tmp_path: Path):
    command = f"echo 0; read x; for i in $(seq {LINES}); do echo $i; usleep 8000; done"
    lamina("create", "-i", "--name", "box", "--log-opt", "max-size=1k", "--log-opt", "max-file=10", "busybox", "sh", "-c", command)
    with subprocess.Popen(lamina.command("start", "-ai", "box"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as started:
        wait_until(lambda: lamina.status("box") == "running", "its start")
        followed = tmp_path / "followed"
        with followed.open("w") as out, subprocess.Popen(lamina.command("logs", "-f", "box"), stdout=out) as follower:
            wait_until(lambda: followed.read_text() == "0\n", "the follower's first line")
            assert started.stdin is not None
            started.stdin.write(b"\n")
            started.stdin.flush()
            assert started.wait() == 0
            assert follower.wait() == 0
    assert followed.read_text().split() == [str(number) for number in range(LINES + 1)]
    document = lamina.document("box")
    log = Path(document["LogPath"])
    assert document["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1k", "max-file": "10"}}
    files = sorted(path.name for path in log.parent.glob(f"{log.name}*"))
    assert files == [log.name, *(f"{log.name}.{number}" for number in range(1, 10))]
    assert all(path.stat().st_size < 1100 for path in log.parent.glob(f"{log.name}*"))
    kept = lamina("logs", "box").split()
    assert kept == [str(number) for number in range(LINES - len(kept) + 1, LINES + 1)]
    assert 9 * 12 < len(kept) < LINES  # a file holds twelve or thirteen
    assert lamina("logs", "--tail", "50", "box").split() == kept[-50:]


def test_a_log_driver_that_keeps_nothing_has_no_log_and_others_are_refused(lamina: Lamina, tmp_path: Path):
    assert lamina("run", "--name", "box", "--log-driver", "none", "busybox", "echo", "heard") == "heard"
    assert "has log driver 'none'" in lamina.error("logs", "box", code=1)
    assert list((lamina.root / "containers" / lamina.document("box")["Id"]).glob("*.log*")) == []
    assert "invalid log driver 'syslog'" in lamina.error("run", "--log-driver", "syslog", "busybox", "true", code=125)
    config = tmp_path / "config.toml"
    config.write_text('[log-opts]\nmax-size = "1m"\nmax-file = "2"\n')
    done = lamina.result("create", "--log-opt", "max-file=5", "busybox", "true", env={"LAMINA_CONFIG": str(config)})
    assert lamina.document(done.stdout.strip())["HostConfig"]["LogConfig"]["Config"] == {"max-size": "1m", "max-file": "5"}
    config.write_text('[log-opts]\nmax-file = "2"\n')
    done = lamina.result("ps", env={"LAMINA_CONFIG": str(config)})
    assert (done.returncode, done.stderr.splitlines()[0][:38]) == (1, "error: log option 'max-file' needs max")
