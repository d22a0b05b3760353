#!/usr/bin/env python3
"""Look for Dockerfiles that the parser breaks on: mutations of valid ones, each read, expanded and read again.

    scripts/fuzz_dockerfile.py [--seed N] [--seconds N | --count N] [FILE ...]

Files named are mutated beside those built in. What is found is printed and the exit status is 1: an exception other than the errors
that the language has, two readings that differ, a line outside the file, a message of several lines, an input that takes a second.
"""

import argparse
import random
import sys
import time
import traceback
from pathlib import Path

from lamina.dockerfile.errors import DockerfileError, ExpandError
from lamina.dockerfile.expand import expand_instruction
from lamina.dockerfile.ignore import Ignore
from lamina.dockerfile.parse import parse

SEEDS = (
    """# syntax=docker/dockerfile:1
# escape=\\
ARG VERSION=1 BASE
FROM --platform=$BUILDPLATFORM debian:${VERSION:-12} AS build
RUN --mount=type=cache,target=/x,id=a-${V},mode=0755 --mount=type=secret,id=s,required,env=T --network=none make \\
    # comment

    && echo "$HOME" 'x' <<-EOF 3<<'B' > y
\ta $x
\tEOF
b
B
COPY --from=build --chown=1:$G --chmod=u+rwx,go=rX --link --parents --exclude=*.md --exclude=**/x a* [b-c]? /d/
COPY <<a.txt <<-"b" ./c /d/
hello ${NAME:-you} \\$x
a.txt
\tworld
b
ADD --checksum=sha256:00 --keep-git-dir=true --unpack=false https://example.com/a.tar.gz ["x", "y"]
""",
    """FROM scratch
ENV A=1 B="x y" C='$A' D=a\\ b "E"=${A#*.} F=${B%%?} G=${C//a\\/b/c} H=${D/x*y/$z}
ENV old form  of it
LABEL "a b"="c" d=${A:+x}${A+x}${A:?no}${A?}${A-}
ARG X Y= Z="1 2"
WORKDIR /a/$A
USER $U:${G-0}
EXPOSE 80 443/tcp 1000-1010/udp $P 127.0.0.1:1:2
VOLUME ["/a", "/b"]
VOLUME /c $D
STOPSIGNAL SIGRTMIN+3
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
HEALTHCHECK --interval=1m30s --timeout=3s --start-period=1h --start-interval=100ms --retries=3 CMD ["a", "b"]
HEALTHCHECK NONE
CMD ["\\u00e9", "\\"", "\\ud83d\\ude00"]
CMD [ "a" || b ]
ENTRYPOINT exec "$@"
MAINTAINER a
ONBUILD RUN <<E python
x
E
ONBUILD COPY --from=a <<F /x
y
F
from scratch as Two
run a
""",
    "# escape=`\r\nFROM a`\r\n b\r\nRUN a `\r\n  b\r\n",
    "# check=skip=all;error=true\nFROM a AS b\n# check=skip=X\nFROM b\nRUN <<E\n#!/bin/sh\nE\n",
)
_TOKENS = (
    *"\n \t\\`\"'$#={}[](),:;/<>|&*?-+%@!",
    *(
        "<<",
        "<<-",
        "EOF",
        "\nEOF\n",
        "--",
        "--mount=",
        "--from=",
        "type=secret",
        "${",
        "${x:-",
        "${x//",
        "\\\n",
        "\r\n",
        "\0",
        "\ufeff",
        "\u2028",
    ),
    *("FROM ", "RUN ", "COPY ", "ENV ", "ONBUILD ", "HEALTHCHECK ", "[[[[", '["', "# escape=`\n", "é", "😀", "\x85", "9" * 50),
)
_VARIABLES = {"A": "1.2.3", "B": "x y", "x": "", "VERSION": "é*?\\", "V": "${A}", "P": "80 90"}
_SLOW_S = 1.0


def mutate(chance: random.Random, corpus: list[bytes]) -> bytes:
    """Change a file in up to eight places."""
    content = bytearray(chance.choice(corpus))
    for _ in range(chance.randint(1, 8)):
        at = chance.randint(0, len(content))
        end = min(len(content), at + chance.choice((1, 2, 5, 20, 100)))
        match chance.randrange(7):
            case 0:
                del content[at:end]
            case 1 | 2:
                content[at:at] = chance.choice(_TOKENS).encode()
            case 3:
                content[at:at] = content[at:end] * chance.choice((1, 2, 50))
            case 4 if at < len(content):
                content[at] = chance.randrange(256)
            case 5:
                other = chance.choice(corpus)
                start = chance.randint(0, len(other))
                content[at:at] = other[start : start + chance.choice((5, 50, 500))]
            case 6:
                content[at:end] = chance.choice(_TOKENS).encode()
    return bytes(content)


def fault(content: bytes) -> str:
    """Say what is wrong with how an input is read; "" if nothing is."""
    began = time.process_time()
    try:
        _read(content)
    except Exception:  # noqa: BLE001  what is looked for
        return traceback.format_exc()
    took = time.process_time() - began
    return f"took {took:.1f} s" if took > _SLOW_S else ""


def _read(content: bytes) -> None:
    last = content.count(b"\n") + 1
    try:
        dockerfile = parse(content, file_name="f")
    except DockerfileError as error:
        _check(error.message.isprintable() and 1 <= error.line <= last, f"the error {error.message!r}")
    else:
        _check(parse(content, file_name="f") == dockerfile, "two readings differ")
        for stage in dockerfile.stages:
            for instruction in (stage.base, *stage.instructions):
                _check(1 <= instruction.line <= instruction.last_line <= last, f"lines of {instruction}")
                try:
                    expand_instruction(instruction, _VARIABLES, escape=dockerfile.escape)
                except ExpandError as error:
                    _check(error.message.isprintable(), f"the error {error.message!r}")
    text = content[:2000].decode(errors="replace")
    try:
        ignore = Ignore.parse(text)
    except DockerfileError as error:
        _check(error.message.isprintable() and 1 <= error.line <= last, f"the error {error.message!r}")
    else:
        ignore.hides("a/b c/d.md")
        ignore.may_unhide_below("a/b c")


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def fuzz(*, seed: int, count: int = 0, seconds: float = 0.0, files: tuple[bytes, ...] = ()) -> list[tuple[bytes, str]]:
    """Read mutations until the count or the time is up, or ten faults are found. Give the faults."""
    chance = random.Random(seed)
    corpus = [text.encode() for text in SEEDS] + list(files)
    fresh = len(corpus)
    found: list[tuple[bytes, str]] = []
    ends = time.monotonic() + seconds
    done = 0
    while (done < count or time.monotonic() < ends) and len(found) < 10:
        content = mutate(chance, corpus)
        what = fault(content)
        if what:
            found.append((content, what))
        elif len(content) < 4000 and chance.random() < 0.02:  # now and then a mutation is mutated further
            if len(corpus) > 200:
                del corpus[chance.randrange(fresh, len(corpus))]
            corpus.append(content)
        done += 1
    print(f"{done} inputs, seed {seed}: {len(found)} faults")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    if not options.seconds and not options.count:
        options.seconds = 10.0
    files = tuple(path.read_bytes() for path in options.files)
    found = fuzz(seed=options.seed, count=options.count, seconds=options.seconds, files=files)
    for content, what in found:
        print(f"{content!r}\n{what}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
