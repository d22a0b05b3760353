"""How `--mount` is read; `-v` and `--tmpfs` are in `test_cli_options` by what they refuse."""

import pytest

from lamina.errors import UsageError
from lamina.model.container import parse_mount


def test_a_volumes_options_may_be_several():
    mount = parse_mount("type=volume,source=data,target=/x,volume-opt=type=tmpfs,volume-opt=o=size=1m")
    assert mount.options == {"type": "tmpfs", "o": "size=1m"}


@pytest.mark.parametrize("kind", ["type=bind,source=/a", "type=tmpfs"])
def test_a_volumes_options_are_for_volumes(kind: str):
    with pytest.raises(UsageError, match="volume-opt is for volumes"):
        parse_mount(f"{kind},target=/x,volume-opt=a=b")
