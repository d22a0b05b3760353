"""The commands of images and volumes as a person types them: what they print, exit codes, and what bad input leaves behind."""

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import terminals
from cases import PROGRAM, Lamina

from lamina.linux import mount

pytestmark = pytest.mark.parametrize("driver", ["overlay"], indirect=True)  # images know no driver


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def contents(lamina: Lamina) -> tuple[str, list[str]]:
    """All that the image store holds."""
    return lamina("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"), sorted(
        os.listdir(lamina.root / "image/blobs/sha256")
    )


@pytest.fixture
def saved(lamina: Lamina, tmp_path: Path) -> Path:
    lamina("save", "--output", str(tmp_path / "busybox.tar"), "busybox")
    return tmp_path / "busybox.tar"


@pytest.fixture
def small(tmp_path: Path, own_mounts: None) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mount.mount("none", str(place), "tmpfs", data="size=1m")
    yield place
    mount.unmount(str(place))


def test_images_are_listed_as_docker_lists_them(lamina: Lamina) -> None:
    head, *rows = lamina("images").splitlines()
    assert head.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert sorted(row.split()[:2] for row in rows) == [["base", "latest"], ["busybox", "latest"]]
    image = json.loads(lamina("images", "--no-trunc", "--digests", "--format", "json", "busybox"))
    assert (image["Repository"], image["Tag"]) == ("busybox", "latest")
    assert image["ID"] == lamina("image", "inspect", "--format", "{{.Id}}", "busybox")
    assert f"busybox@{image['Digest']}" in lamina("image", "inspect", "--format", "{{json .RepoDigests}}", "busybox")


def test_an_image_has_a_line_for_each_name_and_filters_choose_among_them(lamina: Lamina) -> None:
    lamina("tag", "busybox", "example.com/team/tool:1")
    lamina("tag", "busybox", "tool:2")

    def listed(*words: str) -> list[str]:
        return sorted(lamina("images", "--format", "{{.Repository}}:{{.Tag}}", *words).splitlines())

    assert listed() == ["base:latest", "busybox:latest", "example.com/team/tool:1", "tool:2"]
    assert listed("tool") == ["tool:2"]
    assert listed("--filter", "reference=*:2") == ["tool:2"]
    assert listed("--filter", "reference=example.com/*/tool") == ["example.com/team/tool:1"]
    assert listed("--filter", "reference=bus*", "--filter", "reference=base") == ["base:latest", "busybox:latest"]
    assert listed("--filter", "dangling=true") == []
    assert len(set(lamina("images", "-q", "--filter", "dangling=false").splitlines())) == 2


def test_an_image_that_loses_its_name_dangles_and_is_pruned(lamina: Lamina, tmp_path: Path) -> None:
    archive = str(tar_of(tmp_path / "fs.tar", {"a": b"a"}))
    first = lamina("import", archive, "fs:1")
    second = lamina("import", "--message", "again", archive, "fs:1")
    assert lamina("images", "--quiet", "--no-trunc", "--filter", "dangling=true") == first
    assert lamina.result("image", "prune", stdin="n\n").stdout == ""
    assert first in lamina("images", "--quiet", "--no-trunc")
    asked = lamina.result("image", "prune", stdin="y\n")
    assert "WARNING! This will remove all dangling images." in asked.stderr
    assert asked.stdout.splitlines()[:2] == ["Deleted Images:", f"deleted: {first}"]
    assert second in lamina("images", "--quiet", "--no-trunc")


