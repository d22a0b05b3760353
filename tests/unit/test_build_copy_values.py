"""What COPY's flags and words mean: modes, owners, how sources are written. No tree is looked at but for names of owners."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.build.filemode import FileMode
from lamina.build.ownership import check_chown, resolve_owner
from lamina.build.sources import check_climb, plain, shown_url, split_wildcards
from lamina.errors import NotFoundError, UsageError


@pytest.mark.parametrize(
    ("text", "mode", "is_directory", "wanted"),
    [
        ("755", 0o600, False, 0o755),
        ("0755", 0o600, False, 0o755),
        ("7777", 0, False, 0o7777),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o700, False, 0o755),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("+x", 0o644, False, 0o755),
        ("a-w", 0o666, False, 0o444),
        ("g=u", 0o640, False, 0o660),
        ("o=", 0o777, False, 0o770),
        ("u+s,g+s", 0o755, False, 0o6755),
        ("u-s", 0o4755, False, 0o755),
        ("+t", 0o777, True, 0o1777),
        ("ug+rw-x", 0o711, False, 0o661),
        ("=r", 0o777, False, 0o444),
    ],
)
def test_a_mode_is_applied_as_chmod_does(text: str, mode: int, is_directory: bool, wanted: int) -> None:
    assert FileMode.parse(text).apply(mode, is_directory=is_directory) == wanted


@pytest.mark.parametrize("text", ["8", "778", "17777", "rwx", "u=q", "u", "u=rw;g=r", "a=b", "u+rw,", "0x1ff", "-1"])
def test_what_is_no_mode_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid mode"):
        FileMode.parse(text)


_CLAUSES = st.lists(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["u", "g", "o", "a", "ug", "go", "uo"]),
        st.sampled_from("+-="),
        st.sampled_from(["r", "w", "x", "X", "rw", "rwx", "rX"]),
    ),
    min_size=1,
    max_size=1,
)


@given(clauses=_CLAUSES, mode=st.integers(0, 0o777))
def test_modes_are_those_of_the_program_chmod(tmp_path_factory: pytest.TempPathFactory, clauses: list[str], mode: int) -> None:
    path = tmp_path_factory.getbasetemp() / "mode"
    path.touch()
    path.chmod(mode)
    subprocess.run(["chmod", ",".join(clauses), str(path)], check=True)
    assert FileMode.parse(",".join(clauses)).apply(mode, is_directory=False) == path.stat().st_mode & 0o7777


@pytest.fixture
def base(tmp_path: Path) -> str:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:\napp:x:1001:1002::/:/bin/sh\n8:x:1:1::/:\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nstaff:x:77:\n")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("5", (5, 5)),
        ("5:6", (5, 6)),
        ("app", (1001, 1002)),
        ("app:staff", (1001, 77)),
        ("5:staff", (5, 77)),
        ("app:9", (1001, 9)),
        ("8", (8, 8)),
    ],
)
def test_an_owner_is_looked_up_in_the_image_and_a_number_is_one(base: str, text: str, owner: tuple[int, int]) -> None:
    assert resolve_owner(text, base) == owner


@pytest.mark.parametrize(
    ("text", "what"), [("nobody9", "user 'nobody9'"), ("app:none", "group 'none'"), ("5:none", "group 'none'")]
)
def test_an_owner_that_the_image_does_not_know_is_an_error(base: str, text: str, what: str) -> None:
    with pytest.raises(NotFoundError, match=what):
        resolve_owner(text, base)


def test_a_name_needs_a_tree_and_a_number_does_not() -> None:
    assert resolve_owner("5:6", None) == (5, 6)
    with pytest.raises(NotFoundError, match="--link"):
        resolve_owner("app", None)


def test_owners_are_never_read_from_outside_the_image(tmp_path: Path) -> None:
    (tmp_path / "host").write_text("app:x:666:666::/:\n")
    (tmp_path / "image/etc").mkdir(parents=True)
    (tmp_path / "image/etc/passwd").symlink_to(tmp_path / "host")
    with pytest.raises(NotFoundError):
        resolve_owner("app", str(tmp_path / "image"))
    (tmp_path / "image/etc/passwd").unlink()
    os.mkfifo(tmp_path / "image/etc/passwd")
    with pytest.raises(OSError, match="not a regular file"):
        resolve_owner("app", str(tmp_path / "image"))


@pytest.mark.parametrize("text", ["", ":", "a:", ":b", "a:b:c", "a\nb", "../x", "4294967295", "99999999999"])
def test_what_is_no_owner_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        check_chown(text)


@pytest.mark.parametrize("source", ["..", "../x", "a/../../x", "/..", "./../x"])
def test_a_source_that_climbs_out_is_refused(source: str) -> None:
    with pytest.raises(UsageError, match="leads out of the build context"):
        check_climb(source, "the build context")


@pytest.mark.parametrize("source", ["a/../x", "a/b/../..", ".", "..x", "a/.../b"])
def test_a_source_may_go_up_as_far_as_it_went_down(source: str) -> None:
    check_climb(source, "the build context")


@pytest.mark.parametrize(("text", "wanted"), [("/a", "a"), ("a/", "a"), (".", ""), ("/", ""), ("a//b/./c", "a/b/c"), ("//a", "a")])
def test_a_source_is_a_path_from_the_top(text: str, wanted: str) -> None:
    assert plain(text) == wanted


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("a/b", ("a/b", "")), ("a/*.c", ("a", "*.c")), ("*/b", ("", "*/b")), (r"a\*b", (r"a\*b", "")), ("a[[]0]", ("", "a[[]0]"))],
)
def test_a_pattern_begins_with_its_first_wildcard(path: str, wanted: tuple[str, str]) -> None:
    assert split_wildcards(path) == wanted


def test_a_url_is_shown_without_its_secrets() -> None:
    shown = shown_url("https://user:secret@host.example/a?token=secret")
    assert shown == "https://host.example/a"
