"""What holds for any Dockerfile: at most one clear error, the same twice, lines within the file; what was written comes back."""

import json
import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.expand import ExpandError, expand_document, expand_instruction, expand_word, expand_words
from lamina.dockerfile.instructions import Dockerfile
from lamina.dockerfile.parse import parse, parse_instruction

FUZZER = Path(__file__).parents[2] / "scripts" / "fuzz_dockerfile.py"

WORDS = (
    "FROM",
    "run",
    "COPY",
    "ADD",
    "ENV",
    "ARG",
    "LABEL",
    "CMD",
    "ENTRYPOINT",
    "SHELL",
    "HEALTHCHECK",
    "ONBUILD",
    "EXPOSE",
    "VOLUME",
)
PIECES = st.one_of(
    st.sampled_from(
        (
            *WORDS,
            *" \n\t\\`\"'$#=[]{},:/",
            "<<",
            "<<-",
            "EOF",
            "\nEOF\n",
            "--from=",
            "--mount=",
            "type=",
            "# escape=`\n",
            " AS ",
            "\\\n",
            "${x:-",
        )
    ),
    st.text(max_size=5),
)
TEXTS = st.lists(PIECES, max_size=30).map("".join)
NAMES = st.text("abcXYZ_019", min_size=1, max_size=8).filter(lambda name: not name[0].isdigit())
VALUES = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)


def check(content: bytes) -> Dockerfile | None:
    try:
        dockerfile = parse(content)
    except DockerfileError as error:
        with pytest.raises(DockerfileError) as again:
            parse(content)
        assert again.value.message == error.message
        assert 1 <= error.line <= content.count(b"\n") + 1
        assert error.message.isprintable()
        return None
    assert parse(content) == dockerfile
    lines = [(one.line, one.last_line) for stage in dockerfile.stages for one in (stage.base, *stage.instructions)]
    assert lines == sorted(lines)
    assert all(1 <= first <= last <= content.count(b"\n") + 1 for first, last in lines)
    return dockerfile


@given(st.one_of(TEXTS.map(str.encode), TEXTS.map(lambda text: b"FROM a\n" + text.encode()), st.binary()))
def test_any_bytes_are_a_dockerfile_or_one_error(content: bytes):
    dockerfile = check(content)
    for stage in dockerfile.stages if dockerfile else ():
        for instruction in stage.instructions:
            try:
                expand_instruction(instruction, {"x": "y z", "a": ""}, escape=dockerfile.escape)
            except ExpandError as error:
                assert error.message.isprintable()


@given(TEXTS, st.dictionaries(NAMES, VALUES, max_size=3))
def test_any_text_is_expanded_or_one_error(text: str, variables: dict[str, str]):
    for expand in (expand_word, expand_words, expand_document):
        try:
            assert expand(text, variables) == expand(text, variables)
        except ExpandError as error:
            assert error.message.isprintable()


def quoted(text: str) -> str:
    return '"' + "".join(f"\\{character}" if character in '\\"$' else character for character in text) + '"'


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4))
def test_pairs_come_back_as_they_were_quoted(pairs: dict[str, str]):
    text = "ENV " + " ".join(f"{name}={quoted(value)}" for name, value in pairs.items())
    instruction = parse_instruction(text, file_name="x", line=1)
    assert dict(expand_instruction(instruction, {}).pairs) == pairs


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")), min_size=1, max_size=5))
def test_a_list_comes_back_as_it_was_written(arguments: list[str]):
    instruction = parse_instruction(f"CMD {json.dumps(arguments)}", file_name="x", line=1)
    assert (list(instruction.command.arguments), instruction.command.is_shell) == (arguments, False)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\n\r")).filter(lambda line: line != "END"),
        max_size=5,
    )
)
def test_a_document_comes_back_as_it_was_written(lines: list[str]):
    content = "".join(f"{line}\n" for line in lines)
    instruction = parse_instruction(f"COPY <<'END' /x\n{content}END", file_name="x", line=1)
    assert instruction.heredocs[0].content == content
    assert instruction.last_line == len(lines) + 2


@given(VALUES)
def test_a_quoted_word_is_itself(text: str):
    assert expand_word(quoted(text), {}) == text
    assert expand_words(quoted(text), {}) == ([text] if text else [])


@given(st.text("ab*?\\/}x", max_size=8), st.text("abx\\", max_size=12))
def test_longest_and_shortest_agree_on_whether_anything_matches(pattern: str, value: str):
    for operator in "#%":
        results = []
        for written in (operator, operator * 2):
            try:
                results.append(expand_word(f"${{V{written}$P}}", {"V": value, "P": pattern}))
            except ExpandError:
                results.append("an error")
        if "an error" in results or pattern.startswith(operator):
            continue
        assert len(results[1]) <= len(results[0]) <= len(value)
        assert (value.endswith if operator == "#" else value.startswith)(results[0])


def test_a_short_fuzz_finds_nothing():
    fuzz = runpy.run_path(str(FUZZER))["fuzz"]
    assert fuzz(seed=1, count=800) == []
