"""Digests and chain ids: what is accepted as one, and how a chain is named."""

import json

import pytest

from lamina.errors import UsageError
from lamina.model.digest import Digest, chain_id, chain_ids

A = Digest("sha256:" + "a" * 64)
B = Digest("sha256:" + "b" * 64)


def test_a_digest_is_a_text_with_parts():
    assert A == "sha256:" + "a" * 64
    assert (A.algorithm, A.hex, A.short) == ("sha256", "a" * 64, "a" * 12)
    assert json.dumps(A) == f'"{A}"'


def test_sha512_is_accepted_with_its_own_length():
    assert Digest("sha512:" + "0" * 128).algorithm == "sha512"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 64,
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha256:" + "a" * 64 + "\n",
        " sha256:" + "a" * 64,
        "sha256:../../" + "a" * 58,
        "sha256:" + "١" * 64,
    ],
)
def test_anything_else_is_no_digest(text):
    with pytest.raises(UsageError, match="not a digest"):
        Digest(text)


def test_the_digest_of_bytes_is_their_sha256():
    assert Digest.of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_first_layers_chain_id_is_its_diff_id():
    assert chain_id(None, A) == A


def test_a_chain_id_hashes_the_parent_and_the_layer():
    # sha256 of "sha256:aa… sha256:bb…", worked out with sha256sum(1)
    assert chain_id(A, B) == "sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c"
    assert chain_ids([A, B, A]) == (A, chain_id(A, B), chain_id(chain_id(A, B), A))
