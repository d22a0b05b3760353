"""RUN: what its process sees, what its mounts give it, and what is left of either in the image: nothing."""

import os
import subprocess
from pathlib import Path

import pytest
from builds import Context
from cases import Lamina, driver_of, each_driver


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def files_of(lamina: Lamina, image: str) -> list[str]:
    """Every path of the image's last layer."""
    archive = subprocess.run(lamina.command("save", image), capture_output=True, check=True).stdout
    import io
    import json
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (manifest,) = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        layer = tar.extractfile(manifest["Layers"][-1]).read()  # type: ignore[union-attr]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return sorted(tar.getnames())


@each_driver
def test_a_command_runs_in_what_the_stage_says_and_leaves_only_its_own_files(lamina: Lamina, tmp_path: Path):
    context = Context(
        lamina,
        tmp_path / "context",
        """
FROM base
ENV A=env
ARG B=arg
WORKDIR /made/here
USER 1000:10
RUN echo $A $B $PWD $(id -u):$(id -g) $HOSTNAME > /tmp/told; ls /proc/self/fd | wc -l >> /tmp/told; cat >> /tmp/told
USER 0
SHELL ["/bin/sh", "-e", "-c"]
RUN cat /etc/hosts /etc/resolv.conf /etc/hostname > /seen
""",
    )
    context.build("-t", "made")
    # standard input is empty; `ls` itself has one descriptor more than the three
    told = lamina("run", "--rm", "made", "cat", "/tmp/told").splitlines()
    assert told == ["env arg /made/here 1000:10 lamina-build", "4"]
    assert "lamina-build" in lamina("run", "--rm", "made", "cat", "/seen")
    assert files_of(lamina, "made") == ["seen"], "no mount point and no directory that was only mounted in"


@each_driver
def test_a_mount_leaves_nothing_in_the_layer(lamina: Lamina, tmp_path: Path):
    context = Context(
        lamina,
        tmp_path / "context",
        """
FROM base AS other
RUN echo other > /other
FROM base
RUN ln -s ../files /way
RUN --mount=type=bind,target=/new/context \\
    --mount=type=bind,from=other,source=other,target=/new/other \\
    --mount=type=bind,from=other,target=/new/tree,rw \\
    --mount=type=bind,source=folder,target=/new/folder,rw \\
    --mount=type=cache,target=/new/cache \\
    --mount=type=tmpfs,target=/new/tmpfs,size=1m \\
    --mount=type=secret,id=one \\
    --mount=type=secret,id=one,target=/new/secret,mode=0444,uid=7,gid=8 \\
    cat /new/context/file /new/other /new/tree/other /new/folder/in /run/secrets/one /new/secret > /told; \\
    stat -c '%a %u:%g' /run/secrets/one /new/secret >> /told; ! ls /new/context/ignored; \\
    echo x > /new/tree/written; echo x > /new/folder/written; echo x > /new/cache/kept; echo x > /new/tmpfs/gone; \\
    ! touch /new/context/file && ! touch /new/other
RUN --mount=type=cache,target=/new/cache --mount=type=tmpfs,target=/files/here \\
    --mount=type=tmpfs,target=/way/there ls /new/cache > /cached
FROM other
RUN ls -d /written > /nothing; true
""",
        {"file": "file\n", "folder/in": "in\n", ".dockerignore": "ignored\n", "ignored": "no\n", "secret": "hush\n"},
    )
    context.build("-t", "made", "--target", "1", "--secret", f"id=one,src={context.directory}/secret")
    told = lamina("run", "--rm", "made", "cat", "/told", "/cached").splitlines()
    assert told == ["file", "other", "other", "in", "hush", "hush", "400 0:0", "444 7:8", "kept"]
    assert files_of(lamina, "made") == ["cached"]
    lamina("run", "--rm", "made", "ls", "-d", "/new", code=1)
    lamina("run", "--rm", "made", "ls", "-d", "/run/secrets", code=1)
    assert sorted(os.listdir(context.directory / "folder")) == ["in"], "writes never reach the context"
    context.build("-t", "other")
    assert lamina("run", "--rm", "other", "cat", "/nothing") == "", "nor the stage"


