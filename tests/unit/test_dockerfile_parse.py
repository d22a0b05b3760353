"""What a Dockerfile says: lines, directives, every instruction's forms, heredocs, and what is refused, with its place."""

import pytest

from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.instructions import Command, Heredoc, Instruction, Onbuild
from lamina.dockerfile.parse import parse, parse_instruction

FROM = "FROM scratch\n"


def read(text: str) -> list[Instruction]:
    """The instructions of one stage."""
    (stage,) = parse((FROM + text).encode()).stages
    return list(stage.instructions)


def one(text: str) -> Instruction:
    (instruction,) = read(text)
    return instruction


def refused(content: bytes | str) -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        parse(content.encode() if isinstance(content, str) else content)
    assert "\n" not in caught.value.message
    return caught.value


def shell(text: str) -> Command:
    return Command(arguments=(text,), is_shell=True)


def exec_form(*arguments: str) -> Command:
    return Command(arguments=arguments, is_shell=False)


# Lines


@pytest.mark.parametrize(
    ("text", "command", "lines"),
    [
        ("RUN a", "a", (2, 2)),
        ("  run\ta b  ", "a b", (2, 2)),
        ("RUN a \\\n  b", "a   b", (2, 3)),
        ("RUN a\\\nb\\\nc", "abc", (2, 4)),
        ("RUN a \\  \n b", "a  b", (2, 3)),
        ("RUN a \\\n# a comment\n   # another \\\n b", "a  b", (2, 5)),
        ("RUN a \\\n\n  \t\n b", "a  b", (2, 5)),
        ("\n# \\\n\nRUN a", "a", (5, 5)),
        ("RUN a \\", "a", (2, 2)),
        ("RUN a \\\n\\\nb", "a b", (2, 4)),
        ("RUN a \\\\\n", "a \\\\", (2, 2)),
        ("RUN \\\n a", "a", (2, 3)),
        ("RUN a # no comment", "a # no comment", (2, 2)),
        ("RUN a \\\n b # no comment \\\n c", "a  b # no comment  c", (2, 4)),
        ("RUN a `\n", "a `", (2, 2)),
    ],
)
def test_a_line_goes_on_where_it_says_so(text: str, command: str, lines: tuple[int, int]):
    instruction = one(text)
    assert instruction.command == shell(command)
    assert (instruction.line, instruction.last_line) == lines


def test_line_ends_may_be_those_of_windows_and_a_byte_order_mark_is_none_of_the_text():
    dockerfile = parse(b"\xef\xbb\xbf# escape=`\r\nFROM a\r\nRUN b `\r\n  c\r\nCOPY <<E /\r\nx\r\nE\r\n")
    run, copy = dockerfile.stages[0].instructions
    assert dockerfile.escape == "`"
    assert run.command == shell("b   c")
    assert copy.heredocs[0].content == "x\r\n"


@pytest.mark.parametrize(
    ("text", "directives"),
    [
        ("# escape=`", {"escape": "`"}),
        ("#escape = `", {"escape": "`"}),
        ("# Syntax=docker/dockerfile:1 \n# ESCAPE=\\", {"syntax": "docker/dockerfile:1", "escape": "\\"}),
        ("# check=skip=all", {"check": "skip=all"}),
        ("# a comment\n# escape=`", {}),
        ("\n# escape=`", {}),
        ("# unknown=x\n# escape=`", {}),
        ("# escape", {}),
        ("#!/bin/sh\n# escape=`", {}),
    ],
)
def test_directives_stand_at_the_top_alone(text: str, directives: dict[str, str]):
    dockerfile = parse(f"{text}\nFROM a\n".encode())
    assert dockerfile.directives == directives
    assert dockerfile.escape == directives.get("escape", "\\")


def test_a_directive_below_an_instruction_is_a_comment():
    assert parse(b"FROM a\n# escape=`\nRUN a \\\nb").stages[0].instructions[0].command == shell("a b")


# FROM, stages and what stands before


