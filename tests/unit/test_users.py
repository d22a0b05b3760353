"""Users by a container's own files, which are the image's and so anybody's."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from lamina.runtime.users import MAX_FILE_BYTES, Identity, resolve_user

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# comment:x:9:9::/:/bin/sh
app:x:1000:1001:App:/home/app:/bin/sh
1234:x:5:5:named by digits:/five:/bin/sh
homeless:x:7:7:::/bin/sh
short:x
"""
GROUP = "root:x:0:\nstaff:x:50:app,other\nwheel:x:10:other\naudio:x:29:app\ndigits:x:60:1234\n77:x:61:\nbad:x:x:app\n"


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "passwd").write_text(PASSWD)
    (tmp_path / "group").write_text(GROUP)
    return tmp_path


def found(etc: Path, user: str) -> tuple[int, int, tuple[int, ...], str]:
    identity = resolve_user(user, str(etc))
    return identity.uid, identity.gid, identity.groups, identity.home


def test_users_and_groups_are_names_or_numbers(etc: Path):
    assert found(etc, "") == (0, 0, (0,), "/root")
    assert found(etc, "app") == (1000, 1001, (1001, 50, 29), "/home/app")
    assert found(etc, "1000") == (1000, 1001, (1001, 50, 29), "/home/app")
    assert found(etc, "app:wheel") == (1000, 10, (10,), "/home/app")
    assert found(etc, "app:99") == (1000, 99, (99,), "/home/app")
    assert found(etc, ":staff") == (0, 50, (50,), "/root")
    assert found(etc, "app:") == (1000, 1001, (1001, 50, 29), "/home/app")


def test_a_number_that_nobody_has_needs_no_row(etc: Path):
    assert found(etc, "4242") == (4242, 0, (0,), "/")
    assert found(etc, "4242:4343") == (4242, 4343, (4343,), "/")


def test_a_name_of_digits_is_a_name_first(etc: Path):
    assert found(etc, "1234") == (5, 5, (5, 60), "/five")
    assert found(etc, "app:77")[1] == 61


def test_a_user_without_a_home_is_at_the_root(etc: Path):
    assert found(etc, "homeless") == (7, 7, (7,), "/")


@pytest.mark.parametrize("user", ["nobody", "app:nobody", "-1", "app:-1", "short", "comment", "0x0", "+0", "१"])
def test_who_is_not_there_is_an_error_with_the_name(etc: Path, user: str):
    with pytest.raises(FileNotFoundError) as caught:
        found(etc, user)
    assert caught.value.filename == user.rpartition(":")[2]


@pytest.mark.parametrize("number", ["4294967295", "4294967296", "99999999999999999999999", "9" * 5000])
def test_no_number_means_leave_it_to_the_kernel(etc: Path, number: str):
    """(uid_t) -1 tells setresuid(2) to change nothing: root would stay root."""
    for user in (number, f"app:{number}"):
        with pytest.raises(FileNotFoundError):
            found(etc, user)
    (etc / "passwd").write_text(f"evil:x:{number}:{number}::/:/bin/sh\nbadgroup:x:1:{number}::/:/bin/sh\n")
    for user in ("evil", "badgroup"):
        with pytest.raises(OSError, match="malformed"):
            found(etc, user)
    assert found(etc, "5") == (5, 0, (0,), "/")  # others aren't hurt by the bad line


def test_without_the_files_there_are_numbers_only(tmp_path: Path):
    assert found(tmp_path, "") == (0, 0, (0,), "/")
    assert found(tmp_path, "12:34") == (12, 34, (34,), "/")
    with pytest.raises(FileNotFoundError, match="no such user"):
        found(tmp_path, "root")
    assert found(tmp_path / "passwd", "12") == (12, 0, (0,), "/")


@pytest.mark.timeout(10)
def test_a_fifo_is_refused_and_not_waited_for(etc: Path):
    for name in ("passwd", "group"):
        os.rename(etc / name, etc / "kept")
        os.mkfifo(etc / name)
        with pytest.raises(OSError, match="is not a regular file"):
            found(etc, "app")
        os.rename(etc / "kept", etc / name)


def test_a_directory_is_refused(etc: Path):
    (etc / "group").unlink()
    (etc / "group").mkdir()
    with pytest.raises(OSError, match="is not a regular file"):
        found(etc, "app")


def test_a_symlink_is_followed_and_a_loop_of_them_is_an_error(etc: Path):
    os.rename(etc / "passwd", etc / "real")
    (etc / "passwd").symlink_to("real")
    assert found(etc, "app")[0] == 1000
    (etc / "real").unlink()
    (etc / "real").symlink_to("passwd")
    with pytest.raises(OSError, match="symbolic links"):
        found(etc, "app")


def test_a_magic_link_is_not_followed(etc: Path):
    """With the host's PID namespace /proc/1/root leads to the host's files."""
    (etc / "passwd").rename(etc / "elsewhere")
    (etc / "passwd").symlink_to(f"/proc/self/root{etc}/elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        resolve_user("app", str(etc))


def test_a_huge_file_is_refused_unread(etc: Path):
    os.truncate(etc / "passwd", MAX_FILE_BYTES + 1)
    with pytest.raises(OSError, match="is too large"):
        found(etc, "app")


def test_a_line_ends_at_a_newline_alone(etc: Path):
    """Whoever may write his own comment may not begin another user with it."""
    (etc / "passwd").write_text(
        "me:x:1000:1000:a\x0cnew:x:0:0::/:/bin/sh\x85new:x:0:0::/:/bin/sh:/home:/bin/sh\r\nlast:x:3:3::/l\r\n"
    )
    with pytest.raises(FileNotFoundError):
        found(etc, "new")
    assert found(etc, "last") == (3, 3, (3,), "/l")


@settings(deadline=None)
@given(passwd=some.binary(max_size=200), group=some.binary(max_size=200), user=some.text(max_size=20))
def test_whatever_the_files_hold_the_answer_is_an_identity_or_an_os_error(tmp_path_factory, passwd: bytes, group: bytes, user: str):
    etc = tmp_path_factory.mktemp("etc")
    (etc / "passwd").write_bytes(passwd)
    (etc / "group").write_bytes(group)
    try:
        identity = resolve_user(user, str(etc))
    except OSError:
        return
    assert isinstance(identity, Identity)
    assert all(0 <= number < 2**32 - 1 for number in (identity.uid, identity.gid, *identity.groups))
