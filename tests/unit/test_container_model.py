"""How a container's options are read: what is taken, and that whatever else comes is a UsageError and nothing worse."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from lamina.errors import UsageError
from lamina.model.container import (
    Container,
    ContainerConfig,
    MountRequest,
    Status,
    check_name,
    check_target,
    merge_env,
    parse_env_file,
    parse_mount,
    parse_tmpfs,
    parse_volume,
)

PIECES = some.sampled_from(
    ["type=bind", "type=volume", "type=tmpfs", "source=", "src=/a", "target=/b", "dst=", "readonly", "ro=1", "volume-opt=o=a=b",
     "tmpfs-size=1m", "bind-propagation=rshared", "volume-nocopy", "=", ",", ":", "/", "..", "a", "\0", "\n", "é", "\udcff", " "]
)  # fmt: skip
TEXTS = some.one_of(some.text(), some.lists(PIECES, max_size=8).map(",".join), some.lists(PIECES, max_size=8).map(":".join))


@pytest.mark.parametrize("parse", [parse_volume, parse_mount, parse_tmpfs, check_name, lambda text: check_target(text, text)])
@settings(deadline=None)
@given(text=TEXTS)
def test_whatever_is_written_is_read_or_refused(parse, text: str):
    try:
        found = parse(text)
    except UsageError as error:
        assert error.message
    else:
        if isinstance(found, MountRequest):
            assert found.target.startswith("/")
            assert ".." not in found.target.split("/")
            assert MountRequest(**found.to_json()) == found


@settings(deadline=None)
@given(text=some.text(), environment=some.dictionaries(some.text(), some.text()))
def test_an_env_file_is_read_or_refused(text: str, environment: dict[str, str]):
    try:
        found = parse_env_file(text, environment, name="f")
    except UsageError as error:
        assert "'f' line" in error.message
    else:
        assert all("=" in item and not item.startswith("=") for item in found)


def test_a_volume_is_a_host_path_a_name_or_anonymous():
    assert parse_volume("/host:/in") == MountRequest(type="bind", source="/host", target="/in")
    assert parse_volume("data:/in:ro") == MountRequest(type="volume", source="data", target="/in", read_only=True)
    assert parse_volume("/in") == MountRequest(type="volume", target="/in")
    assert parse_volume("data:/in:nocopy").copy_image_content is False
    assert parse_volume("/host:/in:bind").recursive is False
    assert [parse_volume(f"/host:/in:{words}").relabel for words in ("ro", "z", "ro,Z")] == ["", "z", "Z"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "invalid volume"),
        ("a:b:c:d", "invalid volume"),
        ("/a:", "invalid volume"),
        ("./here:/in", "is not absolute"),
        ("sub/dir:/in", "is not absolute"),
        ("/host:in", "target 'in' is not absolute"),
        ("/host:/in/../up", "contains '..'"),
        ("/host:/", "can't be the root"),
        ("/host:/in:nonsense", "unknown option 'nonsense'"),
        ("x:/in", "invalid volume name 'x'"),
    ],
)
def test_a_volume_that_cannot_be_meant_is_refused_with_its_reason(text: str, why: str):
    with pytest.raises(UsageError, match=why.replace(".", r"\.")):
        parse_volume(text)


def test_a_mount_takes_dockers_other_words():
    expected = MountRequest(type="bind", source="/a", target="/b", read_only=True)
    for text in ("type=bind,source=/a,target=/b,readonly", "type=bind,src=/a,dst=/b,ro", "TYPE=bind,src=/a,destination=/b,ro=1"):
        assert parse_mount(text) == expected
    assert parse_mount("type=bind,src=/a,dst=/b,ro=false").read_only is False
    assert parse_mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700").options == {"size": "1m", "mode": "700"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("type=disk,target=/b", "type 'disk'"),
        ("type=bind,target=/b", "needs source="),
        ("type=bind,source=a,target=/b", "is not absolute"),
        ("type=tmpfs,source=/a,target=/b", "has no source"),
        ("type=volume,target=/b,tmpfs-size=1", "unknown option 'tmpfs-size'"),
        ("type=volume,source,target=/b", "'source' is not OPTION=VALUE"),
        ("type=bind,source=/a,target=/b,readonly=perhaps", "'perhaps' is not true or false"),
        ("type=volume", "is not absolute"),
    ],
)
def test_a_mount_that_cannot_be_meant_is_refused_with_its_reason(text: str, why: str):
    with pytest.raises(UsageError, match=why):
        parse_mount(text)


def test_a_tmpfs_takes_what_a_tmpfs_has_and_nothing_else():
    assert parse_tmpfs("/run:rw,noexec,size=64m").options == {"rw": "", "noexec": "", "size": "64m"}
    assert parse_tmpfs("/run:ro").read_only
    with pytest.raises(UsageError, match="unknown option 'colour'"):
        parse_tmpfs("/run:colour=red")


def test_targets_are_normalised():
    assert check_target("//a/./b//", "x") == "/a/b"


def test_an_env_file_has_comments_blank_lines_and_names_alone():
    text = "# comment\n\n  A=1\nB= two words \nHOME\nUNKNOWN\nC=\n"
    assert parse_env_file(text, {"HOME": "/root"}, name="f") == ["A=1", "B= two words ", "HOME=/root", "C="]


def test_an_env_files_lines_end_at_newlines_alone():
    assert parse_env_file("\ufeffA=x\x0cy\u2028z\r\nB=1\r\n", {}, name="f") == ["A=x\x0cy\u2028z", "B=1"]


@pytest.mark.parametrize("line", ["=x", "A B=x", "A B"])
def test_an_env_files_bad_line_is_named(line: str):
    with pytest.raises(UsageError, match="'f' line 2"):
        parse_env_file(f"OK=1\n{line}\n", {}, name="f")


def test_later_environments_win_at_the_first_ones_place():
    assert merge_env(["A=1", "B=1"], ("C=3", "A=2")) == ("A=2", "B=1", "C=3")


@pytest.mark.parametrize("name", ["", "a", "-ab", "a b", "a/b", "ab\n", "é1", ".ab"])
def test_names_are_dockers(name: str):
    with pytest.raises(UsageError, match="invalid container name"):
        check_name(name)


def test_a_configuration_survives_the_database():
    config = ContainerConfig(
        image="i", command=("a", "b"), env=("X=1",), labels={"l": "v"}, tty=True, stop_timeout_s=3, exposed_ports=("80/tcp",),
        mounts=(MountRequest(type="tmpfs", target="/t", options={"a": "1"}), MountRequest(type="bind", source="/s", target="/d")),
        storage_options={"size": "1"},
    )  # fmt: skip
    assert ContainerConfig.from_json(config.to_json()) == config


def test_a_newer_releases_settings_are_left_aside():
    assert ContainerConfig.from_json({"image": "i", "from_the_future": [1], "mounts": []}) == ContainerConfig(image="i")


def test_a_paused_container_is_active_and_an_ended_one_is_not():
    def container(status: Status) -> Container:
        config = ContainerConfig(image="i")
        return Container(id="a" * 64, name="n", image_id="i", driver="vfs", created_ns=0, status=status, config=config, parents=())

    assert [status for status in Status if container(status).is_active] == [Status.RUNNING, Status.PAUSED]
    assert container(Status.CREATED).short_id == "a" * 12
