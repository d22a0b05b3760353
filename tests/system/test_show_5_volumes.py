"""What to show, 5: a volume is seen by the container and not by the host, and neither the image nor a commit has anything of it."""

import cProfile
import os
import pstats
from pathlib import Path

import pytest
from cases import FOREVER, Lamina, driver_of, each_driver, own_dir, wait_until

from lamina.linux import mount, mountinfo
from lamina.model.container import MountRequest
from lamina.usecases.volumes import _volume


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory of the host's, with a file in it."""
    place = tmp_path / "shared"
    place.mkdir()
    (place / "from-host").write_text("host\n", encoding="utf-8")
    return place


def mounts_below(place: Path) -> list[str]:
    """What the host's mountinfo has strictly below a place."""
    return [each.target for each in mountinfo.mounts() if each.target.startswith(f"{place}/")]


def layers_in(archive: Path, folder: str) -> list[str]:
    """The files below a folder in an exported tree."""
    import tarfile

    with tarfile.open(archive) as tar:
        return sorted(name for name in tar.getnames() if name.lstrip("./").startswith(folder))


@each_driver
@pytest.mark.parametrize("form", ["-v {}:/test", "--mount type=bind,source={},target=/test", "--volume={}:/test:rw"])
def test_both_sides_read_what_the_other_writes(lamina: Lamina, shared: Path, form: str):
    container = lamina.background(*form.format(shared).split(" "), "base", *FOREVER)
    assert lamina("exec", container, "cat", "/test/from-host") == "host"
    lamina("exec", container, "sh", "-c", "echo container > /test/from-container; mkdir /test/dir; rm /test/from-host")
    assert (shared / "from-container").read_text(encoding="utf-8") == "container\n"
    assert sorted(os.listdir(shared)) == ["dir", "from-container"]
    (shared / "dir/late").write_text("late\n", encoding="utf-8")
    assert lamina("exec", container, "cat", "/test/dir/late") == "late"


