"""The commands of the whole system: what takes space, what nothing uses, the drivers, networks, facts and versions."""

import json
from pathlib import Path

import pytest
from cases import DRIVERS, Lamina, disk_bytes

from lamina.engine import Engine
from lamina.usecases.disk import DiskUsage

one_driver = pytest.mark.parametrize("driver", ["overlay"], indirect=True)


def unpack_everywhere(lamina: Lamina) -> None:
    """Have both images' layers on every driver, as if containers had been made there."""
    for driver in DRIVERS:
        for image in ("busybox", "base"):
            lamina("create", "--name", "passing", image, "true", driver=driver)
            lamina("rm", "passing")


def usage(lamina: Lamina) -> DiskUsage:
    with Engine(root_dir=str(lamina.root)) as engine:
        return engine.system.disk_usage()


def layer_places(lamina: Lamina, driver: str) -> list[Path]:
    """Where a driver's layers have their files, a container's own included."""
    home = lamina.home(driver)
    places = {"overlay": home.glob("*/diff"), "aufs": [*home.glob("diff/*"), *home.glob("companions/*")], "vfs": home.glob("dir/*")}
    return sorted(places[driver])


def test_system_df_says_what_du_says(lamina: Lamina) -> None:
    lamina(
        "run", "--name", "writer", "--volume", "data:/data", "base", "sh", "-c", "head -c 300000 /dev/urandom | tee /data/v > /w"
    )
    lamina("commit", "writer", "more:1")
    for driver in DRIVERS:
        lamina("create", "--name", f"of-{driver}", "more:1", "true", driver=driver)
    found = usage(lamina)
    assert found.blobs_bytes == disk_bytes(*(lamina.root / "image/blobs/sha256").iterdir())
    for driver in DRIVERS:
        written = sum(each.usage.size_bytes for each in found.containers if each.container.driver == driver)
        assert found.unpacked_bytes(driver) + written == disk_bytes(*layer_places(lamina, driver)), driver
    assert found.containers_bytes > 300_000
    assert found.volumes_bytes == disk_bytes(lamina.root / "volumes/data/_data")


def test_a_commit_takes_the_space_of_one_layer_more(lamina: Lamina) -> None:
    lamina("run", "--name", "writer", "base", "sh", "-c", "head -c 300000 /dev/urandom > /w")
    before = usage(lamina)
    lamina("commit", "writer", "more:1")
    after = usage(lamina)
    assert 300_000 < after.blobs_bytes - before.blobs_bytes < 330_000
    assert len(after.layers) == len(before.layers)
    shared = next(
        each for each in after.images if not each.containers and each.image.id not in {one.image.id for one in before.images}
    )
    assert shared.packed_bytes - shared.shared_bytes == after.blobs_bytes - before.blobs_bytes


@one_driver
def test_system_df_has_dockers_table_with_blobs_and_unpacked_layers_apart(lamina: Lamina) -> None:
    unpack_everywhere(lamina)
    head, *rows = lamina("system", "df").splitlines()
    assert head.split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    kinds = [row.partition("  ")[0] for row in rows]
    assert kinds == [
        "Images",
        "Unpacked (aufs)",
        "Unpacked (overlay)",
        "Unpacked (vfs)",
        "Containers",
        "Local Volumes",
        "Build Cache",
    ]
    documents = [json.loads(line) for line in lamina("system", "df", "--format", "json").splitlines()]
    assert [each["TotalCount"] for each in documents] == ["2", "3", "3", "3", "0", "0", "0"]
    assert all(each["Reclaimable"].endswith("(100%)") for each in documents[:4])
    lamina("create", "--name", "user", "base", "true")
    images, _, overlay, vfs, *_ = [json.loads(line) for line in lamina("system", "df", "--format", "json").splitlines()]
    assert (images["Active"], overlay["Active"], vfs["Active"]) == ("1", "2", "0")
    assert not overlay["Reclaimable"].endswith("(100%)")
    assert vfs["Reclaimable"].endswith("(100%)")
    verbose = json.loads(lamina("system", "df", "--verbose", "--format", "json"))
    assert {(each["Driver"], each["Containers"]) for each in verbose["Layers"]} >= {("overlay", "1"), ("vfs", "0")}
    assert [each["Names"] for each in verbose["Containers"]] == ["user"]
    assert "Unpacked layers space usage:" in lamina("system", "df", "-v")


