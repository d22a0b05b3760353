"""What the words of a Dockerfile become: variables, quotes, escapes, patterns, and instructions with their variables replaced."""

import pytest

from lamina.dockerfile.expand import ExpandError, expand_document, expand_instruction, expand_word, expand_words
from lamina.dockerfile.instructions import Arg
from lamina.dockerfile.parse import parse_instruction

VARIABLES = {"A": "one", "B": "two words", "E": "", "PATH": "/usr/local/bin", "F": "app.tar.gz", "café": "noir"}


def written(text: str):
    return parse_instruction(text, file_name="Dockerfile", line=1)


def expanded(text: str, **variables: str):
    return expand_instruction(written(text), {**VARIABLES, **variables})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        # names, and what ends them
        ("$A", "one"), ("${A}", "one"), ("x$A.y", "xone.y"), ("$A$B", "onetwo words"), ("$A-x", "one-x"), ("$Ax", ""),
        ("${A}x", "onex"),
        ("$café!", "noir!"), ("$", "$"), ("a$", "a$"), ("$.", "$."), ("$/x", "$/x"), ("$(A)", "$(A)"),
        # unset, positional and special ones are empty
        ("<$NO>", "<>"), ("<${NO}>", "<>"), ("$1", ""), ("$12x", "x"), ("${12}x", "x"), ("$$", ""), ("$$A", "A"),
        ("$@@", "@"), ("$#x", "x"),
        ("$?", ""), ("$!", ""), ("$-", ""), ("$*", ""), ("${@:-none}", "none"), ("$0a", "a"),
        # quotes and escapes
        ("'$A'", "$A"), ('"$A"', "one"), ("\"'$A'\"", "'one'"), ("a'b'c", "abc"), ('a"b c"d', "ab cd"), ("''", ""), (r"\$A", "$A"),
        (r"\\$A", r"\one"), (r"\a", "a"), ("a\\", "a"), (r'"\a"', r"\a"), (r'"\$A"', "$A"), (r'"\""', '"'), (r'"\\"', "\\"),
        (r"'\'", "\\"),
        (r"\'", "'"), (r"a\ b", "a b"), ("a  b", "a  b"), (" a ", " a "),
        # default, alternative, error
        ("${NO:-x}", "x"), ("${NO-x}", "x"), ("${E:-x}", "x"), ("${E-x}", ""), ("${A:-x}", "one"), ("${A-x}", "one"),
        ("${NO:-}", ""),
        ("${A:+x}", "x"), ("${A+x}", "x"), ("${E:+x}", ""), ("${E+x}", "x"), ("${NO:+x}", ""), ("${NO+x}", ""),
        ("${A:?x}", "one"), ("${A?x}", "one"), ("${E?x}", ""),
        ("${NO:-$A}", "one"), ("${NO:-${NOT:-${B}}}", "two words"), ("${NO:-'a}'}", "a}"), ("${NO:-\"$A\"}", "one"),
        (r"${NO:-\}}", "}"),
        ("${NO:-a/b}", "a/b"), ("${NO:-{}x", "{x"), ("${NO:-x}}", "x}"), ("${NO:-a b}", "a b"),
        # beginnings and ends
        ("${F#*.}", "tar.gz"), ("${F##*.}", "gz"), ("${F%.*}", "app.tar"), ("${F%%.*}", "app"), ("${F#x}", "app.tar.gz"),
        ("${F%gz}", "app.tar."),
        ("${F#app?}", "tar.gz"), ("${F#*}", "app.tar.gz"), ("${F##*}", ""), ("${F%*}", "app.tar.gz"), ("${F%%*}", ""),
        ("${F#}", "app.tar.gz"),
        ("${NO#x}", ""), ("${F#$A}", "app.tar.gz"), ("${F#${NO:-app}}", ".tar.gz"), ("${PATH#/usr}", "/local/bin"),
        ("${PATH##*/}", "bin"),
        ("${F#'app'}", ".tar.gz"), ("${F%.??}", "app.tar"),
        # replaced
        ("${F/a/A}", "App.tar.gz"), ("${F//a/A}", "App.tAr.gz"), ("${F/.*/}", "app"), ("${F//./-}", "app-tar-gz"),
        ("${F/x/y}", "app.tar.gz"),
        ("${F//?/x}", "xxxxxxxxxx"), (r"${PATH//\//:}", ":usr:local:bin"), ("${F/$NO/x}", "xapp.tar.gz"), ("${F//p/}", "a.tar.gz"),
        ("${F/*/x}", "x"), ("${NO/a/b}", ""), ("${F//*/x}", "x"), ("${F/a/$A}", "onepp.tar.gz"), ("${A//$NO/-}", "-o-n-e-"),
    ],
)  # fmt: skip
def test_a_word_becomes_what_buildkit_makes_of_it(text: str, result: str):
    assert expand_word(text, VARIABLES) == result