def test_a_single_file_is_shared_in_both_directions(lamina: Lamina, tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("host\n", encoding="utf-8")
    container = lamina.background("-v", f"{file}:/single", "-v", f"{file}:/fresh/place", "base", *FOREVER)
    assert lamina("exec", container, "cat", "/single", "/fresh/place") == "host\nhost"
    lamina("exec", container, "sh", "-c", "echo container >> /single")
    assert file.read_text(encoding="utf-8") == "host\ncontainer\n"
    with file.open("a", encoding="utf-8") as out:
        out.write("host again\n")
    assert lamina("exec", container, "cat", "/single") == "host\ncontainer\nhost again"
    assert (lamina.merged(container) / "single").read_text(encoding="utf-8") == "the image's own file\n", (
        "the image's own on the host"
    )
    lamina("commit", "-p", container, "made")
    assert lamina("run", "--rm", "made", "sh", "-c", "cat /single; wc -c < /fresh/place") == "the image's own file\n0"


@each_driver
def test_the_images_own_content_is_hidden_unharmed_and_there_again_without_the_volume(lamina: Lamina, shared: Path):
    assert (
        lamina("run", "--rm", "-v", f"{shared}:/test", "base", "sh", "-c", "ls /test; rm -rf /test/*; echo x > /test/inside")
        == "from-host"
    )
    assert os.listdir(shared) == ["inside"]
    assert (
        lamina("run", "--rm", "base", "sh", "-c", "ls /test; cat /test/inside /test/deep/file")
        == "deep\ninside\nthe image's own\ndeep"
    )


@each_driver
def test_the_host_does_not_see_the_mount_while_the_container_runs(lamina: Lamina, shared: Path):
    """On the image `busybox`, which has no /test: on the host the mount point is an empty directory."""
    before = [each.target for each in mountinfo.mounts()]
    container = lamina.background("-v", f"{shared}:/test", "busybox", *FOREVER)
    lamina("exec", container, "sh", "-c", "echo container > /test/from-container; grep -c ' /test ' /proc/self/mountinfo")
    merged = lamina.merged(container)
    assert (merged / "bin/busybox").exists()
    assert (merged / "test").is_dir()
    assert os.listdir(merged / "test") == []
    assert mounts_below(merged) == []
    assert [each.target for each in mountinfo.mounts() if each.target not in before] in ([str(merged)], [])
    outside = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    assert f"{merged}/test" not in outside
    assert str(shared) not in outside
    inside = Path(f"/proc/{lamina.pid(container)}/mountinfo").read_text(encoding="utf-8")
    targets = [line.split(" ")[4] for line in inside.splitlines()]
    assert targets.count("/test") == 1
    assert targets[0] == "/", "nothing of the host's is left"
    assert not [target for target in targets if str(merged) in target]
    assert os.listdir(own_dir(lamina, container) / "test") == []


@each_driver
def test_where_the_image_has_content_the_host_sees_that_and_none_of_the_volumes(lamina: Lamina, shared: Path):
    container = lamina.background("-v", f"{shared}:/test", "base", *FOREVER)
    assert sorted(os.listdir(lamina.merged(container) / "test")) == ["deep", "inside"]
    assert mounts_below(lamina.merged(container)) == []


@each_driver
def test_a_commit_has_an_empty_directory_and_none_of_the_volumes_files(lamina: Lamina, shared: Path, tmp_path: Path):
    container = lamina.background("-v", f"{shared}:/test", "-v", f"{shared}:/made/here", "busybox", *FOREVER)
    lamina("exec", container, "sh", "-c", "echo own > /own; echo container > /test/from-container")
    for _ in ("running", "stopped"):
        lamina("commit", container, "made")
        assert lamina("run", "--rm", "made", "sh", "-c", "ls -A /test /made/here; cat /own") == "/made/here:\n\n/test:\nown"
        archive = tmp_path / "tree.tar"
        lamina("export", "-o", str(archive), container)
        assert [name.lstrip("./") for name in layers_in(archive, "test")] == ["test"]
        assert lamina("diff", container).splitlines() == ["A /made", "A /made/here", "A /own", "A /test"]
        lamina("stop", "-t", "0", container)
    saved = tmp_path / "saved.tar"
    lamina("save", "-o", str(saved), "made")
    assert b"from-container" not in saved.read_bytes()


def test_a_read_only_volume_can_be_read_and_not_written(lamina: Lamina, shared: Path):
    for words in (("-v", f"{shared}:/test:ro"), ("--mount", f"type=bind,src={shared},dst=/test,readonly")):
        shown = lamina("run", "--rm", *words, "base", "sh", "-c", "cat /test/*; echo x > /test/x || echo refused")
        assert shown == "host\nrefused"
    assert os.listdir(shared) == ["from-host"]


def test_what_is_mounted_later_below_the_source_on_the_host_stays_there(lamina: Lamina, shared: Path):
    container = lamina.background("-v", f"{shared}:/test", "base", *FOREVER)
    (shared / "below").mkdir()
    mount.mount("tmpfs", str(shared / "below"), "tmpfs")
    try:
        (shared / "below/secret").touch()
        assert lamina("exec", container, "ls", "-A", "/test/below") == ""
    finally:
        mount.unmount(str(shared / "below"))


def test_volumes_inside_volumes_are_mounted_outer_first(lamina: Lamina, shared: Path, tmp_path: Path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "deep").touch()
    shown = lamina("run", "--rm", "-v", f"{inner}:/test/in", "-v", f"{shared}:/test", "base", "sh", "-c", "ls /test /test/in")
    assert shown == "/test:\nfrom-host\nin\n\n/test/in:\ndeep"


def test_a_symlink_in_the_image_does_not_lead_a_volume_out_of_the_root(lamina: Lamina, shared: Path):
    outside = shared.parent / "outside"
    outside.mkdir()
    lamina("run", "--name", "linker", "base", "ln", "-s", f"../../../../../../../..{outside}", "/way")
    lamina("commit", "linker", "made-link")
    assert "'/way'" in lamina.error("run", "--rm", "-v", f"{shared}:/way/x", "made-link", "true", code=125)
    lamina("run", "--name", "maker", "made-link", "mkdir", "-p", str(outside))
    lamina("commit", "maker", "made-link")
    lamina("run", "--rm", "-v", f"{shared}:/way/x", "made-link", "sh", "-c", "echo inside > /way/x/f; cat /way/x/from-host")
    assert os.listdir(outside) == []
    assert (shared / "f").read_text(encoding="utf-8") == "inside\n"


def test_a_named_volume_gets_the_images_content_once_and_keeps_what_is_written(lamina: Lamina):
    assert lamina(
        "run", "--rm", "-v", "store:/data", "base", "sh", "-c", "cat /data/seed; stat -c '%a %u' /data; echo 1 > /data/seed"
    ) == ("seed\n770 1000")
    assert lamina("run", "--rm", "-v", "store:/data", "base", "cat", "/data/seed") == "1"
    assert lamina("run", "--rm", "-v", "store:/elsewhere", "busybox", "cat", "/elsewhere/seed") == "1"
    assert lamina("volume", "ls", "-q") == "store"
    assert (lamina.root / "volumes/store/_data/seed").read_text(encoding="utf-8") == "1\n"
    assert lamina("run", "--rm", "-v", "plain:/data:nocopy", "base", "ls", "-A", "/data") == ""
    lamina("volume", "rm", "store", "plain")


def test_an_anonymous_volume_gets_the_images_content_and_goes_with_rm_v(lamina: Lamina):
    container = lamina.background("-v", "/data", "base", *FOREVER)
    assert lamina("exec", container, "cat", "/data/seed") == "seed"
    (name,) = lamina("volume", "ls", "-q").split()
    assert lamina.document(container)["Mounts"][0]["Name"] == name
    lamina("rm", "-f", container)
    assert lamina("volume", "ls", "-q") == name
    lamina("volume", "rm", name)
    lamina("run", "--rm", "-v", "/data", "base", "true")
    lamina("rm", "-v", lamina("create", "-v", "/data", "base", "true"))
    assert lamina("volume", "ls", "-q") == ""


def test_two_containers_on_two_drivers_share_one_volume(lamina: Lamina):
    other = "vfs" if lamina.driver != "vfs" else "overlay"
    one = lamina.background("-v", "store:/data", "base", *FOREVER)
    two = lamina.background("-v", "store:/data", "base", *FOREVER, driver=other)
    lamina("exec", one, "sh", "-c", "echo hello > /data/greeting")
    assert lamina("exec", two, "cat", "/data/greeting") == "hello"
    assert "in use" in lamina.error("volume", "rm", "store", code=1)


def test_a_source_that_is_missing_or_not_absolute_is_one_line_and_leaves_nothing(lamina: Lamina, tmp_path: Path):
    assert f"'{tmp_path}/nowhere'" in lamina.error("run", "-v", f"{tmp_path}/nowhere:/test", "base", "true", code=125)
    assert "./here" in lamina.error("run", "-v", "./here:/test", "base", "true", code=125)
    assert "not absolute" in lamina.error("run", "-v", f"{tmp_path}:test", "base", "true", code=125)
    assert lamina("ps", "-aq") == ""


def test_a_volume_whose_source_has_gone_since_fails_the_start_and_leaves_no_mount(lamina: Lamina, shared: Path):
    container = lamina("create", "-v", f"{shared}:/test", "base", "true")
    (shared / "from-host").unlink()
    shared.rmdir()
    assert f"'{shared}'" in lamina.error("start", container, code=1)
    assert lamina.status(container) == "created"
    shared.mkdir()
    lamina("start", container)
    wait_until(lambda: lamina.show(container, "{{ .State.Status }} {{ .State.ExitCode }}") == "exited 0", "the end")


def test_tmpfs_is_empty_writable_of_the_size_asked_for_and_not_in_a_commit(lamina: Lamina):
    container = lamina.background("--tmpfs", "/test:size=1m,mode=1750", "base", *FOREVER)
    assert (
        lamina("exec", container, "sh", "-c", "ls -A /test; stat -c %a /test; df -k /test | tail -n 1 | awk '{print $2}'")
        == "1750\n1024"
    )
    lamina("exec", container, "sh", "-c", "echo x > /test/volatile")
    assert sorted(os.listdir(lamina.merged(container) / "test")) == ["deep", "inside"]
    lamina("commit", container, "made")
    assert lamina("run", "--rm", "made", "ls", "/test") == "deep\ninside"
    lamina("restart", "-t", "0", container)
    assert lamina("exec", container, "ls", "-A", "/test") == ""
    mounted = ("--mount", "type=tmpfs,target=/t,tmpfs-size=2m")
    assert lamina("run", "--rm", *mounted, "base", "sh", "-c", "df -k /t | tail -n 1 | awk '{print $2}'") == "2048"


def test_many_volumes_cost_each_as_much_as_a_few(lamina: Lamina):
    """Rows of volumes that are read, of a container's whole life: an image can ask for thousands."""
    read = {}
    with lamina.library() as engine:
        for count in (10, 100):
            requests = [MountRequest(type="volume", target=f"/v/{number}") for number in range(count)]
            profile = cProfile.Profile()
            with profile:
                assert engine.containers.output("busybox", ["ls", "/v"], mounts=requests).count("\n") == count
            calls = pstats.Stats(profile).stats  # type: ignore[attr-defined] # (file, line, name) to (calls, …)
            read[count] = sum(counted[0] for (_file, _line, name), counted in calls.items() if name == _volume.__name__)
    assert 0 < read[100] <= 10 * read[10]
