"""What `driver doctor` reads in texts that not every kernel shows."""

import pytest

from lamina.usecases.doctor import counts_projects


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("rw,attr2,inode64,logbufs=8,prjquota", True), ("rw,pquota", True), ("rw,noquota", False), ("rw,usrquota,grpquota", False),
        ("", False),
    ],
)  # fmt: skip
def test_project_quotas_are_told_by_the_file_systems_mount_options(options: str, expected: bool) -> None:
    assert counts_projects(options) is expected
