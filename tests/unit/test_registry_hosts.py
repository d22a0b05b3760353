"""Which hosts are reached how: loopback, insecure ones, mirrors, certificates, proxies; and a bad configuration file is said."""

from pathlib import Path

import pytest

from lamina.errors import UsageError
from lamina.model.digest import Digest
from lamina.model.image import Descriptor, Platform
from lamina.model.platforms import choose, fits, offered, parse_platform
from lamina.registry.hosts import Certificates, RegistriesSettings, read_registries
from lamina.registry.http import Http

DIGEST = Digest("sha256:" + "0" * 64)


def settings(text: str, place: Path) -> RegistriesSettings:
    (place / "config.toml").write_text(text)
    return read_registries({"LAMINA_CONFIG": str(place / "config.toml")})


def ways(found: RegistriesSettings, domain: str) -> list[tuple[str, str, bool]]:
    return [(each.scheme, each.host, each.is_verified) for host in found.hosts(domain) for each in host.endpoints]


def test_docker_hub_has_another_host():
    assert ways(RegistriesSettings(), "docker.io") == [("https", "registry-1.docker.io", True)]


def test_a_registry_is_reached_by_verified_tls_alone():
    assert ways(RegistriesSettings(), "r.example:5000") == [("https", "r.example:5000", True)]


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "a.localhost:80"])
def test_loopback_may_be_plain_with_tls_tried_first(host: str):
    assert ways(RegistriesSettings(), host) == [("https", host, False), ("http", host, True)]


@pytest.mark.parametrize("host", ["localhost.example", "127.0.0.1.example", "10.0.0.1", "notlocalhost"])
def test_what_only_looks_like_loopback_may_not(host: str):
    assert ways(RegistriesSettings(), host) == [("https", host, True)]


def test_insecure_ones_are_named_by_host_port_range_or_pattern(tmp_path: Path):
    found = settings('[registries]\ninsecure = ["one.example:5000", "10.0.0.0/8", "*.lab.example", "two.example"]\n', tmp_path)
    for host in ("one.example:5000", "10.1.2.3:80", "10.1.2.3", "x.lab.example:99", "two.example:1", "two.example"):
        assert found.is_insecure(host), host
    for host in ("one.example", "one.example:5001", "11.0.0.1", "lab.example", "two.example.org"):
        assert not found.is_insecure(host), host


def test_a_ca_makes_loopback_strict(tmp_path: Path):
    folder = tmp_path / "certs" / "127.0.0.1:5000"
    folder.mkdir(parents=True)
    for name in ("ca.crt", "other.crt", "me.cert", "me.key", "readme"):
        (folder / name).touch()
    found = settings(f'[registries]\ncerts-dir = "{tmp_path}/certs"\n', tmp_path)
    assert ways(found, "127.0.0.1:5000") == [("https", "127.0.0.1:5000", True)]
    assert found.certificates("127.0.0.1:5000") == Certificates(
        ca=(f"{folder}/ca.crt", f"{folder}/other.crt"), client=((f"{folder}/me.cert", f"{folder}/me.key"),)
    )


def test_mirrors_come_first_and_for_reading_alone(tmp_path: Path):
    found = settings(
        '[registries.mirrors]\n"docker.io" = ["https://m.example/hub/", "http://127.0.0.1:5001", "n.example"]\n', tmp_path
    )
    assert [(host.is_mirror, host.endpoints[0].url) for host in found.hosts("docker.io")] == [
        (True, "https://m.example/hub"),
        (True, "http://127.0.0.1:5001"),
        (True, "https://n.example"),
        (False, "https://registry-1.docker.io"),
    ]
    assert not found.host("docker.io").is_mirror
    assert len(found.hosts("quay.io")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("registries = 1", "is not a table"),
        ("[registries]\nx = 1", "unknown setting 'x'"),
        ("[registries]\ninsecure = 'a'", "not a list of texts"),
        ("[registries]\ninsecure = [1]", "not a list of texts"),
        ("[registries]\ntimeout = 0", "whole number of 1 or more"),
        ("[registries]\nattempts = true", "whole number of 1 or more"),
        ("[registries]\nmirrors = []", "not a table"),
        ("[registries]\ncerts-dir = 1", "not a text"),
        ("[registries.mirrors]\n'a' = ['ftp://x']", "is not a mirror's address"),
        ("[registries.mirrors]\n'a' = ['https://user:pw@x']", "is not a mirror's address"),
        ("pull = 1", "is not a text"),
    ],
)
def test_a_bad_setting_is_said(text: str, message: str, tmp_path: Path):
    with pytest.raises(UsageError, match=message):
        settings(text, tmp_path)


