"""Taking over Docker's data directories: same image ids, same files, same changes, and not a bit of the directory changed.

`data/docker-overlay2.tar.gz` is the data directory of a real Docker, made by `data/make-docker-overlay2`, with what that Docker
itself said of it: `images` is `docker images --no-trunc -a`, `diff.NAME` is `docker diff NAME`. It has

    base:1      one layer: files of every kind, a long and a non-ASCII name, a hard link, a file capability, fractional times
    app:1       a commit on it: whiteouts, an opaque directory, a link to a lower file, devices
    app:2       built on that, with a COPY; also example.org:5000/team/app:latest, and an image without a name
    web         a container with changes, a named volume, an anonymous one, binds and a tmpfs; it ended with 3
    fresh, hosted, ran   never started; with --network host, --read-only and --init; one that wrote a line

The other form, aufs's, is made of it here, as Docker's aufs driver lays it out.
"""

import fcntl
import json
import os
import platform
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import leaks
import pytest
from cases import Lamina, fingerprint
from test_show_9_kill import run_killed, traced_calls, wait_for_processes

from lamina.engine import Engine
from lamina.linux import mount
from lamina.testing import tree
from lamina.testing.tree import Facts

ARCHIVE = Path(__file__).parent.parent / "data" / "docker-overlay2.tar.gz"
OF_THE_INIT_LAYER = frozenset(
    [
        "", ".dockerenv", "dev", "dev/console", "dev/pts", "dev/shm", "proc", "sys",
        "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab",
    ]
)  # fmt: skip
runs_here = pytest.mark.skipif(platform.machine() != "x86_64", reason="the images' program is for x86_64")


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A copy of the real data directory, beside what Docker said of it."""
    place = tmp_path / "docker-made"
    place.mkdir()
    command = ["tar", "--extract", "--gzip", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--preserve-permissions"]
    subprocess.run([*command, "--file", str(ARCHIVE), "--directory", str(place)], check=True)
    upper = own_layer(place / "docker", "web")
    with socket.socket(socket.AF_UNIX) as server:  # tar has no form for it
        before = (upper / "var/log").stat()
        fd = os.open(upper / "var/log", os.O_PATH)
        server.bind(f"/proc/self/fd/{fd}/socket")
        os.close(fd)
        os.utime(upper / "var/log", ns=(before.st_atime_ns, before.st_mtime_ns))
    return place / "docker"


@pytest.fixture
def root(tmp_path: Path, own_mounts: None) -> Iterator[Path]:
    with leaks.nothing_left(tmp_path / "root"):
        yield tmp_path / "root"


@pytest.fixture
def lamina(root: Path, driver: str) -> Lamina:
    """The command line on an empty store, with each driver in turn."""
    return Lamina(root, driver)


@pytest.fixture
def one(root: Path) -> Lamina:
    """The same, for what no driver has a part in."""
    return Lamina(root, "overlay")


def container_id(docker: Path, name: str) -> str:
    for document in docker.glob("containers/*/config.v2.json"):
        if json.loads(document.read_text(encoding="utf-8"))["Name"] == f"/{name}":
            return document.parent.name
    raise AssertionError(name)


def mount_record(docker: Path, name: str) -> Path:
    (found,) = docker.glob(f"image/*/layerdb/mounts/{container_id(docker, name)}")
    return found


def own_layer(docker: Path, name: str) -> Path:
    return docker / "overlay2" / (mount_record(docker, name) / "mount-id").read_text(encoding="ascii") / "diff"


def layer_dirs(docker: Path, chain: str) -> list[Path]:
    """The directories of an image's layers, nearest first, as Docker's overlay2 stacks them."""
    found = []
    while chain:
        record = docker / "image/overlay2/layerdb/sha256" / chain.removeprefix("sha256:")
        found.append(docker / "overlay2" / (record / "cache-id").read_text(encoding="ascii") / "diff")
        chain = (record / "parent").read_text(encoding="ascii") if (record / "parent").exists() else ""
    return found


def seen_by_docker(directories: list[Path]) -> dict[str, Facts]:
    """The union that the kernel makes of Docker's own directories: what a container saw there."""
    fd = mount.fsmount("overlay", tuple(("lowerdir+", str(each)) for each in directories), flags=mount.MS_RDONLY)
    try:
        return tree.read(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def seen_here(lamina: Lamina, name: str) -> dict[str, Facts]:
    with lamina.library() as engine:
        record, layers = engine.containers.get(name).record, engine.context.layers
        with layers.seen(layers.driver(record.driver), record.id, record.parents) as path:
            return tree.read(path)


def diff(lamina: Lamina, name: str) -> list[str]:
    return sorted(lamina("diff", name).splitlines())


def unread(place: Path) -> dict[str, tuple[object, ...]]:
    """Everything about every file of a directory, its access time too, which reading it here doesn't change."""
    fd = mount.open_tree(str(place))
    try:
        mount.set_attributes(fd, mount.MS_RDONLY | mount.MS_NOATIME)
        clone = Path(f"/proc/self/fd/{fd}")
        found = fingerprint(list(clone.iterdir()))
        return {path.removeprefix(str(clone)): (*facts, os.lstat(path).st_atime_ns) for path, facts in found.items()}
    finally:
        os.close(fd)


def test_every_image_comes_by_its_own_id_and_every_container_with_its_changes(lamina: Lamina, docker: Path) -> None:
    before = unread(docker)
    done = lamina.result("adopt", "--volumes", "--all", "--storage-driver", lamina.driver, str(docker))
    assert done.returncode == 0, done.stderr
    assert unread(docker) == before, "the data directory was changed"

    said = {tuple(line.split()) for line in (docker.parent / "images").read_text(encoding="utf-8").splitlines()}
    with lamina.library() as engine:
        ids = {str(image.id) for image in engine.images.all()}
        assert ids == {image_id for _name, image_id in said}
        named = {(name.familiar, str(image_id)) for name, image_id in engine.images.store.all_names()}
        assert named == {(name, image_id) for name, image_id in said if name != "<none>:<none>"}
        for image in engine.images.all():  # and the content is there under its digests
            config = engine.images.store.content.read(image.id)
            assert f"sha256:{sha256(config).hexdigest()}" == image.id
            assert config == (docker / "image/overlay2/imagedb/content/sha256" / image.id.hex).read_bytes()

    for name in ("web", "fresh", "hosted", "ran"):
        assert lamina.document(name)["Id"] == container_id(docker, name)
        assert lamina.show(name, "{{ .GraphDriver.Name }}") == lamina.driver
        assert diff(lamina, name) == (docker.parent / f"diff.{name}").read_text(encoding="utf-8").splitlines()
        record = mount_record(docker, name)
        init = docker / "overlay2" / (record / "init-id").read_text(encoding="ascii") / "diff"
        image = (record / "parent").read_text(encoding="ascii")
        wanted = seen_by_docker([own_layer(docker, name), init, *layer_dirs(docker, image)])
        found = seen_here(lamina, name)
        hidden = OF_THE_INIT_LAYER | ({"etc"} if name != "web" else frozenset())  # whose time that layer's files moved
        differing = tree.differences(
            {path: fact for path, fact in found.items() if path not in hidden},
            {path: fact for path, fact in wanted.items() if path not in hidden},
        )
        assert not differing, (name, differing[:5])
    web = seen_here(lamina, "web")
    assert web["var/log/socket"].kind is tree.Kind.SOCKET
    assert dict(web["added"].xattrs) == {"user.note": b"of the container"}
    assert web["etc/third"].names == ("etc/many", "etc/third")  # a copy-up broke the link to the third
    assert dict(web["bin/ping"].xattrs)["security.capability"]


def test_what_a_container_was_told_and_how_it_ended_come_along(one: Lamina, docker: Path) -> None:
    done = one.result("adopt", "--volumes", str(docker))
    assert done.returncode == 0, done.stderr
    web = one.document("web")
    config = web["Config"]
    assert config["Image"] == "app:2"
    assert (config["User"], config["WorkingDir"], config["Hostname"]) == ("0", "/srv", "webhost")
    assert config["Entrypoint"] == ["/tools/sh"] and config["Cmd"][0] == "-c"
    assert config["Env"] == ["GREETING=hi", "PATH=/bin", "APP=1"]
    assert config["Labels"] == {"owner": "tests", "stage": "built"}
    assert (web["State"]["Status"], web["State"]["ExitCode"]) == ("exited", 3)
    assert web["Created"].startswith("20") and web["State"]["StartedAt"] > web["Created"]
    mounts = {each["Destination"]: each for each in web["Mounts"]}
    assert (mounts["/bound"]["Type"], mounts["/bound"]["RW"]) == ("bind", False)
    assert (mounts["/named"]["Type"], mounts["/named"]["Name"], mounts["/named"]["RW"]) == ("volume", "named", True)
    assert web["HostConfig"]["Tmpfs"] == {"/scratch": "size=1m"}
    assert (one.root / "volumes/named/_data/file").read_text(encoding="utf-8") == "in the volume\n"
    anonymous = mounts["/var/data"]["Name"]
    points = json.loads((docker / f"containers/{web['Id']}/config.v2.json").read_text())["MountPoints"]
    assert anonymous == points["/var/data"]["Name"]
    fresh, hosted = one.document("fresh"), one.document("hosted")
    assert fresh["State"]["Status"] == "created" and fresh["Config"]["Tty"] and fresh["Config"]["OpenStdin"]
    assert fresh["Config"]["Entrypoint"] == ["/bin/hello"] and fresh["Config"]["Cmd"] == ["from fresh"]
    assert hosted["HostConfig"]["NetworkMode"] == "host" and hosted["HostConfig"]["ReadonlyRootfs"] and hosted["HostConfig"]["Init"]
    assert hosted["Config"]["StopSignal"] == "INT" and hosted["Config"]["StopTimeout"] == 3
    assert one("logs", "ran") == "it ran"
    one("rm", "-v", "web")
    with one.library() as engine:
        assert anonymous not in {volume.name for volume in engine.volumes.all()}, "an anonymous volume outlived its container"
        assert "named" in {volume.name for volume in engine.volumes.all()}


@runs_here
def test_what_was_adopted_runs(lamina: Lamina, docker: Path) -> None:
    lamina("adopt", "-q", "--volumes", "--storage-driver", lamina.driver, str(docker))
    assert lamina("start", "-a", "ran") == "it ran"
    assert lamina("logs", "ran") == "it ran\nit ran"
    assert lamina("run", "--rm", "app:1") == "from app"
    assert lamina("run", "--rm", "example.org:5000/team/app", "again") == "again"
    shutil.rmtree(docker)  # nothing here needs it any more
    assert lamina("start", "-a", "ran") == "it ran"


def test_what_a_power_cut_has_kept_without_its_record_is_discarded(lamina: Lamina, docker: Path) -> None:
    with lamina.library() as engine:
        storage = engine.context.layers.driver(lamina.driver)
        storage.make_home()
        storage.prepare(container_id(docker, "ran"), (), {})  # of which no row tells
    lamina("adopt", "-q", "--volumes", "--storage-driver", lamina.driver, str(docker))
    assert lamina("start", "-a", "ran") == "it ran"


def test_intermediate_images_and_volumes_are_asked_for(one: Lamina, docker: Path) -> None:
    done = one.result("adopt", "-q", str(docker))
    assert done.returncode == 1
    assert sorted(line.split()[2] for line in done.stdout.splitlines() if "container" in line) == ["hosted", "ran"]
    assert len([line for line in done.stdout.splitlines() if "image" in line]) == 4  # the three with names, and the one on top
    problems = done.stderr.splitlines()
    assert len(problems) == 2 and all("--volumes" in line for line in problems)
    done = one.result("adopt", "-q", "--volumes", str(docker))
    assert done.returncode == 0, done.stderr
    assert sorted(line.split()[2] for line in done.stdout.splitlines() if "container" in line) == ["fresh", "web"]
    assert "'ran' is here already" in done.stderr
    again = one.result("adopt", "-q", "--volumes", str(docker))
    assert (again.returncode, again.stdout) == (0, "")


def image_names(lamina: Lamina) -> list[str]:
    return lamina("images", "--format", "{{ .Repository }}:{{ .Tag }}").splitlines()


def changed_layer(docker: Path) -> tuple[str, Path, Path]:
    """The layer that the build added: its diff_id, its record, the directory of its files."""
    (record,) = [
        each for each in docker.glob("image/overlay2/layerdb/sha256/*")
        if (docker / "overlay2" / (each / "cache-id").read_text() / "diff/srv/file").exists()
    ]  # fmt: skip
    return (record / "diff").read_text(), record, docker / "overlay2" / (record / "cache-id").read_text() / "diff"


def test_a_layer_that_cannot_be_made_again_is_named_or_made_anew(one: Lamina, docker: Path) -> None:
    diff_id, record, files = changed_layer(docker)
    (files / "srv/file").write_text("other!\n")  # as long as what was there
    done = one.result("adopt", "-q", str(docker))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "'app:2" in line]
    assert diff_id.removeprefix("sha256:")[:12] in line and "'srv/file' was changed" in line and "--relayer" in line
    assert set(image_names(one)) == {"base:1", "app:1", "<none>:<none>"}
    (files / "srv/file").write_text("longer than before\n")
    assert "another size" in one.result("adopt", "-q", str(docker)).stderr
    (files / "srv/file").unlink()
    assert "'srv/file' isn't there" in one.result("adopt", "-q", str(docker)).stderr
    (files / "srv/file").write_text("other!\n")
    os.truncate(record / "tar-split.json.gz", 100)
    assert "tar-split.json.gz is damaged" in one.result("adopt", "-q", str(docker)).stderr
    (record / "tar-split.json.gz").unlink()
    assert "kept no tar-split" in one.result("adopt", "-q", str(docker)).stderr

    done = one.result("adopt", "-q", "--volumes", "--relayer", str(docker))
    assert done.returncode == 0, done.stderr
    assert f"(was {container_image(docker, 'web')})" in done.stdout and "is made anew" in done.stderr
    assert one.show("web", "{{ .Image }}") != container_image(docker, "web")
    assert seen_here(one, "web")["srv/file"].content == sha256(b"0:other!\n").hexdigest()
    assert one.document("app:2", "image")["Config"]["Labels"]["stage"] == "built"


