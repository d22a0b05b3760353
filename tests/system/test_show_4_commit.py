"""What to show, 4: `commit` writes one layer more and shares those below; the image is the same whichever driver made it."""

from pathlib import Path

import pytest
from archives import folder, image, layer
from cases import DRIVERS, FOREVER, Lamina, disk_bytes, fingerprint

from lamina.engine import Engine
from lamina.usecases.system import DiskUsage

WHEN = "2024-05-06 07:08:09"
# Two things that a container sees differ between drivers by the kernel's doing, and so are not among the deeds: writing to a file
# that the image has under two names (overlayfs breaks the link: overlayfs.rst, "Non-standard behavior"), and the times of what lay
# in a moved directory of the image (rename(2) is EXDEV there; mv then copies, and busybox's does to the second only).
DEEDS = (
    "echo new > /new; mkdir -p /made/deep; echo in > /made/deep/file; ln /new /made/twin; ln -s ../new /made/link",
    "mkfifo /made/pipe; mknod /made/null c 1 3; chmod 4755 /made/deep/file; chown 1000:10 /made/deep",
    "echo more >> /files/noted; rm /files/doomed; mv /files/owned /files/moved; chmod 600 /single",
    "rm -r /tree; mkdir /tree; echo other > /tree/a",
    "rm -r /data",
    "mv /test /examined",
    f"touch -d '{WHEN}' /examined /examined/inside /examined/deep /examined/deep/file",
    f"touch -h -d '{WHEN}' / /new /made /made/* /made/deep/* /files /files/noted /tree /tree/a /single",
)


def usage(lamina: Lamina) -> DiskUsage:
    """What `system df` is made of."""
    with Engine(root_dir=str(lamina.root)) as engine:
        return engine.system.disk_usage()


def blobs(lamina: Lamina) -> dict[str, int]:
    """The image store's blobs: digest to bytes on disk."""
    return {path.name: path.stat().st_blocks * 512 for path in (lamina.root / "image/blobs/sha256").iterdir()}


def changed(lamina: Lamina, *deeds: str, driver: str = "", image: str = "base") -> str:
    """A container that has done these things and ended."""
    container = lamina("create", image, "sh", "-e", "-c", "\n".join(deeds), driver=driver)
    lamina("start", "-a", container)
    return container


def test_a_commit_is_the_images_layers_and_one_more(lamina: Lamina):
    container = changed(lamina, *DEEDS)
    lamina("commit", container, "made")
    assert lamina.diff_ids("made")[:-1] == lamina.diff_ids("base")
    assert len(lamina.diff_ids("made")) == 3
    assert len(lamina("history", "-q", "made").splitlines()) == len(lamina("history", "-q", "base").splitlines()) + 1


def test_the_committed_image_runs_with_all_that_was_changed_in_it(lamina: Lamina):
    lamina("commit", changed(lamina, *DEEDS), "made")
    look = (
        "cat /new /files/noted /tree/a; ls /tree; ls /made; ls -d /files/doomed /files/owned /data /test 2>/dev/null;"
        "stat -c '%a %u:%g %h %Y' /made/deep /made/deep/file /new /files/moved /single; cat /examined/inside; readlink /made/link"
    )
    assert lamina("run", "--rm", "made", "sh", "-c", look).splitlines() == [
        "new", "noted", "more", "other", "a", "deep", "link", "null", "pipe", "twin",
        "755 1000:10 2 1714979289", "4755 0:0 1 1714979289", "644 0:0 2 1714979289", "640 1000:10 1 1700000000",
        "600 0:0 1 1714979289", "the image's own", "../new",
    ]  # fmt: skip


def test_the_layers_below_take_no_space_again_and_system_df_agrees_with_du(lamina: Lamina):
    container = changed(lamina, "dd if=/dev/urandom of=/big bs=1M count=3 2>/dev/null")
    before, blobs_before = usage(lamina), blobs(lamina)
    unpacked = [place for key in lamina.layer_keys("base") for place in lamina.layer_dirs(key)]
    layers_before = fingerprint(unpacked)
    lamina("commit", container, "made")
    after, new_blobs = usage(lamina), {name: size for name, size in blobs(lamina).items() if name not in blobs_before}
    assert len(new_blobs) == 3, "a layer, a configuration, a manifest"
    assert 3 << 20 <= sum(new_blobs.values()) < 3.1 * (1 << 20)
    assert after.blobs_bytes - before.blobs_bytes == sum(new_blobs.values())
    assert after.blobs_bytes == sum(blobs(lamina).values())
    assert after.layers == before.layers, "a commit unpacks nothing"
    lamina("run", "--rm", "made", "true")
    ran, blobs_ran = usage(lamina), blobs(lamina)
    assert blobs_ran == {**blobs_before, **new_blobs}
    assert fingerprint(unpacked) == layers_before
    assert len(ran.layers) == len(after.layers) + 1
    added = ran.unpacked_bytes(lamina.driver) - after.unpacked_bytes(lamina.driver)
    key = lamina.layer_keys("made")[-1]
    assert added == sum(disk_bytes(place) for place in lamina.layer_dirs(key) if place.is_dir())
    if lamina.driver == "vfs":  # a full copy is what this driver is; the packed layers are shared all the same
        assert added > 3 << 20
    else:
        assert 3 << 20 <= added < 3.1 * (1 << 20)