@each_driver
def test_a_secret_is_nowhere_in_the_store(lamina: Lamina, tmp_path: Path):
    value = "Zq8#unlikely-to-occur-by-chance"
    context = Context(
        lamina,
        tmp_path / "context",
        """
FROM base
RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=TOKEN \\
    cat /run/secrets/file | md5sum > /sums; echo -n "$TOKEN" | md5sum >> /sums; echo $TOKEN | rev
RUN --mount=type=secret,id=file,required=true cat /run/secrets/file | rev; false
""",
    )
    secret = tmp_path / "secret"
    secret.write_text(value, encoding="utf-8")
    words = ("--secret", f"id=file,src={secret}", "--secret", "id=variable,env=THE_TOKEN")
    done = context.result(*words, env={"THE_TOKEN": value})
    assert done.returncode == 1
    assert done.stderr.count(value[::-1]) == 3, "once as it comes, and of what failed once more at the end"
    assert value not in done.stderr
    found = subprocess.run(["grep", "-r", "-l", "-a", "-F", value, str(lamina.root)], capture_output=True, text=True, check=False)
    assert found.stdout == ""
    for blob in (lamina.root / "image/blobs/sha256").iterdir():
        content = blob.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            import gzip

            content = gzip.decompress(content)
        assert value.encode() not in content
    context.write(
        {"Dockerfile": (context.directory / "Dockerfile").read_text().partition("RUN --mount=type=secret,id=file,req")[0]}
    )
    assert context.made(*words, env={"THE_TOKEN": "another"}) == [], "nor in the key of the step"


def test_a_secret_that_is_not_there_is_one_line(lamina: Lamina, tmp_path: Path):
    context = Context(lamina, tmp_path / "context", "FROM base\nRUN --mount=type=secret,id=tok,required cat /run/secrets/tok\n")
    assert "Dockerfile:2: RUN: there is no secret 'tok'" in context.error()
    assert "the secret 'tok' can't be read from '/nowhere': no such file or directory" in context.error(
        "--secret", "id=tok,src=/nowhere"
    )
    context.write({"Dockerfile": "FROM base\nRUN --mount=type=secret,id=tok ! ls /run/secrets/tok\n"})
    context.build()
    context.write({"Dockerfile": "FROM base\nRUN --mount=type=ssh true\n"})
    context.build()
    context.write({"Dockerfile": "FROM base\nRUN --mount=type=ssh,required ssh-add -l\n"})
    assert "there is no SSH agent 'default' to forward" in context.error()
    done = context.result("--ssh", "default", env={"SSH_AUTH_SOCK": ""})
    assert "there is no SSH agent to forward for '--ssh default'" in done.stderr


def test_an_agents_socket_is_there_for_the_command(lamina: Lamina, tmp_path: Path):
    import socket

    path = tmp_path / "agent"
    context = Context(
        lamina, tmp_path / "context", "FROM base\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK > /said\n"
    )
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(path))
        context.build("-t", "made", "--ssh", f"default={path}")
    assert lamina("run", "--rm", "made", "cat", "/said") == "/run/buildkit/ssh_agent.default"
    assert files_of(lamina, "made") == ["said"]


@pytest.mark.parametrize("sharing", ["shared", "locked", "private"])
def test_caches_are_shared_locked_or_private(lamina: Lamina, tmp_path: Path, sharing: str):
    if sharing == "shared":  # both at once: each waits for the other's file
        deed = "touch /c/{me}; until [ -e /c/{other} ]; do usleep 5000; done"
    elif sharing == "locked":  # never both: each would see the other's mark
        deed = "[ ! -e /c/busy ] && touch /c/busy && usleep 100000 && rm /c/busy"
    else:  # each has its own
        deed = "[ ! -e /c/mark ] && touch /c/mark && usleep 200000; touch /{me}"
    mount = f"--mount=type=cache,id=../../x,target=/c,sharing={sharing}"
    stages = "".join(
        f"FROM base AS {me}\nRUN {mount} {deed.format(me=me, other=other)}\nRUN touch /{me}\n"
        for me, other in (("a", "b"), ("b", "a"))
    )
    context = Context(lamina, tmp_path / "context", f"{stages}FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n")
    context.build()
    folders = list((lamina.root / "build/cache").iterdir())
    assert [len(folder.name) for folder in folders] == [64], "an id is no path"
    assert len([name for name in os.listdir(folders[0]) if name.isdigit()]) == (2 if sharing == "private" else 1)


