"""What to show, 7: one image on three drivers at the same time; what there is doesn't depend on which driver is the default."""

import json

import pytest
from cases import DRIVERS, FOREVER, Lamina, driver_of


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


@pytest.fixture
def three(lamina: Lamina) -> dict[str, str]:
    """A running container of one image on each driver: driver to id."""
    return {driver: lamina.background("--name", f"on-{driver}", "base", *FOREVER, driver=driver) for driver in DRIVERS}


def test_three_containers_of_one_image_run_at_the_same_time_on_three_drivers(lamina: Lamina, three: dict[str, str]):
    for driver, container in three.items():
        assert lamina.show(container, "{{ .GraphDriver.Name }} {{ .State.Status }}") == f"{driver} running"
        lamina("exec", container, "sh", "-c", f"echo {driver} > /who; rm /files/doomed; echo {driver} >> /files/plain")
    assert len({lamina.show(container, "{{ .Image }}") for container in three.values()}) == 1
    for driver, container in three.items():
        assert lamina("exec", container, "cat", "/who", "/files/plain") == f"{driver}\nplain\n{driver}"
        lamina("commit", container, f"from-{driver}")
    for driver in DRIVERS:
        for other in DRIVERS:
            assert lamina("run", "--rm", f"from-{driver}", "cat", "/who", driver=other) == driver


def test_images_and_ps_list_everything_whatever_the_default_driver_is(lamina: Lamina, three: dict[str, str]):
    template = "{{ .Names }}"
    for default in DRIVERS:
        assert sorted(lamina("ps", "--format", template, driver=default).split()) == [f"on-{driver}" for driver in sorted(DRIVERS)]
        assert sorted(lamina("ps", "-q", "--no-trunc", driver=default).split()) == sorted(three.values())
        assert sorted(lamina("images", "--format", "{{ .Repository }}", driver=default).split()) == ["base", "busybox"]
        for container in three.values():
            assert lamina("exec", container, "cat", "/test/inside", driver=default) == "the image's own"


def test_the_default_comes_from_the_flag_the_environment_or_the_file(lamina: Lamina, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(f'storage-driver = "{lamina.driver}"\n', encoding="utf-8")
    other = next(driver for driver in DRIVERS if driver != lamina.driver)
    bare = [word for word in lamina.command("create", "base", "true") if word not in {"--storage-driver", lamina.driver}]
    by_file = run(bare, LAMINA_CONFIG=str(config))
    by_environment = run(bare, LAMINA_STORAGE_DRIVER=other, LAMINA_CONFIG=str(config))
    by_flag = lamina.result("create", "base", "true", env={"LAMINA_STORAGE_DRIVER": other}).stdout.strip()
    drivers = [lamina.show(container, "{{ .Driver }}") for container in (by_file, by_environment, by_flag)]
    assert drivers == [lamina.driver, other, lamina.driver]


def run(command: list[str], **environment: str) -> str:
    """Run a command line with more in its environment."""
    import os
    import subprocess

    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True).stdout.strip()


def test_an_image_in_use_on_any_driver_is_not_removed(lamina: Lamina, three: dict[str, str]):
    assert "base" in lamina.error("rmi", "base", code=1)
    for container in three.values():
        lamina("rm", "-f", container)
    lamina("rmi", "base")
    assert [row["Repository"] for row in map(json.loads, lamina("images", "--format", "json").splitlines())] == ["busybox"]


def test_overlay2_is_accepted_as_a_name_of_overlay(lamina: Lamina):
    container = lamina("create", "base", "true", driver="overlay2" if lamina.driver == "overlay" else lamina.driver)
    assert lamina.show(container, "{{ .GraphDriver.Name }}") == lamina.driver


def test_an_unknown_driver_is_one_line_that_names_those_there_are(lamina: Lamina):
    line = lamina.error("run", "base", "true", code=125, driver="devicemapper")
    assert "'devicemapper'" in line
    assert all(driver in line for driver in DRIVERS)
    assert lamina("ps", "-aq") == ""