def container_image(docker: Path, name: str) -> str:
    return str(json.loads((docker / f"containers/{container_id(docker, name)}/config.v2.json").read_text())["Image"])


def test_what_is_damaged_is_told_and_the_rest_adopted(one: Lamina, docker: Path) -> None:
    config = docker / "image/overlay2/imagedb/content/sha256" / container_image(docker, "ran").removeprefix("sha256:")
    config.write_bytes(config.read_bytes().replace(b"linux", b"Linux"))
    (mount_record(docker, "fresh") / "mount-id").write_text("")
    (docker / f"containers/{container_id(docker, 'hosted')}/hostconfig.json").write_text("{")
    init = (mount_record(docker, "web") / "init-id").read_text()
    os.chown(docker / f"overlay2/{init}/diff/dev", 100000, 100000)
    done = one.result("adopt", "-q", "--volumes", str(docker))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 5 and all(line.startswith("error: ") and "can't be adopted" in line for line in lines), lines
    assert [line for line in lines if "shifted by 100000 (userns-remap)" in line]
    assert "base:1" not in image_names(one) and "app:2" in image_names(one)
    os.chown(docker / f"overlay2/{init}/diff/dev", 0, 0)
    assert "Adopted container: web" in one.result("adopt", "-q", "--volumes", str(docker)).stdout