def test_a_cache_begins_with_what_from_names(lamina: Lamina, tmp_path: Path):
    context = Context(
        lamina,
        tmp_path / "context",
        """
FROM base AS first
RUN mkdir -p /d/sub && echo begun > /d/sub/file
FROM base
RUN --mount=type=cache,from=first,source=/d,target=/c cat /c/sub/file > /told; echo more > /c/more
RUN --mount=type=cache,from=first,source=/d,target=/c ls /c >> /told
RUN --mount=type=cache,target=/owned,mode=0700,uid=5,gid=6 stat -c '%a %u:%g' /owned >> /told
""",
    )
    context.build("-t", "made")
    assert lamina("run", "--rm", "made", "cat", "/told").splitlines() == ["begun", "more", "sub", "700 5:6"]


def test_a_command_that_fails_is_shown_with_its_place_and_what_it_said(lamina: Lamina, tmp_path: Path):
    context = Context(lamina, tmp_path / "context", "FROM base\nRUN echo first\n\nRUN echo said; \\\n  exit 7\nRUN echo never\n")
    done = context.result("-t", "made")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: Dockerfile:4: RUN: the command '/bin/sh -c echo said; exit 7' ended with exit code 7"
    )
    for part in (
        " > [3/4] RUN echo said; exit 7:\nsaid\n",
        "   4 | >>> RUN echo said; \\\n   5 | >>>   exit 7\n   6 |     RUN echo never",
    ):
        assert part in done.stderr
    assert "no such image" in lamina.error("image", "inspect", "made", code=1)
    context.write({"Dockerfile": "FROM base\nRUN echo first\nRUN echo second\n"})
    assert context.made() == ["RUN echo second"], "what was done before stays in the cache"


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ('FROM base\nRUN ["/nowhere"]\n', "Dockerfile:2: RUN: "),
        ("FROM base\nUSER nobody-here\nRUN true\n", "Dockerfile:3: RUN: "),
        ("FROM base\nRUN --security=insecure true\n", "Dockerfile:2: RUN: --security=insecure is not allowed"),
        ("FROM base\nRUN --network=elsewhere true\n", "Dockerfile:2: RUN: "),
        ("FROM base\nRUN --mount=type=bind,source=nowhere,target=/x true\n", "Dockerfile:2: RUN: "),
        ("FROM base\nRUN --mount=type=bind,source=../..,target=/x true\n", "Dockerfile:2: RUN: "),
        ("FROM base\nRUN sh -c 'kill -9 $$'; exit $?\n", "ended with exit code 137 (SIGKILL)"),
    ],
)
def test_what_cannot_be_run_is_one_line_with_its_place(lamina: Lamina, tmp_path: Path, dockerfile: str, message: str):
    assert message in Context(lamina, tmp_path / "context", dockerfile).error()


def test_networks_and_hosts(lamina: Lamina, tmp_path: Path):
    context = Context(
        lamina,
        tmp_path / "context",
        "FROM base\nRUN readlink /proc/self/ns/net > /default\nRUN --network=none readlink /proc/self/ns/net > /none\n"
        "RUN --network=host readlink /proc/self/ns/net > /host; cat /etc/hosts > /hosts\n",
    )
    here = os.readlink("/proc/self/ns/net")
    context.build("-t", "made", "--add-host", "db:10.0.0.1")
    default, none, host = lamina("run", "--rm", "made", "cat", "/default", "/none", "/host").splitlines()
    assert (default, host) == (here, here)
    assert none != here
    assert "10.0.0.1\tdb" in lamina("run", "--rm", "made", "cat", "/hosts")
    context.build("-t", "made", "--network", "none")
    default, none, host = lamina("run", "--rm", "made", "cat", "/default", "/none", "/host").splitlines()
    assert host == here
    assert default != here


def test_heredocs_and_forms(lamina: Lamina, tmp_path: Path):
    context = Context(
        lamina,
        tmp_path / "context",
        """
FROM base
RUN <<EOF
set -e
X=script
echo $X > /a
EOF
RUN <<EOF
#!/bin/cat
a program of its own
EOF
RUN cat <<EOF > /b && cat <<-"END" >> /b
$((1 + 1))
EOF
	$not
END
RUN ["sh", "-c", "echo $0 \\"$1\\" > /c", "zero", "$HOME"]
""",
    )
    told = context.build("-t", "made")
    assert "a program of its own" in told
    assert lamina("run", "--rm", "made", "cat", "/a", "/b", "/c").splitlines() == ["script", "2", "$not", "zero $HOME"]