def test_stages_have_numbers_names_and_a_platform():
    dockerfile = parse(
        b"ARG A=1 B\nARG C\nFROM --platform=$BUILDPLATFORM a:$A AS Build_1.x\nRUN x\nfrom build_1.x\nFROM c@sha256:0 as d-e\n"
    )
    assert [(stage.index, stage.name, stage.base.image, stage.base.platform) for stage in dockerfile.stages] == [
        (0, "build_1.x", "a:$A", "$BUILDPLATFORM"),
        (1, "1", "build_1.x", ""),
        (2, "d-e", "c@sha256:0", ""),
    ]
    assert [pair for argument in dockerfile.arguments for pair in argument.pairs] == [("A", "1"), ("B", None), ("C", None)]
    assert [len(stage.instructions) for stage in dockerfile.stages] == [1, 0, 0]


# The instructions


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('RUN ["a", "b c"]', {"command": exec_form("a", "b c"), "network": "default", "security": "sandbox", "mounts": ()}),
        ("RUN [ -f x ]", {"command": shell("[ -f x ]")}),
        ("RUN ['a']", {"command": shell("['a']")}),
        ('RUN ["a"', {"command": shell('["a"')}),
        ('RUN ["a"] && b', {"command": shell('["a"] && b')}),
        (r'RUN ["\u00e9\ud83d\ude00", "\ud800"]', {"command": exec_form("é😀", "\ufffd")}),
        ("RUN --network=none --security=insecure a", {"command": shell("a"), "network": "none", "security": "insecure"}),
        ("RUN -- --x", {"command": shell("--x")}),
        ("RUN -x", {"command": shell("-x")}),
        ("CMD a  b", {"command": shell("a  b")}),
        ("CMD []", {"command": exec_form()}),
        ("ENTRYPOINT []", {"command": exec_form()}),
        ('ENTRYPOINT [ "a" , "" ]', {"command": exec_form("a", "")}),
        ('SHELL ["bash", "-c"]', {"command": exec_form("bash", "-c")}),
        ("ENV A=1 B=", {"pairs": (("A", "1"), ("B", ""))}),
        ('ENV A="x y" B=\'z w\' C=a\\ b', {"pairs": (("A", '"x y"'), ("B", "'z w'"), ("C", "a\\ b"))}),
        ("ENV A b=c  d", {"pairs": (("A", "b=c  d"),)}),
        ("ENV A='a\\' B=c", {"pairs": (("A", "'a\\'"), ("B", "c"))}),
        ('ENV A="a\\" b" C=d', {"pairs": (("A", '"a\\" b"'), ("C", "d"))}),
        ("ENV A=b=c", {"pairs": (("A", "b=c"),)}),
        ('LABEL "a b"=c', {"pairs": (('"a b"', "c"),)}),
        ("LABEL a b c", {"pairs": (("a", "b c"),)}),
        ("ARG A", {"pairs": (("A", None),)}),
        ("ARG A= B='x y' C", {"pairs": (("A", ""), ("B", "'x y'"), ("C", None))}),
        ("COPY a b c", {"sources": ("a", "b"), "destination": "c", "is_add": False, "link": False, "unpack": None}),
        ('COPY ["a b", "c d"]', {"sources": ("a b",), "destination": "c d"}),
        ("COPY [a b]", {"sources": ("[a",), "destination": "b]"}),
        ("COPY 'a b'", {"sources": ("'a",), "destination": "b'"}),
        ("COPY --from=x --chown=1:2 --chmod=u+x --link --parents --exclude=a --exclude=*.b s d", {
            "from_": "x", "chown": "1:2", "chmod": "u+x", "link": True, "parents": True, "exclude": ("a", "*.b")}),
        ("COPY --link=FALSE --parents=true s d", {"link": False, "parents": True}),
        ('COPY --chown="a b" --from=\'x\' s d', {"chown": "a b", "from_": "x"}),
        ("ADD --keep-git-dir --checksum=sha256:0 --unpack=false https://x/y z", {
            "is_add": True, "keep_git_dir": True, "checksum": "sha256:0", "unpack": False, "sources": ("https://x/y",),
            "name": "ADD"}),
        ("ADD --unpack a b", {"unpack": True}),
        ("WORKDIR /a b", {"path": "/a b"}),
        ("USER a:b", {"user": "a:b"}),
        ("EXPOSE 80  443/tcp\t1-2/udp", {"ports": ("80", "443/tcp", "1-2/udp")}),
        ("VOLUME /a /b", {"paths": ("/a", "/b")}),
        ('VOLUME ["/a b"]', {"paths": ("/a b",)}),
        ("STOPSIGNAL SIGRTMIN+3", {"signal": "SIGRTMIN+3"}),
        ("MAINTAINER a <b>", {"author": "a <b>"}),
        ("HEALTHCHECK NONE", {"command": None}),
        ("HEALTHCHECK cmd a b", {"command": shell("a b"), "interval_ns": 0, "retries": 0}),
        ('HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=0s --start-interval=1ms --retries=3 CMD ["a"]', {
            "command": exec_form("a"), "interval_ns": 90 * 10**9, "timeout_ns": 1500 * 10**6, "start_period_ns": 0,
            "start_interval_ns": 10**6, "retries": 3}),
        ("ONBUILD  RUN a  b", {"trigger": "RUN a  b"}),
    ],
)  # fmt: skip
def test_an_instruction_says_what_its_form_means(text: str, fields: dict):
    instruction = one(text)
    assert {name: getattr(instruction, name) for name in fields} == fields
    assert instruction.text == text
    assert instruction.name == text.split(maxsplit=1)[0].upper()