@pytest.mark.parametrize(
    ("environment", "scheme", "host", "expected"),
    [
        ({}, "https", "r.example", ""),
        ({"https_proxy": "http://p:1"}, "https", "r.example", "http://p:1"),
        ({"HTTPS_PROXY": "p:1"}, "https", "r.example", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "http", "r.example", ""),
        ({"HTTP_PROXY": "http://p:1"}, "http", "r.example", ""),
        ({"http_proxy": "http://p:1"}, "http", "r.example", "http://p:1"),
        ({"all_proxy": "http://p:1"}, "https", "r.example", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "https", "127.0.0.1:5000", ""),
        ({"https_proxy": "http://p:1"}, "https", "localhost", ""),
        ({"https_proxy": "http://p:1", "no_proxy": "a, example"}, "https", "r.example:5", ""),
        ({"https_proxy": "http://p:1", "no_proxy": ".example"}, "https", "r.example", ""),
        ({"https_proxy": "http://p:1", "no_proxy": "ample"}, "https", "r.example", "http://p:1"),
        ({"https_proxy": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "https", "10.2.3.4:5", ""),
        ({"https_proxy": "http://p:1", "no_proxy": "*"}, "https", "r.example", ""),
        ({"https_proxy": "http://p:1", "no_proxy": "r.example:5"}, "https", "r.example:5", ""),
    ],
)
def test_proxies_are_found_as_curl_and_go_find_them(environment: dict[str, str], scheme: str, host: str, expected: str):
    assert Http(timeout_s=1, environment=environment)._proxy(scheme, host) == expected


def manifests(*platforms: str) -> list[Descriptor]:
    found = []
    for number, text in enumerate(platforms):
        system, architecture, variant = (*text.split("/"), "")[:3]
        platform = Platform(os=system, architecture=architecture, variant=variant)
        found.append(Descriptor(media_type="x", digest=DIGEST, size_bytes=number, platform=platform))
    return found


@pytest.mark.parametrize(
    ("offers", "wanted", "chosen"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64", "linux/amd64"], "amd64", 0),
        (["linux/386", "linux/s390x"], "linux/amd64", 0),
        (["linux/386", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"], "linux/amd64/v2", 1),
        (["linux/amd64/v3"], "linux/amd64", None),
        (["windows/amd64", "unknown/unknown"], "linux/amd64", None),
        (["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v7", 1),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm", 1),
        (["linux/arm/v7"], "linux/arm/v6", None),
        (["linux/arm/v7", "linux/arm64/v8"], "linux/arm64", 1),
        (["linux/arm/v7"], "aarch64", 0),
        ([], "linux/amd64", None),
    ],
)
def test_the_best_image_for_a_platform_is_chosen(offers: list[str], wanted: str, chosen: int | None):
    found = choose(manifests(*offers), parse_platform(wanted))
    assert (None if found is None else found.size_bytes) == chosen


def test_platforms_fit_and_are_listed():
    assert fits(Platform(os="linux", architecture="arm64", variant="v8"), parse_platform("linux/arm64"))
    assert not fits(Platform(os="linux", architecture="arm64"), parse_platform("linux/amd64"))
    assert offered(manifests("linux/amd64", "unknown/unknown", "linux/arm/v7", "linux/amd64")) == "linux/amd64, linux/arm/v7"


@pytest.mark.parametrize("text", ["", "a/b/c/d", "linux/", "linux/am d64", "/"])
def test_a_bad_platform_is_refused(text: str):
    with pytest.raises(UsageError, match="invalid platform"):
        parse_platform(text)
