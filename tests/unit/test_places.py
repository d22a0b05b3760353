"""How places of images are written: what each form means, and what is said of those that mean nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import LaminaError, UsageError
from lamina.model.reference import Reference
from lamina.registry.places import FORMS, Place, Transport, is_place, parse_place

ID = "a" * 64


def parse(text: str) -> Place:
    return parse_place(text, bare=Transport.STORE)


UNDERSTOOD = {
    "docker://app": Place(transport=Transport.REGISTRY, reference=Reference.parse("app")),
    "docker://localhost:5000/a/b:1": Place(transport=Transport.REGISTRY, reference=Reference.parse("localhost:5000/a/b:1")),
    f"docker://app@sha256:{ID}": Place(transport=Transport.REGISTRY, reference=Reference.parse(f"app@sha256:{ID}")),
    "docker-archive:x.tar": Place(transport=Transport.DOCKER_ARCHIVE, path="x.tar"),
    "docker-archive:/a/x.tar:app": Place(
        transport=Transport.DOCKER_ARCHIVE, path="/a/x.tar", reference=Reference.parse("app:latest")
    ),
    "docker-archive:x.tar:localhost:5000/app:1": Place(
        transport=Transport.DOCKER_ARCHIVE, path="x.tar", reference=Reference.parse("localhost:5000/app:1")
    ),
    "docker-archive:x.tar:@2": Place(transport=Transport.DOCKER_ARCHIVE, path="x.tar", number=2),
    "docker-archive:-": Place(transport=Transport.DOCKER_ARCHIVE, path="-"),
    "oci:layout": Place(transport=Transport.OCI, path="layout"),
    "oci:/srv/layout:1.0": Place(transport=Transport.OCI, path="/srv/layout", tag="1.0"),
    "oci:layout:docker.io/library/app:1": Place(transport=Transport.OCI, path="layout", tag="docker.io/library/app:1"),
    "oci-archive:x.tar:v1": Place(transport=Transport.OCI_ARCHIVE, path="x.tar", tag="v1"),
    "oci-archive:-": Place(transport=Transport.OCI_ARCHIVE, path="-"),
    "dir:a:b": Place(transport=Transport.DIRECTORY, path="a:b"),
    "docker-daemon:app:1": Place(transport=Transport.DOCKER_DAEMON, reference=Reference.parse("app:1")),
    f"docker-daemon:sha256:{ID}": Place(transport=Transport.DOCKER_DAEMON, id=f"sha256:{ID}"),
    f"docker-daemon:{ID}": Place(transport=Transport.DOCKER_DAEMON, id=f"sha256:{ID}"),
    "lamina:app": Place(transport=Transport.STORE, reference=Reference.parse("app")),
    "app:1": Place(transport=Transport.STORE, reference=Reference.parse("app:1")),
    "localhost:5000/app": Place(transport=Transport.STORE, reference=Reference.parse("localhost:5000/app")),
    ID: Place(transport=Transport.STORE, id=f"sha256:{ID}"),
    "abc": Place(transport=Transport.STORE, reference=Reference.parse("abc"), id="abc"),
    "docker-daemon:abc": Place(transport=Transport.DOCKER_DAEMON, reference=Reference.parse("abc"), id="abc"),
    "sha256:abc": Place(transport=Transport.STORE, id="sha256:abc"),
}  # fmt: skip


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_a_place_is_understood(text: str) -> None:
    assert parse(text) == UNDERSTOOD[text]


@pytest.mark.parametrize("text", [text for text in UNDERSTOOD if is_place(text) and not text.endswith(":abc")])
def test_what_describes_a_place_means_it(text: str) -> None:
    assert parse(parse(text).described) == parse(text)


def test_a_name_without_a_transport_is_of_the_one_asked_for() -> None:
    assert parse_place("app", bare=Transport.REGISTRY) == parse("docker://app")


REFUSED = {
    "docker:app": ("two slashes are missing", "docker://NAME"),
    "docker://": ("invalid image name", "a name is"),
    "docker://App": ("lowercase", "did you mean 'app'"),
    "docker-archive:": ("it has no path", "docker-archive:PATH"),
    "docker-archive::app": ("it has no path", "docker-archive:PATH"),
    "docker-archive:x.tar:App": ("lowercase", "app"),
    f"docker-archive:x.tar:app@sha256:{ID}": ("have no digest", "docker-archive:PATH"),
    "docker-archive:x.tar:@one": ("not '@' and a number", "@NUMBER"),
    "oci:": ("it has no path", "oci:PATH"),
    "oci:layout:a b": ("'a b' can't be a tag", "oci:PATH"),
    "oci:-": ("can't be a stream", "oci-archive:-"),
    "dir:-": ("can't be a stream", "oci-archive:-"),
    "dir:": ("it has no path", "dir:PATH"),
    "docker-daemon:": ("it has no name", "docker-daemon:NAME"),
    "docker-daemon://app": ("takes no slashes", "docker-daemon:NAME"),
    "docker-archve:x.tar": ("unknown transport 'docker-archve'", "did you mean 'docker-archive:PATH"),
    "oci_archive:/x.tar": ("invalid image name", ""),
    "oci-archiv:x.tar": ("unknown transport 'oci-archiv'", "did you mean 'oci-archive:PATH"),
    "zip:/x.zip": ("unknown transport 'zip'", "places are docker://"),
    "http://localhost/app": ("unknown transport 'http'", "places are docker://"),
    "containers-storage:app": ("is not supported", "podman save"),
    "ostree:app": ("is not supported", "places are"),
    "": ("invalid image name", ""),
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_means_nothing_is_refused_with_advice(text: str) -> None:
    message, hint = REFUSED[text]
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["dirs:1", "ocis:latest", "registry:2", "dock:1", "oci/app:1", "docker/whalesay:1", "debian:12"])
def test_a_name_that_looks_like_a_transport_is_a_name(name: str) -> None:
    assert parse(name).reference == Reference.parse(name)


def test_every_transport_says_how_it_is_written() -> None:
    assert set(FORMS) == set(Transport)


@given(st.text(max_size=40), st.sampled_from(["", *(f"{one}:" for one in Transport), "docker://"]))
def test_any_text_is_a_place_or_a_usage_error(text: str, start: str) -> None:
    try:
        place = parse(start + text)
    except LaminaError as error:
        assert isinstance(error, UsageError)
    else:
        assert place.described
