"""What Docker and Podman pushed lamina pulls and runs; what lamina pushed they pull and run. skopeo is in `test_registry.py`.

Runs with LAMINA_PEERS=1 alone; Docker is the daemon that DOCKER_HOST names, which must take loopback for insecure, as it does.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import archives
import pytest
from cases import Lamina
from registries import HTPASSWD, PASSWORD, USER, Place, Registry

pytestmark = pytest.mark.skipif(os.environ.get("LAMINA_PEERS") != "1", reason="LAMINA_PEERS is not 1")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One that wants to know who asks."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "htpasswd").write_text(HTPASSWD)
    registry = Registry(folder, settings=f"auth:\n  htpasswd:\n    realm: tests\n    path: {folder}/htpasswd\n")
    yield registry
    registry.stop()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch.setenv)


class Peer:
    """Another engine's command line."""

    def __init__(self, name: str, *options: str, tls: tuple[str, ...] = ()) -> None:
        self.name, self._options, self._tls = name, options, tls

    def __call__(self, *words: str) -> str:
        tls = self._tls if words[0] in {"pull", "push", "login"} else ()
        done = subprocess.run(
            [self.name, *self._options, words[0], *tls, *words[1:]], capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, f"{self.name} {words}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(params=["docker", "podman"])
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    if request.param == "docker":
        yield Peer("docker")
        return
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="p", ignore_cleanup_errors=True) as folder:  # Podman takes no long path
        options = (
            "--root",
            f"{folder}/r",
            "--runroot",
            f"{folder}/n",
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--runtime",
            "runc",
        )
        yield Peer("podman", *options, tls=("--tls-verify=false",))


def run_there(peer: Peer, name: str, *command: str) -> str:
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")  # Podman would raise those that it was started with
    return peer("run", "--rm", "--network=none", *(limits if peer.name == "podman" else ()), name, *command)


def test_images_come_and_go_between_engines(peer: Peer, registry: Registry, place: Place, tmp_path: Path) -> None:
    theirs = f"{registry.host}/{peer.name}-{os.getpid()}/theirs:1"
    ours = theirs.replace("theirs", "ours")
    archive = archives.image(tmp_path / "base.tar", theirs, archives.base_layers())
    lamina = Lamina(place.root, "overlay")
    peer("load", "-i", str(archive))
    try:
        peer("login", "-u", USER, "-p", PASSWORD, registry.host)
        pushed = peer("push", theirs)
        if peer.name == "podman":
            place.log_in(registry.host)  # into Docker's file; its own is where REGISTRY_AUTH_FILE says
        lamina("pull", theirs)
        if "digest: " in pushed:  # Docker says it
            assert lamina("images", "--digests", "--format", "{{.Digest}}", theirs) in pushed
        assert lamina("run", "--rm", theirs, "cat", "/tree/sub/b", "/single") == "b\nthe image's own file"
        made = lamina("run", "-d", theirs, "sh", "-c", "echo changed >/files/plain; rm -r /tree/sub; echo new >/tree/new")
        lamina("wait", made)
        lamina("commit", made, ours)
        lamina("rm", made)
        lamina("push", ours)
        peer("rmi", theirs)
        peer("pull", ours)
        assert run_there(peer, ours, "sh", "-c", "cat /files/plain /tree/new; ls /tree") == "changed\nnew\na\nnew\n"
        digest = lamina("images", "--digests", "--format", "{{.Digest}}", ours)
        assert digest in peer("inspect", "--type", "image", ours)
    finally:
        for name in (ours, theirs):
            subprocess.run([peer.name, *peer._options, "rmi", "--force", name], capture_output=True, check=False)