def test_a_directory_at_work_is_left_alone(one: Lamina, docker: Path) -> None:
    with (docker / "volumes/metadata.db").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # what a daemon does
        assert "a Docker daemon is running" in one.error("adopt", "-q", str(docker), code=1)
        document = docker / f"containers/{container_id(docker, 'ran')}/config.v2.json"
        document.write_text(document.read_text().replace('"Running":false', '"Running":true'))
        done = one.result("adopt", "-q", "--volumes", "--force", str(docker))
        assert done.returncode == 1 and done.stderr.count("error:") == 1
        assert "'ran' can't be adopted: it is running there" in done.stderr
    assert "it is running there" in one.result("adopt", "-q", str(docker)).stderr
    assert one.result("adopt", "-q", "--force", str(docker)).returncode == 0  # cut off while it ran
    assert (one.status("ran"), one.document("ran")["State"]["ExitCode"]) == ("exited", 255)


def test_names_that_are_taken_stay_where_they_are(one: Lamina, docker: Path) -> None:
    one("image", "bootstrap", "app:1")
    mine = one.document("app:1", "image")["Id"]
    one("create", "--name", "ran", "app:1", "true")
    one("volume", "create", "named")
    done = one.result("adopt", "-q", "--volumes", str(docker))
    assert done.returncode == 1
    assert "note: the name 'app:1' stays" in done.stderr
    assert one.document("app:1", "image")["Id"] == mine
    assert "container name 'ran' is already in use" in done.stderr
    assert "its volume 'named' has the name of one that is here" in done.stderr