def test_filters_by_age_and_label_choose_images(lamina: Lamina, tmp_path: Path) -> None:
    archive = str(tar_of(tmp_path / "fs.tar", {"a": b"a"}))
    lamina("import", "--change", "LABEL kind=old", archive, "old:1")
    lamina("import", "--change", "LABEL kind=new", archive, "new:1")
    assert "old" in lamina("images", "--filter", "before=new:1")
    assert "new" not in lamina("images", "--filter", "before=new:1")
    assert "new" in lamina("images", "--filter", "since=old:1")
    assert lamina("images", "--format", "{{.Repository}}", "--filter", "label=kind=new") == "new"
    assert lamina("images", "--quiet", "--filter", "until=87600h") == ""
    lamina("image", "prune", "--all", "--force", "--filter", "label=kind=old")
    assert "old" not in lamina("images")
    assert "new" in lamina("images")


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_what_is_saved_loads_as_the_same_image(lamina: Lamina, tmp_path: Path, form: str) -> None:
    archive = str(tmp_path / "all.tar")
    lamina("save", "--format", form, "--output", archive, "busybox", "base")
    before = contents(lamina)
    lamina("rmi", "busybox", "base")
    assert lamina("load", "--input", archive).splitlines() == ["Loaded image: busybox:latest", "Loaded image: base:latest"]
    assert contents(lamina)[0] == before[0]
    with open(archive, "rb") as stdin:  # and again, from a pipe, taking no more space
        subprocess.run([*lamina.command("load")], stdin=stdin, check=True, capture_output=True)
    assert lamina("run", "--rm", "busybox", "echo", "well") == "well"


def test_save_takes_all_tags_of_a_repository_and_none_of_an_id(lamina: Lamina, tmp_path: Path) -> None:
    archive = str(tmp_path / "one.tar")
    lamina("tag", "busybox", "busybox:two")
    lamina("save", "--output", archive, "busybox")
    assert lamina("load", "--input", archive) == "Loaded image: busybox:latest\nLoaded image: busybox:two"
    identifier = lamina("image", "inspect", "--format", "{{.Id}}", "busybox")
    lamina("save", "--output", archive, identifier)
    assert lamina("load", "--input", archive) == f"Loaded image ID: {identifier}"


def test_skopeo_reads_what_is_saved(lamina: Lamina, saved: Path) -> None:
    seen = subprocess.run(["skopeo", "inspect", f"docker-archive:{saved}"], check=True, capture_output=True, text=True).stdout
    assert json.loads(seen)["Layers"] == lamina.diff_ids("busybox")


def test_import_applies_changes_and_reads_a_pipe(lamina: Lamina, tmp_path: Path) -> None:
    packed = gzip.compress(tar_of(tmp_path / "fs.tar", {"bin/x": b"x"}).read_bytes())
    options = ("--change", 'CMD ["/bin/x"]', "-c", "ENV A=b", "--message", "of hand", "--platform", "linux/arm64/v8")
    done = subprocess.run([*lamina.command("import", *options, "-", "fs:1")], input=packed, check=True, capture_output=True)
    found = lamina.document("fs:1", "image")
    assert found["Id"] == done.stdout.decode().strip()
    assert (found["Config"]["Cmd"], found["Config"]["Env"]) == (["/bin/x"], ["A=b"])
    assert (found["Architecture"], found["Variant"], found["Comment"]) == ("arm64", "v8", "of hand")


def test_history_says_how_an_image_came_to_be(lamina: Lamina, tmp_path: Path) -> None:
    identifier = lamina("import", "--message", "of hand", str(tar_of(tmp_path / "fs.tar", {"a": b"a"})), "fs:1")
    head, row = lamina("history", "fs:1").splitlines()
    assert head.split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert row.startswith(identifier[7:19])
    assert row.endswith("of hand")
    assert lamina("history", "--quiet", "--no-trunc", "fs:1") == identifier
    exact = lamina("history", "--human=false", "--format", "{{.Size}} {{.CreatedSince}}", "fs:1")
    size, created = exact.split()
    assert int(size) == 10240
    assert created == lamina("image", "inspect", "--format", "{{.Created}}", "fs:1")


def test_rmi_takes_names_first_and_then_the_image(lamina: Lamina) -> None:
    identifier = lamina("image", "inspect", "--format", "{{.Id}}", "busybox")
    lamina("tag", "busybox", "second:1")
    assert lamina("rmi", "busybox") == "Untagged: busybox:latest"
    assert lamina("rmi", "second:1") == f"Untagged: second:1\nDeleted: {identifier}"
    assert "no such image: 'busybox'" in lamina.error("rmi", "busybox", code=1)
    assert "no such image: 'busybox'" in lamina.error("rmi", "--force", "busybox", code=0)