def test_system_prune_leaves_what_is_in_use_and_frees_what_it_says(lamina: Lamina) -> None:
    unpack_everywhere(lamina)
    lamina.background("--name", "runs", "busybox", "sleep", "1000")
    lamina("create", "--name", "idle", "--volume", "/anonymous", "--volume", "named:/named", "base", "true")
    asked = lamina.result("system", "prune", stdin="no\n")
    assert asked.returncode == 0
    assert asked.stdout == ""
    assert "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used" in asked.stderr
    assert asked.stderr.endswith("Are you sure you want to continue? [y/N] ")
    assert lamina("ps", "--all", "--quiet").count("\n") == 1
    pruned = lamina("system", "prune", "--all", "--volumes", "--force")
    for title in ("Deleted Containers:", "Deleted Volumes:", "Deleted Images:\nuntagged: base:latest", "Deleted unpacked layers:"):
        assert title in pruned
    assert lamina("ps", "--all", "--format", "{{.Names}}") == "runs"
    assert lamina("images", "--format", "{{.Repository}}") == "busybox"
    assert lamina("volume", "ls", "--quiet") == "named"
    found = usage(lamina)
    assert [(each.driver, each.containers) for each in found.layers] == [(lamina.driver, 1)]
    assert lamina("exec", "runs", "echo", "well") == "well"
    for driver in DRIVERS:
        assert lamina("run", "--rm", "busybox", "echo", "again", driver=driver) == "again"
    assert "Total reclaimed space: 0B" not in pruned


@one_driver
def test_system_prune_takes_only_what_the_filters_let_through(lamina: Lamina) -> None:
    lamina("network", "create", "--label", "keep", "kept")
    lamina("network", "create", "gone")
    lamina("create", "--name", "kept", "--label", "keep", "busybox", "true")
    lamina("create", "--name", "gone", "busybox", "true")
    assert "Deleted Networks:\ngone\n" in lamina("system", "prune", "--force", "--filter", "label!=keep")
    assert lamina("ps", "--all", "--format", "{{.Names}}") == "kept"
    lamina("system", "prune", "--force", "--filter", "until=1h")
    assert lamina("ps", "--all", "--format", "{{.Names}}") == "kept"
    assert lamina("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}") == "kept"
    assert "invalid filter 'size'" in lamina.error("system", "prune", "--force", "--filter", "size=1", code=1)
    assert "'until' can't be used with --volumes" in lamina.error(
        "system", "prune", "--force", "--volumes", "--filter", "until=1h", code=1
    )


@one_driver
def test_drivers_are_listed_and_inspected(lamina: Lamina) -> None:
    head, *rows = lamina("driver", "ls").splitlines()
    assert head.split() == ["NAME", "USABLE", "METHOD", "CAPABILITIES", "REASON"]
    assert [row.split()[0] for row in rows] == ["aufs", "overlay", "vfs"]
    assert [row.split()[1] for row in rows if "*" in row] == ["*"]
    document = json.loads(lamina("driver", "inspect", "--format", "json", "overlay2"))
    assert (document["Name"], document["Aliases"], document["Default"], document["Usable"]) == ("overlay", ["overlay2"], True, True)
    assert document["Home"] == str(lamina.root / "overlay")
    assert document["Capabilities"]["Whiteouts"] == "overlay"
    told = lamina("driver", "inspect", "vfs")
    for words in ("Name:          vfs", "Usable here:   yes", "Entry point:   lamina_vfs:plugin", "depth:             no limit"):
        assert words in told
    assert "storage driver 'nope' is not installed" in lamina.error("driver", "inspect", "nope", code=1)


@one_driver
def test_a_driver_that_cant_work_here_says_why(lamina: Lamina, tmp_path: Path) -> None:
    import subprocess

    from cases import PROGRAM

    from lamina.linux import mount

    place = tmp_path / "over"
    for name in ("lower", "upper", "work", "root"):
        (place / name).mkdir(parents=True)
    options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    mount.mount("overlay", str(place / "root"), "overlay", data=options)
    try:
        command = [PROGRAM, "--root", str(place / "root/store"), "driver", "inspect", "overlay"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        mount.unmount(str(place / "root"))
    assert "Usable here:   no" in told
    assert "Why not:       '" in told
    assert "What helps:    " in told


@one_driver
def test_a_broken_plugin_is_listed_and_stops_nothing(lamina: Lamina, tmp_path: Path) -> None:
    metadata = tmp_path / "site/broken-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[lamina]\nstorage.broken = nothing_like_that:plugin\n")
    done = lamina.result("driver", "ls", env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 0
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("broken")]
    assert "no" in row.split()
    assert "can't be loaded from 'nothing_like_that:plugin'" in row
    told = lamina.result("driver", "inspect", "broken", env={"PYTHONPATH": str(tmp_path / "site")})
    assert told.returncode == 0
    assert "Usable here:   no" in told.stdout


@one_driver
def test_networks_facts_and_versions_are_told(lamina: Lamina) -> None:
    assert lamina("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").splitlines() == [
        "bridge bridge local",
        "host host local",
        "none none local",
    ]
    assert len(lamina("network", "ls", "--quiet", "--no-trunc", "--filter", "name=host")) == 64
    lamina("create", "--name", "idle", "busybox", "true")
    told = lamina("info")
    assert "Containers: 1\n Running: 0\n Paused: 0\n Stopped: 1\nImages: 2\n" in told
    assert lamina("info", "--format", "{{.Driver}} {{.ContainersStopped}} {{.DockerRootDir}}") == f"overlay 1 {lamina.root}"
    assert lamina("version", "--format", "{{.Client.Version}}") == lamina("version", "--format", "{{.Server.Version}}")
    assert "is not installed" in lamina.error("info", code=1, driver="nope")
