"""The documents of an image: read strictly, with errors that name the field, and written again without loss."""

import pytest

from lamina.errors import ArchiveError, UsageError
from lamina.model.image import MAX_DOCUMENT_BYTES, OCI_MANIFEST, Descriptor, Index, Manifest, parse_document
from lamina.model.image_config import Defaults, ImageConfig, created_ns_of, format_time, parse_time
from lamina.store.changes import apply_change, apply_changes

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
DESCRIPTOR = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": A, "size": 7}
CONFIG_DESCRIPTOR = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": B, "size": 9}
MANIFEST = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG_DESCRIPTOR, "layers": [DESCRIPTOR]}
CONFIG = {
    "created": "2024-02-29T12:00:00.5Z",
    "author": "someone",
    "architecture": "arm",
    "os": "linux",
    "variant": "v7",
    "os.version": "unknown to us",
    "config": {
        "User": "1000:100",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["PATH=/bin", "EMPTY="],
        "Entrypoint": ["/init"],
        "Cmd": [],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5, "Retries": 2, "Later": 1},
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "Labels": {"a": "b"},
        "StopSignal": "SIGQUIT",
        "StopTimeout": 0,
        "Shell": ["/bin/bash", "-c"],
        "OnBuild": ["RUN x"],
        "ArgsEscaped": True,
    },
    "rootfs": {"type": "layers", "diff_ids": [A]},
    "history": [
        {"created": "2024-02-29T12:00:00Z", "created_by": "ADD", "comment": "c"},
        {"created_by": "ENV", "empty_layer": True, "later": [1]},
    ],
}


def test_a_configuration_is_written_as_it_was_read():
    parsed = ImageConfig.from_json(CONFIG)
    assert parsed.config.cmd == ()
    assert parsed.config.entrypoint == ("/init",)
    assert parsed.config.healthcheck is not None
    assert parsed.config.stop_timeout_s == 0
    assert parsed.history[1].empty_layer
    assert parsed.to_json() == CONFIG
    assert ImageConfig.from_bytes(parsed.to_bytes()) == parsed


def test_a_manifest_and_an_index_are_written_as_they_were_read():
    manifest = {**MANIFEST, "annotations": {"a": "b"}, "subject": DESCRIPTOR, "layers": [{**DESCRIPTOR, "urls": ["x"]}]}
    assert Manifest.from_json(manifest).to_json() == manifest
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**DESCRIPTOR, "platform": {"architecture": "arm64", "os": "linux", "variant": "v8", "os.features": ["x"]}}],
        "later": True,
    }
    assert Index.from_json(index).to_json() == index


def test_null_is_the_same_as_absent():
    parsed = ImageConfig.from_json(
        {**CONFIG, "config": {"Entrypoint": None, "Cmd": None, "Env": None, "Labels": None}, "history": None}
    )
    assert parsed.config == Defaults()
    assert ImageConfig.from_json({**CONFIG, "config": None}).config == Defaults()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schemaVersion": 1}, "schemaVersion"),
        ({"schemaVersion": True}, "schemaVersion"),
        ({"mediaType": "application/vnd.oci.image.index.v1+json"}, "mediaType"),
        ({"mediaType": 5}, "mediaType"),
        ({"manifests": []}, "manifests"),  # CVE-2021-41190
        ({"config": None}, "config"),
        ({"config": {**CONFIG_DESCRIPTOR, "digest": "sha256:12"}}, "digest"),
        ({"layers": {}}, "layers"),
        ({"layers": [{**DESCRIPTOR, "size": -1}]}, r"layers\[0\].*size"),
        ({"layers": [{**DESCRIPTOR, "size": 1.5}]}, r"layers\[0\].*size"),
        ({"layers": [DESCRIPTOR, {"mediaType": "x", "digest": A}]}, r"layers\[1\].*size"),
        ({"layers": [{**DESCRIPTOR, "digest": None}]}, r"layers\[0\].*digest"),
        ({"annotations": {"a": 1}}, "annotations"),
    ],
)
def test_a_wrong_manifest_is_refused_by_the_name_of_the_field(change, named):
    with pytest.raises(ArchiveError, match=named):
        Manifest.from_json({**MANIFEST, **change})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"os": None}, "os"),
        ({"architecture": ""}, "architecture"),
        ({"rootfs": None}, "rootfs"),
        ({"rootfs": {"type": "tree", "diff_ids": []}}, "type"),
        ({"rootfs": {"type": "layers", "diff_ids": ["x"]}}, r"diff_ids\[0\]"),
        ({"config": []}, "config"),
        ({"config": {"Env": "A=b", "Cmd": [1]}}, "Cmd"),
        ({"config": {"Env": ["=b"]}}, "Env"),
        ({"config": {"Env": ["A=\0"]}}, "Env"),
        ({"config": {"Labels": {"a": 1}}}, "Labels"),
        ({"config": {"Volumes": {"/a\0b": {}}}}, "Volumes"),
        ({"config": {"Healthcheck": {"Interval": "1s"}}}, "Interval"),
        ({"history": [{"empty_layer": 1}]}, r"history\[0\].*empty_layer"),
    ],
)
def test_a_wrong_configuration_is_refused_by_the_name_of_the_field(change, named):
    with pytest.raises(ArchiveError, match=named):
        ImageConfig.from_json({**CONFIG, **change})


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b'{"a": NaN}', rb'{"a": "\uD800"}', rb'{"\udcff": 1}', b"[" * 100_000, b" " * (MAX_DOCUMENT_BYTES + 1)],
)
def test_bytes_that_are_no_json_document_are_an_archive_error(content):
    with pytest.raises(ArchiveError, match="manifest"):
        parse_document(content, "manifest")


