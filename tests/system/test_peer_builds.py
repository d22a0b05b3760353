"""The corpus and the tutorial as Docker and buildah build them: the same image, or the case says what differs and why.

Collected with LAMINA_PEERS=1 and DOCKER_HOST alone (`conftest.py`). LAMINA_MORE_DOCKERS and LAMINA_MORE_BUILDAHS name other
releases; one that the corpus wasn't compared with is left out. LAMINA_PEER_DIR is a directory that all of them see.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tutorial
from corpus import BASE, PEERS, Case, cases, differences
from corpus_builds import Buildah, Docker, Given, LaminaBuilder, PeerError, given, peers

GOOD = [case for case in cases() if not case.error]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that daemons see too: not on the disk that the tests have mounted for themselves."""
    path = Path(tempfile.mkdtemp(dir=os.environ.get("LAMINA_PEER_DIR", "/var/tmp")))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def lamina_builder(place: Path) -> Iterator[LaminaBuilder]:
    (place / "root").mkdir()
    builder = LaminaBuilder(place / "root", "overlay")
    builder.engine.images.bootstrap(BASE)
    yield builder
    builder.engine.close()


@pytest.fixture(scope="module")
def compared(place: Path, lamina_builder: LaminaBuilder) -> Iterator[list[Docker | Buildah]]:
    """Whom there is to compare with, each with the base image."""
    archive = place / "base.tar"
    with archive.open("wb") as out:
        lamina_builder.engine.images.save([BASE], out)
    found = [peer for peer in peers(place / "stores") if peer.name in PEERS]
    assert found
    for peer in found:
        peer.load(archive)
    yield found
    for peer in found:
        peer.forget()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_peers_make_the_same_image_or_the_case_says_why_not(
    case: Case, compared: list[Docker | Buildah], lamina_builder: LaminaBuilder, place: Path
) -> None:
    base = lamina_builder.read(str(lamina_builder.engine.images.get(BASE).id))
    found = {}
    for number, peer in enumerate(compared):
        with given(case, place / f"{case.name}-{number}", base=BASE) as one:
            try:
                said = peer.build(one, place / f"{case.name}-{number}").said(None if case.scratch else base)
                words = differences(said, (case.tree, case.config))
            except PeerError as error:
                words = [f"can’t: {error}"]
        reason = case.peers.get(peer.name, "")
        is_as_said = bool(words) == bool(reason) and (not words or words[0].startswith("can’t: ") == reason.startswith("can’t: "))
        if not is_as_said:
            found[peer.name] = words or f"no longer differs: {reason}"
        shutil.rmtree(place / f"{case.name}-{number}")
    assert not found


def test_docker_and_lamina_build_the_tutorial_alike(
    compared: list[Docker | Buildah], lamina_builder: LaminaBuilder, place: Path
) -> None:
    index = place / "index"
    tutorial.make_index(index)
    case = Case(name="tutorial", about="The tutorial everybody has done")
    context = place / "tutorial"
    shutil.copytree(tutorial.CONTEXT, context)
    one = Given(case=case, context=context, words=())
    with tutorial.served(index) as url:
        archive = tutorial.python_image(place / "python.tar", index_url=f"{url}/simple/")
        with archive.open("rb") as content:
            lamina_builder.engine.images.load(content)
        base = lamina_builder.read(str(lamina_builder.engine.images.get(tutorial.NAME).id))
        mine = lamina_builder.read(lamina_builder.build(one)).said(base)
        for peer in [each for each in compared if isinstance(each, Docker)]:
            peer.load(archive)
            try:
                theirs = peer.build(one, place).said(base)
            finally:
                subprocess.run(["docker", "-H", peer.host, "rmi", "--force", tutorial.NAME], capture_output=True, check=True)
            assert not differences(theirs, mine), peer.name
    assert any("flask/app.py" in line for line in mine[0])
    assert mine[1]["Cmd"] == ["python", "app.py"]