def test_what_is_no_such_directory_is_told_in_one_line(one: Lamina, tmp_path: Path) -> None:
    place = tmp_path / "place"
    assert "doesn't exist" in one.error("adopt", "-q", str(place), code=1)
    place.mkdir()
    assert "not a Docker data directory" in one.error("adopt", "-q", str(place), code=1)
    (place / "graph").mkdir()
    assert "before 1.10" in one.error("adopt", "-q", str(place), code=1)
    (place / "containerd/daemon/io.containerd.snapshotter.v1.overlayfs").mkdir(parents=True)
    (place / "graph").rmdir()
    assert "containerd's store" in one.error("adopt", "-q", str(place), code=1)
    (place / "image/btrfs/layerdb").mkdir(parents=True)
    assert "'btrfs'" in one.error("adopt", "-q", str(place), code=1)


# aufs: the same content as Docker's aufs driver lays it out.


def as_aufs(docker: Path) -> Path:
    """Turn the directory into one of the storage driver aufs: `.wh.` files for devices 0:0, and Docker's three folders."""
    target = docker.parent / "docker-aufs"
    subprocess.run(["cp", "--archive", str(docker), str(target)], check=True)
    for name in ("diff", "layers", "mnt"):
        (target / "aufs" / name).mkdir(parents=True)
    for layer in (target / "overlay2").iterdir():
        if layer.name == "l":
            continue
        branch = target / "aufs/diff" / layer.name
        (layer / "diff").rename(branch)
        times = {path: path.lstat() for path in [branch, *branch.rglob("*")] if path.is_dir() and not path.is_symlink()}
        (branch / ".wh..wh.aufs").touch(0o444)
        for folder in (".wh..wh.orph", ".wh..wh.plnk"):
            (branch / folder).mkdir(0o700)
        for path in list(branch.rglob("*")):
            found = path.lstat()
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                path.unlink()
                os.link(branch / ".wh..wh.aufs", path.with_name(f".wh.{path.name}"))
        for directory, before in times.items():
            is_opaque = "trusted.overlay.opaque" in os.listxattr(directory) and directory != branch
            if is_opaque and os.getxattr(directory, "trusted.overlay.opaque") == b"y":
                os.link(branch / ".wh..wh.aufs", directory / ".wh..wh..opq")
            for name in os.listxattr(directory):
                if name.startswith("trusted.overlay."):
                    os.removexattr(directory, name)
            os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
        (target / "aufs/layers" / layer.name).write_text("")
        (target / "aufs/mnt" / layer.name).mkdir()
    shutil.rmtree(target / "overlay2")
    (target / "image/overlay2").rename(target / "image/aufs")
    for document in target.glob("containers/*/config.v2.json"):
        document.write_text(document.read_text().replace('"Driver":"overlay2"', '"Driver":"aufs"'))
    return target