def test_an_image_in_use_stays_and_every_other_name_is_tried(lamina: Lamina) -> None:
    lamina("create", "--name", "user", "busybox", "true")
    done = lamina.result("rmi", "busybox", "nothing", "base")
    assert done.returncode == 1
    assert [line.partition(" (")[0] for line in done.stderr.splitlines()] == [
        f"error: image 'busybox' is used by the container {lamina.show('user', '{{.Id}}')[:12]}",
        "error: no such image: 'nothing'",
    ]
    assert "Untagged: base:latest" in done.stdout
    lamina("rmi", "--force", "busybox")
    assert lamina("images", "--format", "{{.Repository}}") == "<none>"
    lamina("start", "--attach", "user")


def test_names_that_cant_be_are_one_line(lamina: Lamina, tmp_path: Path) -> None:
    before = contents(lamina)
    archive = str(tar_of(tmp_path / "fs.tar", {"a": b"a"}))
    assert "must be lowercase" in lamina.error("tag", "busybox", "UPPER", code=1)
    assert "invalid image name" in lamina.error("import", archive, "a b", code=1)
    assert "invalid filter 'colour'" in lamina.error("images", "--filter", "colour=red", code=1)
    assert "invalid filter 'dangling=maybe'" in lamina.error("images", "--filter", "dangling=maybe", code=1)
    assert "invalid pattern '['" in lamina.error("images", "[", code=1)
    assert "URL 'https://example.com/x.tar'" in lamina.error("import", "https://example.com/x.tar", code=1)
    assert "--change:1: unknown instruction 'FOO'" in lamina.error("import", "--change", "FOO bar", archive, code=1)
    assert "--change:1: RUN: can't be used here" in lamina.error("import", "--change", "RUN bar", archive, code=1)
    assert "invalid size 'much'" in lamina.error("load", "--max-size", "much", "--input", archive, code=1)
    assert "can't be read: is a directory" in lamina.error("load", "--input", str(tmp_path), code=1)
    assert "doesn't exist" in lamina.error("load", "--input", str(tmp_path / "no.tar"), code=1)
    assert contents(lamina) == before


def test_a_damaged_archive_is_refused_by_name_and_leaves_nothing(lamina: Lamina, saved: Path, tmp_path: Path) -> None:
    before = contents(lamina)
    lamina("rmi", "busybox")
    without = contents(lamina)
    whole = saved.read_bytes()
    changed = bytearray(whole)
    changed[whole.index(b"\x7fELF") + 5000] ^= 1
    cases = {
        "truncated": whole[:500_000],
        "truncated gzip": gzip.compress(whole)[:200_000],
        "another digest": bytes(changed),
        "not an archive": os.urandom(4096),
        "nothing": b"",
        "no image": tar_of(tmp_path / "x.tar", {"a": b"a"}).read_bytes(),
    }
    for name, content in cases.items():
        path = tmp_path / f"{name}.tar"
        path.write_bytes(content)
        assert f"'{path}': " in lamina.error("load", "--input", str(path), code=1), name
        assert contents(lamina) == without, name
    lamina("load", "--input", str(saved))
    assert contents(lamina)[0] == before[0]


def test_a_hostile_archive_is_refused(lamina: Lamina, tmp_path: Path) -> None:
    before = contents(lamina)
    for path in ("../../evil", "a/../../evil"):
        archive = tar_of(tmp_path / "hostile.tar", {path: b"x"})
        assert "'..'" in lamina.error("import", str(archive), code=1)
    bomb = tmp_path / "bomb.tar.gz"
    bomb.write_bytes(gzip.compress(tar_of(tmp_path / "big.tar", {"zero": bytes(20 << 20)}).read_bytes()))
    assert "more than the limit of 10485760 bytes" in lamina.error("import", "--max-size", "10m", str(bomb), code=1)
    assert "more than the limit of 1048576 bytes" in lamina.error("load", "--max-size", "1m", "--input", str(bomb), code=1)
    assert contents(lamina) == before


def test_loading_onto_a_full_disk_leaves_nothing_but_what_was_there(lamina: Lamina, saved: Path, small: Path) -> None:
    full = Lamina(small / "root", "overlay")
    assert "no space left" in full.error("load", "--input", str(saved), code=1)
    assert "no space left" in full.error("import", str(saved), code=1)
    assert contents(full) == ("", [])
    assert os.listdir(full.root / "tmp") == []