@pytest.mark.parametrize(
    ("mount", "fields"),
    [
        ("target=/a", {"type": "bind", "target": "/a", "read_only": True, "from_": ""}),
        ("type=bind,src=b,dst=/a,from=x,rw", {"source": "b", "target": "/a", "from_": "x", "read_only": False}),
        ("type=bind,target=/a,ro=false", {"read_only": False}),
        ("type=bind,target=/a,readwrite=false", {"read_only": True}),
        ("type=cache,target=/a", {"type": "cache", "read_only": False, "sharing": "shared", "id": ""}),
        ("type=cache,id=i,target=/a,ro,sharing=private,mode=0700,uid=1,gid=2", {
            "id": "i", "read_only": True, "sharing": "private", "mode": 0o700, "uid": 1, "gid": 2}),
        ("TYPE=TMPFS,target=/a,size=64m", {"type": "tmpfs", "size_bytes": 64 << 20, "read_only": False}),
        ("type=tmpfs,destination=/a,size=1.5GiB", {"size_bytes": 3 << 29}),
        ("type=secret,id=s", {"id": "s", "required": False, "target": "", "read_only": True, "env": ""}),
        ("required,type=secret,id=s,env=TOKEN,target=/t", {"required": True, "env": "TOKEN", "target": "/t"}),
        ("type=secret,target=/a/name,env=", {"env": "name"}),
        ("type=ssh,id=default,required=true,mode=0600", {"type": "ssh", "required": True, "mode": 0o600}),
        ('\'type=cache,"target=/a,b"\'', {"target": "/a,b"}),
        ("type=$T,sharing=$S,from=x", {"from_": "x", "text": "type=$T,sharing=$S,from=x"}),
    ],
)  # fmt: skip
def test_a_mount_has_its_options(mount: str, fields: dict):
    (found,) = one(f"RUN --mount={mount} a").mounts
    assert {name: getattr(found, name) for name in fields} == fields


# Heredocs


