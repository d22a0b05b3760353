"""FROM and COPY --from an image that is in a registry: pulled when it isn't here, and always with --pull."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Context
from cases import Lamina, driver_of
from registries import Registry

PULLS = {"LAMINA_PULL": "missing"}


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "registry")
    yield registry
    registry.stop()


def publish(lamina: Lamina, name: str, context: Context, content: str) -> None:
    """Push an image whose /content says this, and forget it here."""
    context.write({"Dockerfile": f"FROM base\nRUN echo {content} > /content\n"})
    context.build("-t", name)
    lamina("push", name)
    lamina("rmi", name)


def test_what_is_not_here_is_pulled_once_and_with_pull_every_time(lamina: Lamina, tmp_path: Path, registry: Registry):
    name = f"{registry.host}/app:1"
    publisher = Context(lamina, tmp_path / "publisher")
    publish(lamina, name, publisher, "first")
    dockerfile = f"FROM {name} AS one\nRUN cat /content > /seen\nFROM base\n"
    dockerfile += f"COPY --from={name} /content /copied\nCOPY --from=one /seen /seen\n"
    context = Context(lamina, tmp_path / "context", dockerfile)
    assert "no such image" in context.error("-q"), "the tests' own setting is that nothing is pulled"
    told = context.build("-t", "made", env=PULLS)
    assert "[one 1/2] FROM" in told
    assert lamina("run", "--rm", "made", "cat", "/seen", "/copied").splitlines() == ["first", "first"]
    context.write({"Dockerfile": f"FROM {registry.host}/app:latest\n"})
    assert context.error("-q", env=PULLS).startswith("error: Dockerfile:1: FROM: ")
    publish(lamina, f"{registry.host}/app:latest", publisher, "third")
    context.write({"Dockerfile": f"FROM {registry.host}/app\nRUN cat /content > /seen\n"})
    context.build("-t", "made", env=PULLS)
    assert lamina("run", "--rm", "made", "cat", "/seen") == "third"
    other = Lamina(tmp_path / "other", lamina.driver)
    lamina("save", "-o", str(tmp_path / "base.tar"), "base")
    other("load", "-i", str(tmp_path / "base.tar"))
    Context(other, tmp_path / "publisher", "FROM base\nRUN echo fourth > /content\n").build("-t", f"{registry.host}/app:latest")
    other("push", f"{registry.host}/app:latest")
    context.build("-t", "made", env=PULLS)
    assert lamina("run", "--rm", "made", "cat", "/seen") == "third", "what is here is taken"
    context.build("-t", "made", "--pull", env=PULLS)
    assert lamina("run", "--rm", "made", "cat", "/seen") == "fourth"
