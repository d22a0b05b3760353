"""`WWW-Authenticate` as registries write it: several challenges, quotes, odd spacing; and what is never shown of an account."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.registry.auth import Challenge, parse_challenges
from lamina.registry.client import _origin, _retry_after
from lamina.registry.credentials import Credential


def bearer(**parameters: str) -> Challenge:
    return Challenge(scheme="bearer", parameters=parameters)


HUB = {"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:library/a:pull,push"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull,push"'],
            [bearer(**HUB)],
        ),
        (
            [
                'bearer  realm = "https://auth.docker.io/token" ,  service= registry.docker.io,'
                'scope="repository:library/a:pull,push"'
            ],
            [bearer(**HUB)],
        ),
        (['Basic realm="a \\"quoted\\" one"'], [Challenge(scheme="basic", parameters={"realm": 'a "quoted" one'})]),
        (["Basic"], [Challenge(scheme="basic")]),
        (
            ['Basic realm="x", Bearer realm="y",service=z'],
            [Challenge(scheme="basic", parameters={"realm": "x"}), bearer(realm="y", service="z")],
        ),
        (['Negotiate, Basic realm="x"'], [Challenge(scheme="negotiate"), Challenge(scheme="basic", parameters={"realm": "x"})]),
        (['Bearer realm="y"', "Basic realm=x"], [bearer(realm="y"), Challenge(scheme="basic", parameters={"realm": "x"})]),
        (['Bearer realm="y,z", error="insufficient_scope"'], [bearer(realm="y,z", error="insufficient_scope")]),
        (["", ",,,", '"'], []),
    ],
)
def test_challenges_are_read_as_registries_write_them(headers: list[str], expected: list[Challenge]):
    assert parse_challenges(headers) == expected


@given(st.lists(st.text(max_size=200), max_size=3))
def test_no_header_breaks_the_reader(headers: list[str]):
    parse_challenges(headers)


def test_an_account_shows_no_secret():
    text = repr(Credential(username="anna", password="secret-1", identity_token="secret-2"))
    assert "anna" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.example/x", "https://A.example:443/y", True),
        ("https://a.example/x", "http://a.example/x", False),
        ("https://a.example/x", "https://a.example:8443/x", False),
        ("https://a.example/x", "https://b.example/x", False),
        ("http://[::1]:5000/x", "http://[::1]:5000/y", True),
    ],
)
def test_hosts_are_told_apart_by_scheme_name_and_port(one: str, other: str, same: bool):
    assert (_origin(one) == _origin(other)) is same


def test_how_long_to_wait_is_seconds_or_a_date():
    assert _retry_after("7") == 7
    assert _retry_after(None) == _retry_after("soon") == _retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert _retry_after("Wed, 21 Oct 2115 07:28:00 GMT") > 1e9
