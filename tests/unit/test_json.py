"""Documents are read and written as the standard library does it, and refused with its words."""

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from lamina import json as ours

DOCUMENTS: list[str | bytes] = [
    "{}", "[]", "null", "true", "1", "-1.5e3", '"a"', ' {"a": [1, 2.0, {"b": null}], "\\u00e4": "\\ud83d\\ude00"}\n\t', "NaN",
    "-Infinity", "[Infinity]", b'{"a": "\xc3\xa4"}', b"1", b"[]", '"\\ud800"', '"\ud800"', '{"a": 1, "a": 2}', "10" * 30,
    "", " ", "{", "[1,]", "{'a': 1}", "1 2", "[] x", "nul", '"a', "\ufeff{}", b"", b"\xff", b'{"a": "\xff"}',
    "1".encode("utf-16"), "[1]".encode("utf-16-le"), "[1]".encode("utf-32-be"), b"\xef\xbb\xbf{}", "[" * 100_000,
]  # fmt: skip
VALUES_TO_WRITE: list[object] = [
    {"b": [1, 1.5, None, True], "a": {"ä": "\n\ud800"}}, "ä", 7, [], float("nan"), {1: 2}, {(): 1}, object(), {"x": {1}},
    {"b": {"a": [{}, [], (), [[1], {"c": {None: True}}]], "": ("ö", {2.5: "x"})}, "a": [None]}, {"a": [1, {2}]}, [object()],
]  # fmt: skip


@pytest.mark.parametrize("text", DOCUMENTS, ids=lambda text: repr(text)[:40])
def test_a_document_is_read_as_json_reads_it_and_refused_with_its_words(text: str | bytes):
    def outcome(loads: Callable[..., Any]) -> str:
        try:
            return repr(loads(text))
        except (ValueError, RecursionError) as error:
            return f"{type(error)} {error}"

    assert outcome(ours.loads) == outcome(json.loads)
    options: dict[str, Any] = {"parse_int": str, "parse_constant": str.upper}
    assert outcome(lambda text: ours.loads(text, **options)) == outcome(lambda text: json.loads(text, **options))


@pytest.mark.parametrize("value", VALUES_TO_WRITE, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"ensure_ascii": False}, {"separators": (",", ":")}, {"sort_keys": True}, {"default": str}, {"indent": None},
        {"indent": 2}, {"indent": 0}, {"indent": 4, "sort_keys": True}, {"indent": 1, "default": lambda each: [str(type(each))]},
        {"indent": "\t", "ensure_ascii": False, "separators": None}, {"skipkeys": True}, {"allow_nan": False},
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_document_is_written_as_json_writes_it(value: object, options: dict[str, Any]):
    def outcome(dumps: Callable[..., str]) -> str:
        try:
            return dumps(value, **options)
        except (ValueError, TypeError) as error:
            return f"{type(error)} {error}"

    assert outcome(ours.dumps) == outcome(json.dumps)


def test_a_loop_is_refused_as_json_refuses_it():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="Circular reference detected"):
        ours.dumps(loop)


def test_nothing_is_left_to_the_collector_of_garbage():
    """A monitor writes a log's lines for years, and collects none."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            ours.loads(ours.dumps({"log": ["line", {"a": 1}]}, ensure_ascii=False))
            ours.loads(ours.dumps({"log": ["line", {"a": 1}]}, indent=2))
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_what_is_wrong_is_told_where_the_standard_librarys_was_not_imported():
    program = """
import sys
from lamina import json
for text in ("{", '{"a"', "[1,", '"\\\\x"', "", "nul", "1 2"):
    sys.modules.pop("json", None), sys.modules.pop("json.decoder", None)
    try:
        json.loads(text)
    except ValueError as error:
        assert type(error).__name__ == "JSONDecodeError", error
    else:
        raise AssertionError(text)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