def test_saving_onto_a_full_disk_leaves_no_file(lamina: Lamina, small: Path) -> None:
    archive = small / "busybox.tar"
    assert f"'{archive}' can't be written: no space left on device" in lamina.error("save", "-o", str(archive), "busybox", code=1)
    assert os.listdir(small) == []
    assert "'/dev/full' can't be written" in lamina.error("save", "-o", "/dev/full", "busybox", code=1)


def test_saving_what_isnt_there_writes_no_file(lamina: Lamina, tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    archive.write_text("precious")
    lamina.error("save", "--output", str(archive), "busybox", "nothing", code=1)
    assert archive.read_text() == "precious"
    assert "is a directory" in lamina.error("save", "--output", str(tmp_path), "busybox", code=1)
    assert "can't be written" in lamina.error("save", "--output", str(tmp_path / "no/x.tar"), "busybox", code=1)


def test_volumes_are_made_listed_shown_and_removed(lamina: Lamina) -> None:
    assert lamina("volume", "create", "--label", "kind=one", "first") == "first"
    anonymous = lamina("volume", "create")
    lamina("create", "--name", "user", "--volume", "second:/data", "busybox", "true")
    assert lamina("volume", "ls", "--quiet").splitlines() == sorted([anonymous, "first", "second"])
    assert lamina("volume", "ls", "--quiet", "--filter", "dangling=false") == "second"
    assert lamina("volume", "ls", "--filter", "label=kind", "--format", '{{.Name}} {{.Label "kind"}}') == "first one"
    (document,) = json.loads(lamina("volume", "inspect", "first"))
    assert document["Mountpoint"] == str(lamina.root / "volumes/first/_data")
    assert "in use" in lamina.error("volume", "rm", "second", code=1)
    assert lamina("volume", "prune", "--force").splitlines()[:2] == ["Deleted Volumes:", anonymous]
    assert lamina("volume", "prune", "--all", "--force").splitlines()[:2] == ["Deleted Volumes:", "first"]
    assert lamina("volume", "rm", "--force", "first") == "first"
    assert lamina("volume", "ls", "--quiet") == "second"
    done = lamina.result("volume", "inspect", "--format", "{{.Name}}", "gone", "second")
    assert (done.returncode, done.stdout.strip(), done.stderr.count("\n")) == (1, "second", 1)
    assert "invalid volume name" in lamina.error("volume", "create", "a/b", code=1)
    assert "volume driver 'nfs' is not installed" in lamina.error("volume", "create", "--driver", "nfs", "x1", code=1)


def test_a_bar_is_shown_on_a_terminal_alone_and_taken_away(lamina: Lamina, tmp_path: Path) -> None:
    big = str(tar_of(tmp_path / "big.tar", {"a": os.urandom(48 << 20)}))
    assert lamina.result("import", big, "big:1").stderr == ""
    with terminals.Terminal(lamina.command("import", big, "big:2")) as terminal:
        terminal.expect(r"importing +\[=*> *\] +\d+%  [\d.]+MB/50.3MB", timeout_s=30)
        shown = terminal.expect(r"\r\x1b\[Ksha256:[0-9a-f]{64}\r\n", timeout_s=30)
    assert "importing" not in shown.group()


def test_a_shell_completes_names(lamina: Lamina) -> None:
    lamina("create", "--name", "blue-one", "busybox", "true")
    lamina("volume", "create", "blue-data")

    def complete(*words: str) -> list[str]:
        line = ["lamina", "--root", str(lamina.root), *words]
        asked = {"_LAMINA_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
        environment = {**os.environ, **asked}
        done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return [each.removeprefix("plain,") for each in done.stdout.splitlines()]

    assert complete("rmi", "bu") == ["busybox:latest"]
    assert complete("rmi", "busybox:latest", "b") == ["base:latest"]
    assert complete("volume", "rm", "blue") == ["blue-data"]
    assert complete("driver", "inspect", "over") == ["overlay", "overlay2"]
    assert complete("volume", "create", "--driver", "l") == ["local"]
    script = lamina("completion", "bash")
    typed = f"COMP_WORDS=(lamina --root {lamina.root} rmi ba); COMP_CWORD=4; _lamina_completion {PROGRAM}; echo ${{COMPREPLY[@]}}"
    assert (
        subprocess.run(["bash", "-c", f"{script}\n{typed}"], capture_output=True, text=True, check=True).stdout == "base:latest\n"
    )