def test_a_list_where_an_object_belongs_is_an_archive_error():
    with pytest.raises(ArchiveError, match="not a JSON object"):
        Descriptor.from_json([])


def test_times_are_kept_to_the_nanosecond():
    assert parse_time("1970-01-01T00:00:01.000000001Z") == 1_000_000_001
    assert parse_time("1970-01-01T01:00:00+01:00") == 0
    assert parse_time("1969-12-31T23:59:59.5Z") == -500_000_000
    assert parse_time("yesterday") is None
    assert parse_time("2024-13-01T00:00:00Z") is None
    assert format_time(1_709_208_000_500_000_000) == "2024-02-29T12:00:00.5Z"
    assert format_time(parse_time("2024-02-29T12:00:00.123456789Z")) == "2024-02-29T12:00:00.123456789Z"


def test_times_that_no_clock_shows_become_none_or_the_last():
    assert created_ns_of("0001-01-01T00:00:00Z") == 0  # Go's zero time, as build tools without a clock write it
    assert created_ns_of("9999-12-31T23:59:59Z") == (1 << 63) - 1


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (['CMD ["sh", "-c", "x y"]'], {"cmd": ("sh", "-c", "x y")}),
        (["CMD echo  hello"], {"cmd": ("/bin/sh", "-c", "echo  hello")}),
        (["CMD [ -f x ]"], {"cmd": ("/bin/sh", "-c", "[ -f x ]")}),
        (['SHELL ["/bin/bash", "-c"]', "ENTRYPOINT x"], {"shell": ("/bin/bash", "-c"), "entrypoint": ("/bin/bash", "-c", "x")}),
        (['ENV A=1 B=\'x y\' C="q\\"z"', "env A 2 3"], {"env": ("A=2 3", "B=x y", 'C=q"z')}),
        (["ENV A=1", "ENV B=$A:$B", "WORKDIR /$B"], {"env": ("A=1", "B=1:"), "working_dir": "/1:"}),
        (["EXPOSE 80 53/udp", "EXPOSE 8000-8001"], {"exposed_ports": ("80/tcp", "53/udp", "8000/tcp", "8001/tcp")}),
        (['LABEL a=b "c d"="e f"'], {"labels": {"a": "b", "c d": "e f"}}),
        (["USER 1000:100"], {"user": "1000:100"}),
        (['VOLUME ["/a", "/b c"]', "VOLUME /a /d"], {"volumes": ("/a", "/b c", "/d")}),
        (["WORKDIR /a", "WORKDIR b/../c"], {"working_dir": "/a/c"}),
        (["STOPSIGNAL SIGRTMIN+3"], {"stop_signal": "SIGRTMIN+3"}),
        (["ONBUILD RUN make"], {"on_build": ("RUN make",)}),
    ],
)
def test_a_change_sets_what_its_instruction_says(texts, expected):
    assert apply_changes(Defaults(), texts) == Defaults(**expected)


def test_a_healthcheck_has_options_and_a_command():
    health = apply_change(Defaults(), "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f x").healthcheck
    assert health is not None
    assert (health.test, health.interval_ns, health.retries) == (("CMD-SHELL", "curl -f x"), 90 * 10**9, 3)
    assert apply_change(Defaults(), "HEALTHCHECK NONE").healthcheck.test == ("NONE",)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "CMD",
            "FROM x",
            "RUN x",
            "ENV A",
            "ENV =b",
            "ENV A='b",
            "EXPOSE x",
            "EXPOSE 70000",
            "EXPOSE 9-8",
            "STOPSIGNAL sig term",
        ),
        *(
            "SHELL x",
            "ONBUILD FROM x",
            "HEALTHCHECK x",
            "HEALTHCHECK --interval=x CMD y",
            "HEALTHCHECK --what=1 CMD y",
            "VOLUME []",
        ),
    ],
)
def test_a_wrong_change_is_a_usage_error(text):
    with pytest.raises(UsageError):
        apply_change(Defaults(), text)