@pytest.mark.parametrize(
    ("text", "value", "result"),
    [
        (r"${X#\*}", "**", "*"), (r"${X#?\?}", "???y", "?y"), (r"${X%%\**}", "xx**", "xx"), ("${X#()[]^.+|}", "()[]^.+|x", "x"),
        (r"${X#\\}", "\\x", "x"), (r"${X%\\}", "x\\", "x"), (r"${X//\*/}", "a*b*", "ab"), ("${X%%b*}", "abab", "a"),
        ("${X%b*}", "abab", "aba"),
        ("${X#*b}", "abab", "ab"), ("${X##*b}", "abab", ""), ("${X##*}", "one\ntwo", "\ntwo"), ("${X//a*b/-}", "a1b a2b", "-"),
    ],
)  # fmt: skip
def test_a_pattern_takes_the_shortest_or_the_longest(text: str, value: str, result: str):
    assert expand_word(text, {"X": value}) == result


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("'a", "quote '"), ('"a', 'quote "'), ('"a\\"', 'quote "'), ("a'b'c'", "quote '"), ("${A", "has no '}'"),
        ("${", "has no '}'"),
        ("${}", "isn't a variable"), ("${{A}}", "isn't a variable"), ("${:-x}", "isn't a variable"), ("${.}", "'.'"),
        ("${A=x}", "'='"),
        ("${A:=x}", "':='"), ("${A:x}", "':x'"), ("${A:#x}", "':#'"), ("${A:/a/b}", "':/'"), ("${A,,}", "','"), ("${A@Q}", "'@'"),
        ("${A:-x", "without its '}'"), ("${A//x}", "without its '/'"), ("${A/x/y", "without its '}'"), ("${A:", "has no '}'"),
        ("${NO?}", "NO: must not be unset"), ("${NO:?}", "NO: must not be unset"), ("${E:?}", "E: must not be empty"),
        ("${NO:?set $A}", "NO: set one"), (r"${A#\x}", "pattern"), ("${NO:-'}", "quote '"),
    ],
)  # fmt: skip
def test_what_is_no_word_is_refused_by_what_is_wrong(text: str, named: str):
    with pytest.raises(ExpandError) as caught:
        expand_word(text, VARIABLES)
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (r"a\b", r"a\b"),
        (r"C:\$A", r"C:\one"),
        ("`$A", "$A"),
        ('"`$A"', "$A"),
        ("``", "`"),
        ("a`", "a"),
        (r'"\"', "\\"),
        ("${NO:-`}}", "}"),
    ],
)
def test_the_escape_character_may_be_a_backtick(text: str, result: str):
    assert expand_word(text, VARIABLES, escape="`") == result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a b", ["a", "b"]), ("$B", ["two", "words"]), ('"$B"', ["two words"]), ("x$B.y", ["xtwo", "words.y"]), ("", []),
        ("$NO", []),
        ("'' a", ["a"]), (r"a\ b", ["a b"]), (" a\t b ", ["a", "b"]), ("${NO:-1 2}", ["1", "2"]), ("8${NO:-0}", ["80"]),
    ],
)  # fmt: skip
def test_words_are_split_after_variables_are_replaced(text: str, result: list[str]):
    assert expand_words(text, VARIABLES) == result


def test_a_document_keeps_its_quotes_and_loses_its_backslashes():
    text = "'$A' \"${B}\" \\$A \\\\ \\n ${NO:-'x'} it's\n"
    assert expand_document(text, VARIABLES) == "'one' \"two words\" $A \\ n 'x' it's\n"


def test_a_mapping_is_told_every_name():
    class Watched(dict):
        def __missing__(self, name):
            missing.append(name)
            raise KeyError(name)

    missing: list[str] = []
    assert expand_word("$A ${B:-$C} '$D'", Watched(A="1")) == "1  $D"
    assert missing == ["C", "B"]


def test_doubling_ends_with_an_error_and_not_with_the_memory():
    value = "x" * 1000
    with pytest.raises(ExpandError, match="longer than"):
        for _ in range(64):
            value = expand_word("$V$V", {"V": value})
    with pytest.raises(ExpandError, match="more than"):
        expand_word("${V//?/$V}", {"V": "y" * 100_000})


def test_deep_nesting_is_refused():
    assert expand_word("${x:-" * 100 + "}" * 100, {}) == ""
    with pytest.raises(ExpandError, match="within each other"):
        expand_word("${x:-" * 10_000 + "}" * 10_000, {})


