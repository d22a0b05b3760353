"""`--security-opt label=…`, `:z` and `:Z` where the kernel has SELinux and a policy that knows containers. `make vm-test`."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Context
from cases import FOREVER, Lamina, driver_of, each_driver

from lamina.linux import selinux
from lamina.linux.fs import SELINUX_LABEL

pytestmark = pytest.mark.vm
ENFORCE = Path(selinux.FILE_SYSTEM, "enforce")
ASKED = ("--security-opt", "label=type:container_t")
LABEL = re.compile(r"system_u:system_r:container_t:s0:(c\d+,c\d+)")
OWN = "tr -d '\\0' </proc/self/attr/current; echo"


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


@pytest.fixture(autouse=True)
def enforcing() -> Iterator[None]:
    """Let the policy deny what it doesn't allow; without, it would only say so."""
    ENFORCE.write_text("1")
    yield
    ENFORCE.write_text("0")


def label_of(path: Path | str) -> str:
    return os.getxattr(path, SELINUX_LABEL).decode().rstrip("\0")


def label_of_process(pid: int | str) -> str:
    return Path(f"/proc/{pid}/attr/current").read_text(encoding="ascii").rstrip("\0")


@each_driver
def test_a_labelled_container_works_and_all_in_it_has_its_label(lamina: Lamina, driver: str):
    """Programs of the image run, which map files of its layers; new files are written, and committed without their label."""
    words = "echo new >/new; mkdir /dir; cat /new /etc/hostname >/dev/null; echo x >/dev/shm/x; echo x >/dev/null; ls /dev/pts"
    container = lamina.background(*ASKED, "base", "sh", "-c", f"{OWN}; {words}; exec sleep 1000")
    label = lamina("exec", container, "sh", "-c", OWN)
    found = LABEL.fullmatch(label)
    assert found, label
    assert label_of_process(lamina.pid(container)) == label
    lamina("exec", container, "sh", "-c", "until [ -e /dev/shm/x ]; do sleep 0.1; done")
    assert lamina("logs", container).splitlines()[0] == label
    files = f"system_u:object_r:container_file_t:s0:{found[1]}"
    assert label_of(lamina.merged(container) / "new") == files
    shown = lamina.document(container)
    assert (shown["ProcessLabel"], shown["MountLabel"], shown["HostConfig"]["SecurityOpt"]) == (label, files, [ASKED[1]])
    lamina("commit", container, "kept")
    assert sorted(lamina("diff", container).splitlines()) == ["A /dir", "A /new"]
    assert lamina("run", "--rm", *ASKED, "kept", "cat", "/new") == "new"


def test_every_part_of_a_label_can_be_said(lamina: Lamina):
    options = [f"label={text}" for text in ("user:root", "role:system_r", "type:container_t", "level:s0:c7,c9")]
    words = [word for option in options for word in ("--security-opt", option)]
    for more in ((), ("--init", "--user", "1000")):
        assert lamina("run", "--rm", *words, *more, "base", "sh", "-c", OWN) == "root:system_r:container_t:s0:c7,c9"
    container = lamina("create", *words, "--security-opt", "label=filetype:container_file_t", "base", "true")
    assert lamina.show(container, "{{.MountLabel}}") == "root:object_r:container_file_t:s0:c7,c9"