def test_what_system_df_says_of_unpacked_layers_is_what_du_counts(lamina: Lamina):
    container = changed(lamina, "dd if=/dev/urandom of=/big bs=1M count=2 2>/dev/null; echo more >> /files/plain")
    said = usage(lamina)
    keys = {*lamina.layer_keys("base"), *lamina.layer_keys("busybox")}
    assert {row.key for row in said.layers} == keys
    for row in said.layers:
        assert row.usage.size_bytes == sum(disk_bytes(place) for place in lamina.layer_dirs(row.key) if place.is_dir())
    (own,) = said.containers
    assert own.usage.size_bytes == sum(disk_bytes(place) for place in lamina.layer_dirs(container) if place.is_dir())
    shown = lamina("system", "df", "-v")
    assert lamina.driver in shown


@pytest.mark.parametrize("driver", [DRIVERS[0]], indirect=True)
def test_the_same_deeds_make_the_same_image_on_every_driver(lamina: Lamina):
    made = {}
    for driver in DRIVERS:
        lamina("commit", changed(lamina, *DEEDS, driver=driver), f"made-{driver}")
        made[driver] = lamina.diff_ids(f"made-{driver}")
    assert made["aufs"] == made["vfs"] == made["overlay"]
    again = {}
    for driver in DRIVERS:
        deeds = (
            "rm /new; echo again > /again; rm -r /made/deep; mv /tree /wood; mkdir /data; rm /files/link",
            f"for at in / /again /made /wood /data /files; do touch -d '{WHEN}' $at; done",
        )
        lamina("commit", changed(lamina, *deeds, driver=driver, image=f"made-{driver}"), f"again-{driver}")
        again[driver] = lamina.diff_ids(f"again-{driver}")
    assert again["aufs"] == again["vfs"] == again["overlay"]
    assert len(again["vfs"]) == 4
    for maker in DRIVERS:
        for runner in DRIVERS:
            assert lamina("run", "--rm", f"again-{maker}", "cat", "/again", "/wood/a", driver=runner) == "again\nother"


def test_a_container_that_changed_nothing_has_no_changes_and_commits_an_empty_layer(lamina: Lamina, tmp_path: Path):
    bare = layer({"bin": folder(), "bin/true": "#!/bin/true\n"})
    lamina("load", "-q", "-i", str(image(tmp_path / "bare.tar", "bare:latest", [bare])))
    for name in ("base", "bare"):
        container = lamina("create", name, "/bin/true")
        assert lamina("diff", container) == ""
    container = changed(lamina, "true")
    assert lamina("diff", container) == ""
    lamina("commit", container, "same")
    assert lamina("diff", lamina("create", "same", "true")) == ""


def test_diff_and_commit_do_not_disagree(lamina: Lamina):
    container = changed(lamina, *DEEDS)
    listed = lamina("diff", container).splitlines()
    wanted = (
        "A /new", "C /files", "C /files/noted", "D /files/doomed", "D /files/owned", "A /files/moved", "D /data", "D /test",
        "A /examined", "C /tree", "D /tree/sub", "C /tree/a", "C /single", "A /made/deep/file",
    )  # fmt: skip
    assert not [line for line in wanted if line not in listed]
    assert not [line for line in listed if "/etc" in line or "/dev" in line or "/proc" in line]
    lamina("commit", container, "made")
    twin = lamina("create", "made", "true")
    lamina("start", "-a", twin)
    assert lamina("diff", twin) == ""


def test_a_running_container_is_committed_as_it_stands_and_runs_on(lamina: Lamina):
    container = lamina.background("base", "sh", "-c", "echo first > /state; sleep 1000000 & wait")
    while not (lamina.merged(container) / "state").exists():
        pass
    lamina(
        "commit",
        "-m",
        "as it stands",
        "-a",
        "the author",
        "-c",
        "ENV PLACE=there",
        "-c",
        'CMD ["cat", "/state"]',
        container,
        "made",
    )
    assert lamina.status(container) == "running"
    lamina("exec", container, "sh", "-c", "echo second > /state")
    assert lamina("run", "--rm", "made") == "first"
    assert lamina("run", "--rm", "made", "sh", "-c", "echo $PLACE") == "there"
    assert lamina.document("made", "image")["Author"] == "the author"


def test_removing_the_container_and_the_base_leaves_the_committed_image_whole(lamina: Lamina):
    container = changed(lamina, *DEEDS)
    lamina("commit", container, "made")
    lamina("rm", container)
    lamina("rmi", "base")
    assert lamina("run", "--rm", "made", "cat", "/new", "/files/noted") == "new\nnoted\nmore"
    container = lamina.background("made", *FOREVER)
    assert (lamina.merged(container) / "new").read_text(encoding="utf-8") == "new\n"