def test_many_stars_take_no_time():
    assert expand_word("${V#*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b}", {"V": "a" * 20_000}) == "a" * 20_000
    assert expand_word("${V//*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b/}", {"V": "a" * 20_000}) == "a" * 20_000


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("FROM --platform=$A image:${NO:-1} AS x", {"platform": "one", "image": "image:1", "stage_name": "x"}),
        ("ENV x=$A y=$x", {"pairs": (("x", "one"), ("y", ""))}),
        ('ENV $A="$B" q=\'$A\'', {"pairs": (("one", "two words"), ("q", "$A"))}),
        ("ENV name  a 'b  c' $A ", {"pairs": (("name", "a b  c one"),)}),
        ('LABEL "a b"=$A c.$E=d', {"pairs": (("a b", "one"), ("c.", "d"))}),
        ("ARG x=$A $A='$B'", {"pairs": (("x", "one"), ("$A", "$B"))}),
        ("WORKDIR /a/$A/'$A'", {"path": "/a/one/$A"}),
        ("USER $A:${NO:-g}", {"user": "one:g"}),
        ("EXPOSE $P 80 53/UDP 8001-8002/tcp", {"ports": ("10/tcp", "20/tcp", "53/udp", "80/tcp", "8001/tcp", "8002/tcp")}),
        ("EXPOSE 127.0.0.1:8080:80 [::1]:1:2/udp", {"ports": ("2/udp", "80/tcp")}),
        ('VOLUME ["/$A", "/b c"]', {"paths": ("/one", "/b c")}),
        ("STOPSIGNAL SIG$S", {"signal": "SIGTERM"}), ("STOPSIGNAL rtmax-2", {"signal": "rtmax-2"}),
        ("STOPSIGNAL 64", {"signal": "64"}),
        ("COPY --from=b --chown=$A --chmod=$M --exclude=$A $A 'b' /$A/", {
            "sources": ("one", "b"), "destination": "/one/", "chown": "one", "chmod": "0644", "exclude": ("$A",), "from_": "b"}),
        ("ADD --checksum=$A $A /", {"checksum": "one", "sources": ("one",)}),
    ],
)  # fmt: skip
def test_an_instruction_is_expanded_where_docker_expands_it(text: str, fields: dict):
    instruction = expanded(text, P="10 20", S="TERM", M="0644")
    assert {name: getattr(instruction, name) for name in fields} == fields


@pytest.mark.parametrize(
    "text",
    [
        "RUN echo $A",
        'CMD ["$A"]',
        "ENTRYPOINT $A",
        'SHELL ["$A"]',
        "HEALTHCHECK CMD $A",
        "ONBUILD RUN $A",
        "MAINTAINER $A",
        "RUN <<EOF\n$A\nEOF",
    ],
)
def test_what_a_shell_reads_later_stays_as_it_is(text: str):
    assert expanded(text) == written(text)


def test_a_heredoc_of_copy_is_expanded_unless_its_name_is_quoted():
    instruction = expanded("COPY <<a <<'b' /\n$A '$B' \\$A\na\n$A\nb")
    assert [one.content for one in instruction.heredocs] == ["one 'two words' $A\n", "$A\n"]


def test_a_mount_has_its_values_once_it_is_expanded():
    text = "RUN --mount=type=$T,target=/$A,id=a-$A,mode=$M,sharing=locked,uid=0 x"
    assert written(text).mounts[0].mode is None
    (mount,) = expanded(text, T="cache", M="0700").mounts
    assert (mount.type, mount.target, mount.id, mount.mode, mount.sharing, mount.read_only) == (
        "cache",
        "/one",
        "a-one",
        0o700,
        "locked",
        False,
    )
    with pytest.raises(ExpandError, match="mode 'x'"):
        expanded(text, T="cache", M="x")
    with pytest.raises(ExpandError, match="tmpfs mount can't have"):
        expanded(text, T="tmpfs", M="0700")


def test_args_of_one_line_are_taken_one_after_the_other():
    instruction = written("ARG a=1 b=$a c")
    assert isinstance(instruction, Arg)
    assert [one.pairs for one in instruction.apart()] == [(("a", "1"),), (("b", "$a"),), (("c", None),)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("FROM $NO", "'$NO' is empty"), ("FROM --platform=$NO x", "'$NO' is empty"), ("ENV $NO=1", "'$NO' is empty"),
        ("VOLUME $NO", "'$NO' is empty"),
        ("EXPOSE $A", "'one' is no port"), ("EXPOSE 70000", "'70000'"), ("EXPOSE 9-8", "'9-8'"), ("EXPOSE 1/x", "'1/x'"),
        ("STOPSIGNAL sig term", "'sig term'"), ("STOPSIGNAL SIGFOO", "'SIGFOO'"), ("STOPSIGNAL 0", "'0'"),
        ("STOPSIGNAL 65", "'65'"), ("STOPSIGNAL RTMIN+16", "'RTMIN+16'"), ("STOPSIGNAL SIG", "'SIG'"),
        ("WORKDIR 'x", "quote '"), ("COPY ${a /", "'}'"), ("COPY <<a /\n${\na", r"'\n'"),
    ],
)  # fmt: skip
def test_what_turns_out_wrong_is_refused_by_its_value(text: str, named: str):
    with pytest.raises(ExpandError) as caught:
        expanded(text)
    assert named in caught.value.message
