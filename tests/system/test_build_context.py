"""What `lamina build` takes as its context: directories, archives and standard input; the Dockerfile and what is ignored."""

import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lamina.build.context import BuildContext, open_context
from lamina.dockerfile.errors import DockerfileError
from lamina.errors import ArchiveError, LaminaError, NotFoundError, UsageError


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    top = tmp_path / "ctx"
    (top / "sub").mkdir(parents=True)
    (top / "Dockerfile").write_text("FROM scratch\n")
    (top / "sub/other").write_text("FROM other\n")
    (top / "file").write_text("x")
    return top


def opened(source: str | Path, spool: Path, *, dockerfile: str = "", stdin: bytes = b"") -> BuildContext:
    """Open and close again: for what is told of the Dockerfile."""
    with open_context(str(source), dockerfile=dockerfile, stdin=io.BytesIO(stdin), spool_dir=str(spool)) as context:
        return context


def archive(directory: Path, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        tar.add(directory, ".")
    return out.getvalue()


def test_a_directory_is_taken_as_it_lies(directory: Path, spool: Path) -> None:
    context = opened(directory, spool)
    assert (context.directory, context.dockerfile, context.dockerfile_name) == (str(directory), b"FROM scratch\n", "Dockerfile")
    assert not spool.exists()
    assert not context.hides("Dockerfile")
    (directory / "Dockerfile").rename(directory / "dockerfile")
    assert opened(directory, spool).dockerfile_name == "dockerfile"


def test_f_is_a_path_from_here_inside_or_outside(
    directory: Path, spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside").write_text("FROM outside\n")
    monkeypatch.chdir(tmp_path)
    assert opened("ctx", spool, dockerfile="ctx/sub/other").dockerfile == b"FROM other\n"
    assert opened("ctx", spool, dockerfile="ctx/sub/other").dockerfile_name == "ctx/sub/other"
    assert opened("ctx", spool, dockerfile="outside").dockerfile == b"FROM outside\n"
    assert opened("ctx", spool, dockerfile=str(directory / "sub/other")).dockerfile == b"FROM other\n"
    for missing in ("sub/other", "ctx/nothing", "nowhere/x"):
        with pytest.raises(NotFoundError, match=missing):
            opened("ctx", spool, dockerfile=missing)


def test_a_dockerfile_on_standard_input_and_a_directory(directory: Path, spool: Path) -> None:
    context = opened(directory, spool, dockerfile="-", stdin=b"FROM stdin\n")
    assert (context.directory, context.dockerfile) == (str(directory), b"FROM stdin\n")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_on_standard_input_is_unpacked_and_gone_at_the_end(directory: Path, spool: Path, mode: str) -> None:
    data = archive(directory, mode)
    with open_context("-", stdin=io.BytesIO(data), spool_dir=str(spool)) as context:
        assert context.dockerfile == b"FROM scratch\n"
        assert (Path(context.directory) / "sub/other").read_text() == "FROM other\n"
        assert os.stat(context.directory).st_mode & 0o77 == 0, "what is set-user-ID in it is nobody else's to run"
    assert not os.listdir(spool)
    assert opened("-", spool, dockerfile="sub/other", stdin=data).dockerfile == b"FROM other\n"
    with pytest.raises(NotFoundError, match="'sub/nothing'"):
        opened("-", spool, dockerfile="sub/nothing", stdin=data)
    assert not os.listdir(spool)


def test_an_archive_by_its_path(directory: Path, spool: Path, tmp_path: Path) -> None:
    (tmp_path / "ctx.tgz").write_bytes(archive(directory, "w:gz"))
    with open_context(str(tmp_path / "ctx.tgz"), stdin=io.BytesIO(), spool_dir=str(spool)) as context:
        assert (Path(context.directory) / "file").read_text() == "x"
    assert not os.listdir(spool)


def test_a_dockerfile_alone_has_an_empty_context(spool: Path) -> None:
    with open_context("-", stdin=io.BytesIO(b"FROM scratch\n" * 100), spool_dir=str(spool)) as context:
        assert context.dockerfile == b"FROM scratch\n" * 100
        assert not os.listdir(context.directory)
    assert not os.listdir(spool)


def test_standard_input_may_come_in_small_pieces(directory: Path, spool: Path) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(7 if size is None or size < 0 else min(size, 7))

    with open_context("-", stdin=Slow(archive(directory)), spool_dir=str(spool)) as context:
        assert (Path(context.directory) / "file").read_text() == "x"
    with open_context("-", stdin=Slow(b"FROM scratch\n"), spool_dir=str(spool)) as context:
        assert context.dockerfile == b"FROM scratch\n"


def test_the_dockerfiles_own_ignore_file_comes_first(directory: Path, spool: Path) -> None:
    (directory / ".dockerignore").write_text("file\nDockerfile\n")
    context = opened(directory, spool)
    assert context.hides("file")
    assert context.hides("Dockerfile")  # it is read all the same, and COPY doesn't find it
    assert not context.hides(".dockerignore")
    (directory / "sub/other.dockerignore").write_text("sub\n")
    context = opened(directory, spool, dockerfile=str(directory / "sub/other"))
    assert context.hides("sub/other")
    assert not context.hides("file")
    assert opened(directory, spool, dockerfile="-", stdin=b"FROM x").hides("file")
    assert opened("-", spool, stdin=archive(directory)).hides("file")


def test_a_bad_pattern_is_said_with_its_line(directory: Path, spool: Path) -> None:
    (directory / ".dockerignore").write_text("good\n[\n")
    with pytest.raises(DockerfileError, match=r"^\.dockerignore:2: invalid pattern"):
        opened(directory, spool)


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"])
def test_no_symlink_of_a_context_leads_out_of_it(directory: Path, spool: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("file\n")
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to(tmp_path / "secret")
    try:
        context = opened(directory, spool)
    except NotFoundError:
        assert name == "Dockerfile"
    else:
        assert not context.hides("file")
    (directory / name).unlink()
    (directory / "real").write_text("FROM real\n")
    (directory / name).symlink_to("real")
    assert opened(directory, spool) if name != "Dockerfile" else opened(directory, spool).dockerfile == b"FROM real\n"


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore"])
def test_a_pipe_or_directory_in_a_files_place_is_refused_and_waited_for_by_nobody(directory: Path, spool: Path, name: str) -> None:
    (directory / name).unlink(missing_ok=True)
    os.mkfifo(directory / name)
    with pytest.raises(UsageError, match=f"'{name}' is not a regular file"):
        opened(directory, spool)
    (directory / name).unlink()
    (directory / name).mkdir()
    with pytest.raises(UsageError, match=f"'{name}' is not a regular file"):
        opened(directory, spool)


@pytest.mark.parametrize(
    ("source", "dockerfile", "stdin", "message"),
    [
        ("", "", b"", "the build context is empty"),
        ("/nowhere", "", b"", "'/nowhere' doesn't exist"),
        ("/etc/passwd", "", b"", "neither a directory nor a tar archive"),
        ("/dev/null", "", b"", "neither a directory nor a tar archive"),
        ("-", "-", b"", "can't both come from standard input"),
        ("-", "x", b"FROM scratch\n", "a Dockerfile comes from standard input"),
        ("-", "", b"", "nothing came from standard input"),
        ("-", "", b" \n\n", "nothing came from standard input"),
        ("https://example.invalid/x.git", "", b"", "is a URL"),
    ],
)
def test_what_cannot_be_a_context_is_one_line(spool: Path, source: str, dockerfile: str, stdin: bytes, message: str) -> None:
    with pytest.raises(LaminaError, match=message) as error:
        opened(source, spool, dockerfile=dockerfile, stdin=stdin)
    assert "\n" not in error.value.message


def test_a_directory_without_a_dockerfile_says_so(directory: Path, spool: Path) -> None:
    (directory / "Dockerfile").unlink()
    with pytest.raises(NotFoundError, match="no 'Dockerfile' in the build context"):
        opened(directory, spool)


def test_a_dockerfile_that_never_ends_is_refused(directory: Path, spool: Path) -> None:
    class Endless:
        def read(self, size: int = -1, /) -> bytes:
            return b"RUN true\n" * 100

    with pytest.raises(UsageError, match="too many for what it should be"):
        with open_context("-", stdin=Endless(), spool_dir=str(spool)):
            pass
    with open(directory / "Dockerfile", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match="too many for what it should be"):
        opened(directory, spool)


def _tar(*members: tuple[str, bytes, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, link in (("Dockerfile", tarfile.REGTYPE, ""), *members):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, link, 0o644
            tar.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_tar(("../evil", tarfile.REGTYPE, "")), "'..' in its path"),
        (_tar(("h", tarfile.LNKTYPE, "../../etc/passwd")), "'..' in its path"),
        (_tar()[:700], "truncated|there is no"),
        (gzip.compress(_tar())[:60], "truncated"),
        (gzip.compress(b"FROM scratch\n"), "truncated|no tar header"),
        (b"\x1f\x8bnot gzip" * 100, "corrupt"),
    ],
    ids=["a way up", "a link that leads up", "cut off", "cut off in gzip", "packed text", "no gzip"],
)
def test_a_hostile_or_broken_archive_leaves_nothing(spool: Path, data: bytes, message: str) -> None:
    with pytest.raises(LaminaError, match=message) as error:
        opened("-", spool, stdin=data)
    assert not os.listdir(spool)
    if isinstance(error.value, ArchiveError):
        assert error.value.message.startswith("the build context in standard input: ")


def test_symlinks_in_an_archive_are_followed_inside_it_alone(spool: Path, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    data = _tar(("link", tarfile.SYMTYPE, str(tmp_path / "host")), ("link/f", tarfile.REGTYPE, ""))
    with pytest.raises(LaminaError, match="'the context/link/f' can't be unpacked: no such file"):
        opened("-", spool, stdin=data)
    assert not os.listdir(tmp_path / "host")
    assert not os.listdir(spool)


def test_whoever_writes_the_archive_is_not_cut_off(directory: Path, spool: Path) -> None:
    """tar pads to whole records behind the end mark; a closed pipe would make it fail."""
    with subprocess.Popen(
        ["tar", "--record-size=1M", "-c", "-C", str(directory), "."], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as tar:
        assert tar.stdout is not None
        with open_context("-", stdin=tar.stdout, spool_dir=str(spool)):
            pass
        tar.stdout.close()
        assert tar.wait() == 0