@pytest.mark.parametrize(
    ("text", "heredocs", "shell_text"),
    [
        ("RUN <<E\na\n$b\nE", [Heredoc(name="E", content="a\n$b\n", expands=True)], "a\n$b\n"),
        ("RUN <<'E'\n#!/bin/x\nE", [Heredoc(name="E", content="#!/bin/x\n", expands=False)], "#!/bin/x\n"),
        ('RUN <<-"E"\n\ta\n\t\tb\n \tc\n\tE', [Heredoc(name="E", content="a\nb\n \tc\n", expands=False)], "a\nb\n \tc\n"),
        ("RUN 3<<E\nE", [Heredoc(name="E", content="", expands=True, descriptor=3)], ""),
        ("RUN << E\na\nE", [Heredoc(name="E", content="a\n", expands=True)], "a\n"),
        ("RUN <<E'F'\na\nEF", [Heredoc(name="EF", content="a\n", expands=False)], "a\n"),
        ("RUN <<E\\'F\na\nE'F", [Heredoc(name="E'F", content="a\n", expands=True)], "a\n"),
        ("RUN <<$E\na\n$E", [Heredoc(name="$E", content="a\n", expands=True)], "a\n"),
        ("RUN python3 <<E - x\na\nE", [Heredoc(name="E", content="a\n", expands=True)], "python3 <<E - x\na\nE"),
        (
            "RUN cat <<A 4<<'B' > /x\n1\nA\nA\nB",
            [Heredoc(name="A", content="1\n", expands=True), Heredoc(name="B", content="A\n", expands=False, descriptor=4)],
            "cat <<A 4<<'B' > /x\n1\nA\nA\nB",
        ),
        ("RUN --mount=type=tmpfs,target=/t <<E\na\nE", [Heredoc(name="E", content="a\n", expands=True)], "a\n"),
        (
            "RUN a \\\n <<E\n# kept\n\nx \\\nE",
            [Heredoc(name="E", content="# kept\n\nx \\\n", expands=True)],
            "a  <<E\n# kept\n\nx \\\nE",
        ),
        ('RUN echo "<<E"', [], 'echo "<<E"'),
        ("RUN echo '<<E' \"it's\"", [], "echo '<<E' \"it's\""),
        ("RUN echo $((1<<2))", [], "echo $((1<<2))"),
        ("RUN cat <<<E", [], "cat <<<E"),
        ("RUN a << ", [], "a <<"),
    ],
)
def test_a_heredoc_belongs_to_run(text: str, heredocs: list[Heredoc], shell_text: str):
    run, after = read(f"{text}\nUSER x")
    assert list(run.heredocs) == heredocs
    assert run.shell_text == shell_text
    assert run.last_line == 1 + text.count("\n") + 1
    assert after.line == run.last_line + 1


def test_a_list_has_no_heredocs():
    assert one('RUN ["cat", "<<E"]').heredocs == ()


def test_heredocs_are_sources_of_copy_and_add():
    copy, add = read("COPY --chmod=755 a <<x.sh <<-'y' b /d/\n1\nx.sh\n\t2\ny\nADD <<z /z\n\nz")
    assert (copy.sources, copy.destination) == (("a", "b"), "/d/")
    assert [(one.name, one.content, one.expands) for one in copy.heredocs] == [("x.sh", "1\n", True), ("y", "2\n", False)]
    assert (add.sources, add.heredocs[0].content, add.last_line) == ((), "\n", 9)


def test_a_trigger_is_kept_with_its_heredocs_and_reads_as_it_did():
    onbuild = one("OnBuild COPY --link <<-a <<b /x\n\t1\n\ta\n2\nb")
    assert isinstance(onbuild, Onbuild)
    assert onbuild.trigger == "COPY --link <<-a <<b /x\n1\na\n2\nb"
    again = parse_instruction(onbuild.trigger, file_name="x", line=9)
    assert (again.heredocs, again.link, again.line, again.last_line) == (onbuild.instruction.heredocs, True, 9, 13)


# What is refused