def test_a_directory_in_the_form_of_aufs_is_the_same(lamina: Lamina, docker: Path) -> None:
    aufs = as_aufs(docker)
    assert list(aufs.glob("aufs/diff/*/kept/.wh.whiteout")) and list(aufs.glob("aufs/diff/*/opaque/.wh..wh..opq"))
    before = fingerprint([aufs])
    wishes = ["--storage-driver", lamina.driver] if lamina.driver != "aufs" else []
    words = [*lamina.command()[:3], "adopt", "-q", "--volumes", "--all", *wishes, str(aufs)]  # else to the driver of the same name
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert fingerprint([aufs]) == before
    said = {line.split()[1] for line in (docker.parent / "images").read_text(encoding="utf-8").splitlines()}
    with lamina.library() as engine:
        assert {str(image.id) for image in engine.images.all()} == said
    for name in ("web", "fresh", "hosted", "ran"):
        assert lamina.show(name, "{{ .GraphDriver.Name }}") == lamina.driver
        assert diff(lamina, name) == (docker.parent / f"diff.{name}").read_text(encoding="utf-8").splitlines()
    web = seen_here(lamina, "web")
    assert web["var/log/socket"].kind is tree.Kind.SOCKET
    assert "opaque/new" not in web and not [name for name in web if ".wh." in name]


