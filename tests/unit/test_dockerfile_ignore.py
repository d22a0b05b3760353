"""Which files of a context `.dockerignore` hides, and patterns of files, against a slow matcher that does what the rules say."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.globs import Glob
from lamina.dockerfile.ignore import Ignore, glob_match
from lamina.errors import UsageError


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("a", "a", True), ("a", "b", False), ("a", "a/b", False), ("*", "a", True), ("*", "a/b", False), ("*", "", True),
        ("a*", "ab", True),
        ("*.go", ".go", True), ("a*b*c", "abbc", True), ("a*b*c", "abb", False), ("?", "a", True), ("?", "", False),
        ("?", "/", False),
        ("a/*/c", "a/b/c", True), ("a/*/c", "a/c", False), ("a/?/c", "a/b/c", True), ("*/*", "a/b", True),
        ("[ab]", "b", True), ("[a-c]x", "bx", True), ("[^a-c]", "d", True), ("[^a-c]", "b", False), ("[]", "]", None),
        ("[a", "a", None),
        ("[-a]", "a", None), ("[a-]", "a", None), ("[\\-a]", "-", True), ("[\\]]", "]", True), ("[c-a]", "b", False),
        ("[^c-a]", "b", True),
        ("[!a]", "!", True), ("[*]", "*", True), ("[*]", "x", False), ("[a-c-e]", "d", None), ("]", "]", True),
        ("a[", "a", None), ("\\", "x", None),
        ("\\*", "*", True), ("\\*", "a", False), ("\\d", "d", True), ("a.b", "axb", False), ("(a|b)+{1}$^", "(a|b)+{1}$^", True),
        ("**", "a/b/c", True), ("**", "a", True), ("**/a", "a", True), ("**/a", "x/y/a", True), ("**/a", "xa", False),
        ("**a", "xa", True),
        ("**.go", "x/y.go", True), ("a/**", "a/b/c", True), ("a/**", "a", False), ("a/**", "ab", False), ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True), ("a/**/b", "a/xb", False), ("a**b", "ab", True), ("a**b", "ax/b", True),
        ("a**b", "axb", False),
        ("**/**/a", "a", True), ("**/*.md", "x/y.md", True), ("**/x/**", "a/x/b", True), ("a**", "ab/c", True), ("é?", "éü", True),
        ("a*****b", "axxb", True), ("**/a*", "x/ab", True), ("a\nb", "a\nb", True), ("*", "a\nb", True),
    ],
)  # fmt: skip
def test_a_pattern_matches_what_go_and_moby_match(pattern: str, path: str, matches: bool | None):
    if matches is None:
        with pytest.raises(UsageError, match="invalid pattern"):
            glob_match(pattern, path)
    else:
        assert glob_match(pattern, path) is matches


@pytest.mark.parametrize(
    ("text", "hidden", "seen"),
    [
        ("", "", "a a/b"),
        ("a", "a a/b a/b/c", "b b/a ab"),
        ("/a/", "a a/b", "b/a"),
        ("./a/../b", "b b/c", "a"),
        ("  a\t", "a", ""),
        ("# a\n#b\n \n", "", "a b #b"),
        (" #b", "#b", "b"),
        ("\ufeffa\r\nb\r\n", "a b", "c"),
        ("*", "a a/b .git", ""),
        ("*.md\n!README.md", "x.md", "README.md d/x.md"),
        ("!README.md\n*.md", "README.md", ""),
        ("*.md\n!README*.md\nREADME-secret.md", "x.md README-secret.md", "README.md"),
        ("**/*.pyc", "a.pyc a/b.pyc a/b/c.pyc", "a.py"),
        ("a\n!a/b", "a a/c", "a/b a/b/c"),
        ("a\n!a/b\na/b/c", "a a/b/c a/b/c/d", "a/b a/b/d"),
        ("*\n!src\nsrc/x", "a src/x", "src src/a"),
        ("**\n!**/*.go", "a a/b.py", "a.go a/b.go"),
        ("a/*\n!a/b", "a/c", "a a/b"),
        ("*/b", "a/b a/b/c", "b a x/y/b"),
        ("a/**", "a/b a/b/c", "a"),
        (".", "", "a"),
        ("/", "", "a"),
        ("..\n../a", "", "a"),
        ("! a\na\n! a", "", "a"),
        ("\\!a", "!a", "a"),
        ("[a-c]?", "ab cd/e", "da a"),
        ("a\\*", "a*", "ab"),
        ("a/b\n!a", "a/b", "a a/c"),  # when the walk asked about a, "!a" had nothing to bring back, so it isn't remembered for a/b
        ("!a\na/b\n!a/b/c", "a/b a/b/d", "a a/b/c"),
        ("x\n!x/y\nx", "x x/z", "x/y"),  # nor is the second "x" remembered for what is in x: the first had hidden it already
    ],
)
def test_files_are_hidden_as_docker_hides_them(text: str, hidden: str, seen: str):
    ignore = Ignore.parse(text)
    assert [path for path in hidden.split() if not ignore.hides(path)] == []
    assert [path for path in seen.split() if ignore.hides(path)] == []


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\n!\n", 2), ("[", 1), ("# x\n\n!a[b", 3), ("a\\", 1), ("! ", 1), ("b\n[]a]", 2), ("x\n" + "y" * 70_000, 2)],
)
def test_a_pattern_that_is_none_is_refused_with_its_line(text: str, line: int):
    with pytest.raises(DockerfileError) as caught:
        Ignore.parse(text, file_name="x.dockerignore")
    assert caught.value.line == line
    assert caught.value.message.startswith(f"x.dockerignore:{line}: ")


@pytest.mark.parametrize(
    ("text", "directory", "may"),
    [
        ("a", "a", False), ("a\n!a/b", "a", True), ("a\n!b/c", "a", False), ("*\n!src/x", "src", True),
        ("*\n!src/x", "other", False),
        ("*\n!*/x", "a", True), ("*\n!s*/x", "a", False), ("*\n!**/x", "a/b", True), ("a\n!a", "a", False),
        ("*\n![ab]/x", "c", True),
        ("a\n!a/b/c", "a/b", True), ("a\n!a/b/c", "a/x", False), ("a\n!a\\b/c", "ab", True),
    ],
)  # fmt: skip
def test_a_hidden_directory_is_walked_only_if_something_may_come_back(text: str, directory: str, may: bool):
    assert Ignore.parse(text).may_unhide_below(directory) is may


def test_many_stars_take_no_time():
    pattern = "**/" + "*a" * 30 + "/**/*b"
    assert not glob_match(pattern, "/".join(["a" * 200] * 20))
    assert glob_match(pattern, "x/" + "a" * 60 + "/cb")


# What the rules say, done in the plainest way: a pattern is tried at every place, its tokens one after the other.


def slowly(pattern: str, path: str) -> bool:
    def here(tokens: list[str], rest: str) -> bool:
        if not tokens:
            return not rest
        token, later = tokens[0], tokens[1:]
        if token == "**":
            if not later:
                return True
            return here(later, rest) or any(here(later, rest[at + 1 :]) for at, character in enumerate(rest) if character == "/")
        if token == "*":
            end = rest.find("/") if "/" in rest else len(rest)
            return any(here(later, rest[at:]) for at in range(end + 1))
        if not rest:
            return False
        if token == "?":
            return rest[0] != "/" and here(later, rest[1:])
        if token.startswith("["):
            return ((rest[0] in token[1:-1].removeprefix("^")) != token.startswith("[^")) and here(later, rest[1:])
        return rest[0] == token[-1] and here(later, rest[1:])

    return here(
        [token.rstrip("/") if token.startswith("*") else token for token in re.findall(r"\*\*/?|\[.*?\]|\\.|.", pattern)], path
    )


PARTS = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[^a]", "\\*", "."]), min_size=1, max_size=4).map("".join)
PATTERNS = st.lists(st.one_of(PARTS, st.just("**")), min_size=1, max_size=4).map("/".join).filter(lambda text: "***" not in text)
PATHS = st.lists(st.text("ab.*", min_size=1, max_size=4), min_size=1, max_size=4).map("/".join)


@given(PATTERNS, PATHS)
def test_any_pattern_matches_as_the_plain_matcher_says(pattern: str, path: str):
    glob = Glob.parse(pattern)
    expected = slowly(pattern, path)
    assert glob.matches(path) is expected
    assert glob.matches_by_places(path) is expected


@given(st.lists(st.tuples(st.booleans(), PATTERNS), max_size=5), PATHS)
def test_any_rules_hide_as_a_walk_through_the_directories_does(rules: list[tuple[bool, str]], path: str):
    ignore = Ignore.parse("\n".join(("!" if brings_back else "") + pattern for brings_back, pattern in rules))
    rules = [(brings_back, pattern) for brings_back, pattern in rules if pattern not in {".", ".."}]
    assume(not {".", ".."} & set(path.split("/")))  # no path of a context has them
    known = [False] * len(rules)
    hidden = False
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        here, hidden = "/".join(parts[:depth]), False
        for index, (brings_back, pattern) in enumerate(rules):
            if known[index] or (brings_back == hidden and slowly(clean(pattern), here)):
                known[index], hidden = True, not brings_back
    assert ignore.hides(path) is hidden
    if hidden is False and any(ignore.hides("/".join(parts[:depth])) for depth in range(1, len(parts))):
        top = next("/".join(parts[:depth]) for depth in range(1, len(parts)) if ignore.hides("/".join(parts[:depth])))
        assert ignore.may_unhide_below(top)


def clean(pattern: str) -> str:
    """Of what the patterns above can hold: `..` takes the part before it away, and stays where there is none."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts) or "."


@given(st.text())
def test_any_text_is_rules_or_an_error_with_a_line(text: str):
    try:
        ignore = Ignore.parse(text)
    except DockerfileError as error:
        assert 1 <= error.line <= text.count("\n") + 1
    else:
        assert ignore.hides("a/b") in {True, False}