@pytest.mark.parametrize(
    ("content", "line", "instruction", "named"),
    [
        (b"", 1, "", "no instructions"), (b"\n# a\n\n", 3, "", "no instructions"), (b"ARG A\n", 1, "", "no FROM"),
        (b"\nRUN a\nFROM b", 2, "RUN", "before the first FROM"), (b"FROM a\nRUN b\0", 2, "", "NUL"),
        (b"FROM a\n\n\xff", 3, "", "0xff"),
        (b"\xef\xbb\xbf\xff", 1, "", "0xff"), (b"FROM a\nRUN " + b"x" * 70_000, 2, "", "65535"),
        (b"#" * (1 << 22) + b"##", 1, "", "bytes"),
        (b"# escape=x\nFROM a", 1, "", "'x'"), (b"# escape=`\n# escape=\\\nFROM a", 2, "", "twice"),
        (b"# syntax=a\n# syntax=a\n", 2, "", "twice"),
        (b"# check=skip\nFROM a", 1, "", "'skip'"), (b"# syntax=x\n# check=error=maybe\nFROM a", 2, "", "'error=maybe'"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_refused_with_its_line(content: bytes, line: int, instruction: str, named: str):
    error = refused(content)
    assert (error.line, error.instruction) == (line, instruction)
    assert named in error.message
    assert error.message.startswith(f"Dockerfile:{line}: ")


@pytest.mark.parametrize(
    ("text", "named", "hint"),
    [
        ("FROM a b", "'a b'", "AS NAME"), ("FROM a AS", "'a AS'", ""), ("FROM a as 1x", "'1x'", "letter"),
        ("FROM a as b c", "'a as b c'", ""),
        ("FROM a as b/c", "'b/c'", ""), ("FROM --platfrom=x a", "'--platfrom'", "--platform"),
        *((word, "nothing follows", word) for word in (
            "FROM", "RUN", "CMD", "ENTRYPOINT", "COPY", "ADD", "ENV", "LABEL", "ARG", "USER", "WORKDIR", "EXPOSE", "VOLUME",
            "STOPSIGNAL", "MAINTAINER", "HEALTHCHECK", "SHELL", "ONBUILD")),
        ("RUN --mount=type=cache,target=/a", "nothing follows", ""), ("RUN []", "empty list", ""),
        ('RUN ["a", 1]', "nothing but texts", ""),
        ('CMD ["a", ["b"]]', "nothing but texts", ""), ("RUN --network=lan a", "'lan'", "none"),
        ("RUN --security=x a", "'x'", "sandbox"),
        ("RUN --mont=x a", "'--mont'", "--mount"), ("RUN --network a", "no value", "--network=VALUE"),
        ("RUN --network=none --network=host a", "twice", ""), ("USER --x a", "'--x'", "no flags"), ("ARG --x a", "'--x'", ""),
        ("COPY a", "a source and a destination", "DESTINATION"), ('COPY ["a"]', "a source and a destination", ""),
        ("COPY --link=maybe a b", "neither true nor false", "--link"), ("COPY --link= a b", "neither true nor false", ""),
        ("COPY --form=x a b", "'--form'", "--from"), ("COPY --from=$x a b", "'$x'", "FROM $VARIABLE"),
        ("COPY --checksum=x a b", "'--checksum'", ""),
        ("ADD --from=x a b", "'--from'", ""), ("COPY a <<E\nE", "destination", ""), ("COPY << E /\nE", "isn't one word", "<<NAME"),
        ("COPY <<'a b' /\na b", "isn't one word", ""), ("COPY <<a/b /\na/b", "'a/b'", "destination"),
        ("COPY <<.. /\n..", "'..'", ""),
        ("COPY <<E /\nx", "'E' doesn't end", "nothing but E"), ("RUN <<E\n E\n", "'E' doesn't end", ""),
        ("ENV A", "'A' has no value", "A=VALUE"), ("ENV A=1 B", "'B'", "quotes"), ("ENV =1", "no name", ""),
        ("LABEL a=1 =2", "no name", ""),
        ("ARG =1", "no name", ""), ("VOLUME []", "no path", ""), ('VOLUME [""]', "empty path", ""),
        ("SHELL bash -c", "JSON list", "SHELL ["),
        ("SHELL []", "JSON list", ""), ("HEALTHCHECK a", "'a'", "NONE"), ("HEALTHCHECK NONE a", "'a'", ""),
        ("HEALTHCHECK CMD", "no command", ""),
        ("HEALTHCHECK CMD []", "no command", ""), ("HEALTHCHECK --interval=x CMD a", "'x'", "1m30s"),
        ("HEALTHCHECK --interval=1ns CMD a", "'1ns'", "1ms"), ("HEALTHCHECK --timeout=-1s CMD a", "'-1s'", "1ms"),
        ("HEALTHCHECK --retries=-1 CMD a", "'-1'", ""), ("HEALTHCHECK --retries=x CMD a", "'x'", ""),
        ("HEALTHCHECK --what=1 CMD a", "'--what'", ""),
        ("ONBUILD ONBUILD RUN a", "ONBUILD can't be a trigger", ""), ("ONBUILD from a", "FROM can't be a trigger", ""),
        ("ONBUILD COPY a", "a source", ""), ("ONBUILD --x RUN a", "'--x'", ""),
        ("RUN --mount=type=bnd,target=/a b", "'bnd'", "bind"), ("RUN --mount=typ=bind b", "'typ'", "type"),
        ("RUN --mount=target b", "'target'", ""),
        ("RUN --mount=from=$x,target=/a b", "'$x'", "FROM $VARIABLE"),
        ("RUN --mount=type=cache,target=/a,sharing=x b", "'x'", "locked"),
        ("RUN --mount=target=/a,mode=0700 b", "bind mount can't have 'mode'", ""),
        ("RUN --mount=target=/a,required b", "'required'", "secret"),
        ("RUN --mount=target=/a,sharing=shared b", "'sharing'", "cache"), ("RUN --mount=target=/a,size=1m b", "'size'", "tmpfs"),
        ("RUN --mount=type=secret b", "needs 'id'", "id=NAME"), ("RUN --mount=type=secret,id=a,source=b b", "both", ""),
        ("RUN --mount=type=secret,id=a,from=x b", "'from'", ""), ("RUN --mount=type=cache,target=/a,mode=9 b", "'9'", ""),
        ("RUN --mount=type=cache,target=/a,uid=-1 b", "'-1'", ""), ("RUN --mount=type=tmpfs,target=/a,size=big b", "'big'", "64m"),
        ("RUN --mount=target=/a,ro=maybe b", "'maybe'", ""), ("RUN --mount='a\"b' c", "quote", ""),
        ("RUN --mount='\"a' c", "quote", ""),
        ("RUN --mount='\"a\"b' c", "behind a quote", ""),
    ],
)  # fmt: skip
def test_what_can_not_be_meant_is_refused_with_its_line_and_instruction(text: str, named: str, hint: str):
    error = refused(f"FROM scratch\nUSER x\n\n{text}\n")
    assert (error.line, error.instruction) == (4, text.split(maxsplit=1)[0])
    assert named in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("word", "near"),
    [("RUNN", "RUN"), ("RNU", "RUN"), ("copy.", "COPY"), ("FORM", "FROM"), ("ENTRYPIONT", "ENTRYPOINT"), ("onbuild2", "ONBUILD")],
)
def test_a_misspelt_instruction_is_told_the_nearest(word: str, near: str):
    error = refused(f"FROM a\n{word} x")
    assert f"'{word}'" in error.message
    assert error.hint == f"did you mean {near}?"


@pytest.mark.parametrize("text", ["apt-get install x", "&& b", "\\", "\\\n\n"])
def test_what_is_no_instruction_is_told_how_lines_go_on(text: str):
    error = refused(f"FROM a\n{text}")
    assert error.line == 2
    assert "a line that belongs to the one before" in error.hint


def test_a_line_break_within_a_value_does_not_break_the_message():
    assert "\\x1b[31m" in refused("FROM a\n\x1b[31m x").message


def test_one_instruction_is_read_alone_with_the_lines_it_is_told():
    assert parse_instruction(" cmd x", file_name="--change", line=1).command == shell("x")
    for text, line, named in (
        ("", 7, "no instruction"),
        ("# a", 7, "no instruction"),
        ("USER a\n\nUSER b", 9, "'USER b'"),
        ("USER", 7, "USER: "),
    ):
        with pytest.raises(DockerfileError, match=named) as caught:
            parse_instruction(text, file_name="f", line=7)
        assert caught.value.line == line
    with pytest.raises(DockerfileError, match="UTF-8"):
        parse_instruction("USER \udc80", file_name="f", line=1)


def test_a_huge_file_is_read_in_time():
    parts = 30_000
    dockerfile = parse(b"FROM a\nRUN x" + b" && \\\n  y" * parts + b"\n" + b"ENV A=b\n" * parts)
    assert dockerfile.stages[0].instructions[0].last_line == parts + 2
    assert len(dockerfile.stages[0].instructions) == parts + 1


def test_a_deep_list_is_a_text_for_the_shell():
    assert one("RUN " + "[" * 50_000).command.is_shell