def test_adopted_containers_migrate_and_are_the_same(one: Lamina, docker: Path) -> None:
    one("adopt", "-q", "--volumes", str(docker))
    wanted, changes = seen_here(one, "web"), diff(one, "web")
    for driver in ("aufs", "vfs", "overlay"):
        one("migrate", "-q", "--to", driver, "--all")
        assert not tree.differences(seen_here(one, "web"), wanted)
        assert diff(one, "web") == changes


# Killed.

PROGRAM = """
import os, sys
from lamina.engine import Engine
from lamina.usecases.adopt import Wishes
engine = Engine(root_dir=sys.argv[1], warn=print)
done = engine.adopt(sys.argv[2], Wishes(volumes=True, driver='overlay'))
assert not done.problems, done.problems
os._exit(0)
"""


@pytest.mark.timeout(3600)
def test_a_kill_at_any_call_leaves_nothing_half_adopted(docker: Path, tmp_path: Path, own_mounts: None) -> None:
    before = fingerprint([docker])
    calls = list(traced_calls(PROGRAM, str(tmp_path / "traced"), str(docker), tmp_path / "trace"))
    assert len(calls) > 100, calls
    chosen = calls if os.environ.get("LAMINA_KILLS") == "all" else calls[:: max(1, len(calls) // 6)]
    killed = 0
    for number, (name, which) in enumerate(chosen):
        root, when = tmp_path / f"root{number}", f"killed at {name} number {which}"
        killed += run_killed(PROGRAM, str(root), str(docker), name, which)
        wait_for_processes(str(root), when)
        lamina, warnings = Lamina(root, "overlay"), list[str]()
        with Engine(root_dir=str(root), storage_driver="overlay", warn=warnings.append) as engine:
            assert not warnings, f"{when}: {warnings}"
            assert not leaks.rows(root, "SELECT * FROM operations"), when
            for container in engine.containers.all():  # what is there is whole
                assert diff(lamina, container.name) == (docker.parent / f"diff.{container.name}").read_text().splitlines(), when
        done = lamina.result("adopt", "-q", "--volumes", str(docker))
        assert done.returncode == 0, f"{when}: {done.stderr}"
        assert sorted(lamina("ps", "-a", "--format", "{{ .Names }}").split()) == ["fresh", "hosted", "ran", "web"], when
        assert (root / "volumes/named/_data/file").read_text(encoding="utf-8") == "in the volume\n", when
        leaks.settle_and_remove(root)
        assert not leaks.left_on_disk(root), when
        shutil.rmtree(root)
    assert killed > len(chosen) // 2, f"only {killed} of {len(chosen)} were killed"
    assert fingerprint([docker]) == before, "the data directory was changed"
