"""Names of images: Docker's grammar, what short forms mean, and that both forms lead to each other."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import UsageError
from lamina.model.reference import Reference, _is_path_part, _is_tag

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("typed", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app:x"),
        ("host.example/a/b-c/d__e:V1.0_x", "host.example/a/b-c/d__e:V1.0_x", "host.example/a/b-c/d__e:V1.0_x"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("HOST/app", "HOST/app:latest", "HOST/app:latest"),
        ("a---b", "docker.io/library/a---b:latest", "a---b:latest"),
        (f"busybox@sha256:{HEX}", f"docker.io/library/busybox@sha256:{HEX}", f"busybox@sha256:{HEX}"),
        (f"busybox:1@sha256:{HEX}", f"docker.io/library/busybox:1@sha256:{HEX}", f"busybox:1@sha256:{HEX}"),
    ],
)
def test_a_name_has_a_full_and_a_short_form(typed, canonical, familiar):
    reference = Reference.parse(typed)
    assert (reference.canonical, reference.familiar) == (canonical, familiar)


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", "empty"),
        ("Busybox", "must be lowercase"),
        ("user/App", "must be lowercase"),
        (HEX, "image id"),
        ("a//b", "empty"),
        ("/a", "empty"),
        ("a/", "empty"),
        ("a:", "not a tag"),
        ("a:b:c", "can't be part|host name"),
        ("a:" + "x" * 129, "not a tag"),
        ("a:.b", "not a tag"),
        ("a:é", "not a tag"),
        ("a..b", "can't be part"),
        ("a.-b", "can't be part"),
        ("-a", "can't be part"),
        ("a___b", "can't be part"),
        ("a b", "can't be part"),
        ("a\n", "can't be part"),
        ("a@sha256:12", "not a digest"),
        ("a@b@c", "not a digest"),
        ("host.example:port/a", "host name"),
        ("-host.example/a", "host name"),
        ("x" * 256, "255"),
        ("../a", "host name"),
    ],
)
def test_what_is_no_name_is_refused_with_the_reason(typed, why):
    with pytest.raises(UsageError, match=why) as caught:
        Reference.parse(typed)
    assert caught.value.hint


def test_an_upper_case_name_is_answered_with_the_lower_case_one():
    with pytest.raises(UsageError) as caught:
        Reference.parse("Busybox:V1")
    assert "busybox" in caught.value.hint


def test_a_name_without_a_tag_may_stay_without():
    assert Reference.parse("busybox", default_tag=None).canonical == "docker.io/library/busybox"
    assert Reference.parse("busybox").with_tag("2").familiar == "busybox:2"


@given(
    st.from_regex(
        r"([a-z]{1,4}(\.[a-z]{1,3})?(:[0-9]{1,4})?/)?[a-z0-9]{1,4}([._-][a-z0-9]{1,3}){0,2}(:[A-Za-z0-9_]{1,5})?", fullmatch=True
    )
)
def test_both_forms_of_a_name_mean_the_same(text):
    reference = Reference.parse(text)
    assert Reference.parse(reference.familiar) == reference
    assert Reference.parse(reference.canonical) == reference


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_a_usage_error(text):
    try:
        reference = Reference.parse(text)
    except UsageError:
        return
    assert Reference.parse(reference.canonical) == reference


@pytest.mark.parametrize("length", range(7))
def test_a_part_of_a_path_and_a_tag_have_docker_s_grammar(length: int):
    for characters in itertools.product("a0._-A ", repeat=length):
        text = "".join(characters)
        assert _is_path_part(text) == bool(re.fullmatch(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", text)), text
        assert _is_tag(text) == bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", text)), text


@pytest.mark.parametrize(("text", "is_tag"), [("a" * 128, True), ("a" * 129, False), ("é", False), ("a\n", False), ("a/b", False)])
def test_a_tag_is_short_and_of_ascii(text: str, is_tag: bool):
    assert _is_tag(text) == is_tag
    assert not _is_path_part(text + "é")
