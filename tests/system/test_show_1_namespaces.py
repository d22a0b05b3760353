"""What to show, 1: a container's first process is a process of the host, in namespaces of its own."""

import os
import urllib.request
from pathlib import Path

import pytest
from cases import FOREVER, Lamina, driver_of, each_driver, namespaces, wait_until

OWN = {"mnt", "uts", "ipc", "pid", "net", "cgroup"}
SHARED = {"user"}


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


@each_driver
def test_the_pid_that_inspect_shows_is_one_of_the_host_and_the_first_of_the_container(lamina: Lamina):
    container = lamina.background("base", *FOREVER)
    pid = int(lamina("inspect", "--format", "{{ .State.Pid }}", container))
    assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] == b"sleep"
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    assert next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:] == [str(pid), "1"]


@each_driver
def test_every_namespace_but_that_of_users_is_its_own(lamina: Lamina):
    container = lamina.background("base", *FOREVER)
    inside, here = namespaces(lamina.pid(container)), namespaces("self")
    assert {kind for kind in OWN | SHARED if inside[kind] != here[kind]} == OWN
    assert {kind for kind in OWN | SHARED if inside[kind] == here[kind]} == SHARED


def test_two_containers_share_no_namespace_of_their_own(lamina: Lamina):
    one, other = (namespaces(lamina.pid(lamina.background("base", *FOREVER))) for _ in range(2))
    assert not [kind for kind in OWN if one[kind] == other[kind]]


@pytest.mark.parametrize("option", ["--net", "--network"])
def test_with_the_host_network_that_namespace_is_the_hosts_too(lamina: Lamina, option: str):
    container = lamina.background(option, "host", "base", *FOREVER)
    inside, here = namespaces(lamina.pid(container)), namespaces("self")
    assert {kind for kind in OWN | SHARED if inside[kind] != here[kind]} == OWN - {"net"}


def test_with_the_host_network_a_server_in_the_container_answers_on_the_hosts_loopback(lamina: Lamina, own_network: None):
    del own_network
    container = lamina.background("--net", "host", "base", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/test")

    def answer() -> bytes:
        try:
            with urllib.request.urlopen("http://127.0.0.1:8080/inside", timeout=5) as response:
                return bytes(response.read())
        except OSError:
            return b""

    wait_until(answer, "an answer of the server in the container")
    assert answer() == b"the image's own\n"
    lamina("rm", "-f", container)
    assert answer() == b""


def test_with_a_network_of_its_own_the_same_server_answers_inside_alone(lamina: Lamina, own_network: None):
    del own_network
    container = lamina.background("base", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/test")
    fetch = ("exec", container, "wget", "-q", "-O", "-", "http://127.0.0.1:8080/inside")
    wait_until(lambda: lamina.result(*fetch).returncode == 0, "an answer inside")
    assert lamina(*fetch) == "the image's own"
    with pytest.raises(OSError):
        urllib.request.urlopen("http://127.0.0.1:8080/inside", timeout=5)


def test_without_a_network_lo_is_up_with_its_address_and_is_the_only_link(lamina: Lamina):
    assert lamina("run", "--rm", "base", "ls", "/sys/class/net") == "lo"
    shown = lamina("run", "--rm", "--net", "none", "base", "ip", "address", "show", "lo")
    assert "LOOPBACK,UP" in shown
    assert "inet 127.0.0.1/8" in shown
    assert "64 bytes" in lamina("run", "--rm", "base", "ping", "-c", "1", "-W", "2", "127.0.0.1")


def test_its_hostname_is_its_own_and_the_hosts_stays(lamina: Lamina):
    before = os.uname().nodename
    container = lamina.background("base", *FOREVER)
    assert lamina("exec", container, "hostname") == container[:12]
    assert lamina(
        "run", "--rm", "--hostname", "ship", "base", "sh", "-c", "hostname; cat /etc/hostname; grep -w ship /etc/hosts"
    ) == ("ship\nship\n127.0.1.1\tship")
    assert os.uname().nodename == before


def test_inside_it_sees_its_own_processes_only(lamina: Lamina):
    assert lamina("run", "--rm", "base", "sh", "-c", "echo $$; ps -o pid,args | wc -l").splitlines()[0] == "1"
    pids = lamina("run", "--rm", "base", "sh", "-c", "cd /proc; echo [0-9]*")
    assert pids == "1"
