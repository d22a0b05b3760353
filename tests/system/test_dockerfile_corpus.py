"""The corpus of Dockerfiles: each case built on every driver is what it says, and what is wrong leaves one line and nothing else.

With `SOURCE_DATE_EPOCH` a case's image has one digest, whatever the driver, and again if every step is carried out anew. What other
programs make of the same cases is `test_peer_builds.py`'s.
"""

import io
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import leaks
import pytest
from cases import DRIVERS, Lamina
from corpus import BASE, Case, Image, cases, differences, parse_tree, read_archive, read_layout, read_tree, summary, table
from corpus_builds import LaminaBuilder, given
from outside import TOP

from lamina.errors import LaminaError

ALL = cases()
GOOD = [case for case in ALL if not case.error]
BAD = [case for case in ALL if case.error]
FORMS = (
    "# syntax", "# escape", "# check", "comments", "continuation lines", "CRLF", "BOM", "case of letters",
    "RUN <<EOF", "RUN <<EOF with #!", "RUN COMMAND <<EOF", "COPY <<EOF", "COPY <<'EOF'", "ADD <<EOF", "<<-",
    "${x:-y}", "${x-y}", "${x:+y}", "${x+y}", "${x:?y}", "${x#p}", "${x##p}", "${x%p}", "${x%%p}", "${x/p/r}", "${x//p/r}",
    "quotes", "escapes", "FROM scratch", "FROM stage", "FROM $VARIABLE", "FROM @digest", "FROM --platform", "AS", "unused stages",
    "RUN shell form", "RUN exec form", "RUN --mount=type=cache", "RUN --mount=type=bind", "RUN --mount=type=secret",
    "RUN --mount=type=tmpfs", "RUN --network", "COPY", "COPY globs", "COPY JSON form", "COPY --from=stage", "COPY --from=image",
    "COPY --chown", "COPY --chmod", "COPY --parents", "COPY --exclude", "COPY --link", "ADD archives", "ADD URL", "ADD --checksum",
    "ADD --chown", "ADD --chmod", "ADD --exclude", "ADD --unpack", "ENV", "ARG", "ARG before FROM", "ARG scopes", "predefined ARGs",
    "automatic ARGs", "WORKDIR", "USER", "EXPOSE", "VOLUME", "LABEL", "CMD", "ENTRYPOINT", "SHELL", "STOPSIGNAL", "HEALTHCHECK",
    "ONBUILD", "MAINTAINER", ".dockerignore", "context tar", "-f", "-f -", "Dockerfile on stdin", "--target", "--build-arg",
    "--secret", "--label",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A builder on every driver, with the base image."""

    builders: Mapping[str, LaminaBuilder]
    base: Image
    digest: str
    """The base image's name with its digest."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Each driver has a root directory of its own: nothing comes from what another one did. No build may leave work there."""
    place = tmp_path_factory.mktemp("corpus")
    builders = {}
    for driver in DRIVERS:
        (place / driver).mkdir()
        builders[driver] = LaminaBuilder(place / driver, driver)
        image = builders[driver].engine.images.bootstrap(BASE)
    (listed,) = json.loads((place / DRIVERS[0] / "image" / "index.json").read_bytes())["manifests"]
    base = builders[DRIVERS[0]].read(str(image.id))
    yield Bench(builders=builders, base=base, digest=f"{BASE}@{listed['digest']}")
    for builder in builders.values():
        builder.engine.close()
        assert not leaks.left_on_disk(builder.root)


@pytest.fixture(scope="module")
def quiet_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory with the base image that nobody has open, so that a leaking descriptor is seen."""
    root = tmp_path_factory.mktemp("quiet")
    builder = LaminaBuilder(root, DRIVERS[0])
    builder.engine.images.bootstrap(BASE)
    builder.engine.close()
    return root


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_builds_what_is_written_down_on_every_driver(case: Case, bench: Bench, tmp_path: Path) -> None:
    found = {}
    mounted = leaks.places()
    with given(case, tmp_path / "case", base=bench.digest) as one:
        for driver, builder in bench.builders.items():
            found[driver] = builder.build(one)
            image = builder.read(found[driver])
            words = differences(image.said(None if case.scratch else bench.base), (case.tree, case.config))
            assert not words, f"{driver}: {words}"
        again = DRIVERS[len(case.name) % len(DRIVERS)]
        found[f"{again}, without the cache"] = bench.builders[again].build(one, "--no-cache")
    assert len(set(found.values())) == 1, found
    assert leaks.places() == mounted


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name.removeprefix("bad-"))
def test_says_what_is_wrong_in_one_line_and_leaves_nothing(
    case: Case, quiet_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with leaks.nothing_left(quiet_root), given(case, tmp_path / "case", base="") as one:
        builder = LaminaBuilder(quiet_root, DRIVERS[0])
        images_before = [image.id for image in builder.engine.images.all()]
        with pytest.raises(LaminaError) as raised:
            builder.build(one)
        images_after = [image.id for image in builder.engine.images.all()]
        builder.engine.close()
    said = str(raised.value)
    for value, name in ((str(one.context), "{context}"), (one.url or "{url}", "{url}")):
        said = said.replace(value, name)
    assert said == case.error
    assert "\n" not in said
    assert images_after == images_before
    capsys.readouterr()


def test_covers_every_form_of_the_language() -> None:
    covered = {form for case in GOOD for form in case.covers}
    assert not set(FORMS) - covered
    assert len(GOOD) >= 60


def test_the_tables_of_peers_are_in_the_documentation() -> None:
    page = (TOP / "docs" / "compared-with-docker.md").read_text(encoding="utf-8")
    assert table(GOOD) in page, "python tests/system/corpus.py prints it"
    assert summary(GOOD) in page
    assert f"\n{len(GOOD)} that were written for it" in page


def test_every_output_holds_the_same_image(lamina: Lamina, tmp_path: Path) -> None:
    (case,) = (case for case in ALL if case.name == "from-diamond")
    with given(case, tmp_path / "case", base="") as one:
        lamina("tag", "busybox", BASE)
        outputs = {form: tmp_path / f"{form}.out" for form in ("local", "tar", "oci", "docker")}
        flags = [word for form, place in outputs.items() for word in ("--output", f"type={form},dest={place}")]
        image_id = lamina("build", "--quiet", *flags, str(one.context))
    wanted = Image(tree=parse_tree("\n".join(case.tree)), config={}).said(None)[0]
    assert read_layout(lamina.root / "image", image_id).said(None)[0] == wanted
    with outputs["docker"].open("rb") as content:
        assert read_archive(content).said(None)[0] == wanted
    layout = tmp_path / "layout"
    layout.mkdir()
    subprocess.run(["tar", "-xf", str(outputs["oci"]), "-C", str(layout)], check=True)
    assert read_layout(layout, image_id).said(None)[0] == wanted
    assert Image(tree=read_tree(io.BytesIO(outputs["tar"].read_bytes())), config={}).said(None)[0] == wanted
    packed = subprocess.run(["tar", "-cf", "-", "-C", str(outputs["local"]), "."], check=True, capture_output=True).stdout
    assert Image(tree=read_tree(io.BytesIO(packed)), config={}).said(None)[0] == wanted
