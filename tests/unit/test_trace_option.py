"""`--trace`: an option with a value that may be left out, and that never takes the next word for it."""

from collections.abc import Sequence

import click
import pytest

from lamina.cli.commands.run import command as run


def parsed(*words: str) -> dict[str, object]:
    return run.make_context("run", list(words)).params


@pytest.mark.parametrize(
    ("words", "form"),
    [
        (["busybox"], None), (["--trace", "busybox"], "text"), (["--trace=json", "busybox"], "json"),
        (["--trace=text", "--rm", "busybox"], "text"), (["busybox", "--trace"], None), (["--name", "--trace", "busybox"], None),
    ],
)  # fmt: skip
def test_the_next_word_is_the_image_whether_or_not_there_is_a_value(words: Sequence[str], form: str | None) -> None:
    found = parsed(*words)
    assert found["trace"] == form
    assert found["image"] == "busybox"


def test_another_value_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="xml"):
        parsed("--trace=xml", "busybox")