def test_a_label_is_for_those_who_ask_unless_the_settings_say_otherwise(
    lamina: Lamina, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ours = label_of_process("self")
    assert lamina("run", "--rm", "base", "sh", "-c", OWN) == ours
    (tmp_path / "config.toml").write_text("selinux-enabled = true\n")
    monkeypatch.setenv("LAMINA_CONFIG", str(tmp_path / "config.toml"))
    assert LABEL.fullmatch(lamina("run", "--rm", "base", "sh", "-c", OWN))
    for words in (("--security-opt", "label=disable"), ("--pid", "host"), ("--ipc", "host"), ("--privileged",)):
        assert lamina("run", "--rm", *words, "base", "sh", "-c", OWN) == ours
    first = lamina.background("--ipc", "shareable", "base", *FOREVER)
    second = lamina("create", "--ipc", f"container:{first}", "base", "true")
    third = lamina("create", "base", "true")
    labels = [lamina.show(each, "{{.ProcessLabel}}") for each in (first, second, third)]
    assert labels[0] == labels[1] != labels[2]
    assert "name=selinux" in json.loads(lamina("info", "--format", "{{json .SecurityOptions}}"))


@each_driver
def test_a_builds_commands_have_a_label(lamina: Lamina, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One for a whole build, if the settings ask for labels; what its mounts show it can read, and a cache the next build's too."""
    dockerfile = f"""
FROM base AS first
RUN ({OWN}) >/label; echo new >/new
FROM base
RUN --mount=type=bind,target=/context --mount=type=bind,from=first,target=/stage --mount=type=bind,from=first,target=/own,rw \\
    --mount=type=cache,target=/cache --mount=type=tmpfs,target=/tmpfs --mount=type=secret,id=secret \\
    cat /context/file /stage/new /own/new /run/secrets/secret /etc/hostname >/told; cat /cache/kept >>/told || true; \\
    echo x >/own/new && echo x >/tmpfs/x && echo kept >/cache/kept; mkdir /cache/below; echo x >/cache/below/x
RUN <<END
#!/bin/sh
({OWN}) >/label
cp /told /copied
END
COPY --from=first /label /first
"""
    context = Context(lamina, tmp_path / "context", dockerfile, {"file": "file\n", "secret": "hush\n"})
    given = ("-t", "made", "--no-cache", "--secret", f"id=secret,src={context.directory}/secret")
    before = label_of(context.directory / "file")
    context.build(*given)
    assert lamina("run", "--rm", "made", "cat", "/label", "/first").splitlines() == [label_of_process("self")] * 2
    (tmp_path / "config.toml").write_text("selinux-enabled = true\n")
    monkeypatch.setenv("LAMINA_CONFIG", str(tmp_path / "config.toml"))
    labels = []
    for _ in range(2):
        context.build(*given)
        label, first = lamina("run", "--rm", "made", "cat", "/label", "/first").splitlines()
        assert LABEL.fullmatch(label), label
        assert label == first
        labels.append(label)
        told = lamina("run", "--rm", "made", "cat", "/copied").splitlines()
        assert told == ["file", "new", "new", "hush", "lamina-build", "kept"]
    assert labels[0] != labels[1]
    assert label_of(context.directory / "file") == before


def test_volumes_are_one_containers_or_everybodys_as_z_says(lamina: Lamina, tmp_path: Path):
    """What has no container's label is out of reach; `:Z` opens it to one container alone, `:z` to all."""
    host = tmp_path / "host"
    (host / "below").mkdir(parents=True)
    (host / "below/file").write_text("ours\n")
    (host / "link").symlink_to("/etc/passwd")
    before = label_of("/etc/passwd")
    read = ("cat", "/v/below/file")
    assert "Permission denied" in lamina.result("run", "--rm", *ASKED, "-v", f"{host}:/v", "base", *read).stderr
    first = lamina("create", *ASKED, "-v", f"{host}:/v:Z", "base", *read)
    assert lamina("start", "-a", first) == "ours"
    assert label_of(host / "below/file") == lamina.show(first, "{{.MountLabel}}")
    assert lamina.show(first, "{{(index .Mounts 0).Mode}}") == "Z"
    assert "Permission denied" in lamina.result("run", "--rm", *ASKED, "-v", f"{host}:/v", "base", *read).stderr
    assert lamina("run", "--rm", *ASKED, "-v", f"{host}:/v:ro,z", "base", *read) == "ours"
    assert lamina("start", "-a", lamina("create", *ASKED, "-v", f"{host}:/v", "base", *read)) == "ours"
    assert label_of(host / "below/file") == "system_u:object_r:container_file_t:s0"
    assert label_of("/etc/passwd") == before
    for _ in range(2):
        lamina("run", "--rm", *ASKED, "-v", "named:/v", "base", "sh", "-c", "echo x >>/v/x; cat /v/x")
    error = lamina.error("create", *ASKED, "-v", "/etc:/v:z", "base", "true", code=1)
    assert "'/etc' is not relabelled" in error


def test_a_label_that_the_policy_does_not_know_is_one_clear_error(lamina: Lamina):
    error = lamina.error("run", "--rm", "--security-opt", "label=type:nobody_t", "base", "true", code=125)
    assert "policy doesn't know the label 'system_u:system_r:nobody_t:s0:c" in error
    assert lamina("ps", "-aq") == ""
