"""`--security-opt apparmor=NAME`: a profile that is loaded holds a container and all that enters it. `make vm-test`."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from cases import FOREVER, Lamina, driver_of

pytestmark = pytest.mark.vm
NAME = "lamina-test"
PROFILE = f"""
profile {NAME} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  network,
  signal,
  deny /tmp/denied w,
}}
"""
WRITE = "cat /proc/self/attr/current; echo x >/tmp/allowed && (echo x >/tmp/denied) 2>&1; cat /tmp/denied 2>&1; rm /tmp/allowed"
HELD = [
    f"{NAME} (enforce)",
    "sh: can't create /tmp/denied: Permission denied",
    "cat: can't open '/tmp/denied': No such file or directory",
]
FREE = ["unconfined", "x"]


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


@pytest.fixture
def profile() -> Iterator[tuple[str, str]]:
    """The option for a profile of this test's own, which is loaded until its end."""
    subprocess.run(["apparmor_parser", "--replace", "--skip-cache"], input=PROFILE, text=True, check=True)
    yield ("--security-opt", f"apparmor={NAME}")
    subprocess.run(["apparmor_parser", "--remove"], input=PROFILE, text=True, check=True)


def test_a_profile_holds_a_container_and_every_command_in_it(lamina: Lamina, profile: tuple[str, str]):
    for words in ((), ("--init",), ("--security-opt", "no-new-privileges"), ("--privileged",)):
        assert lamina("run", "--rm", *profile, *words, "base", "sh", "-c", WRITE).splitlines() == HELD
    container = lamina.background(*profile, "base", *FOREVER)
    for user in ("0", "1000"):
        assert lamina("exec", "-u", user, container, "sh", "-c", WRITE).splitlines() == HELD
    assert lamina("exec", "--privileged", container, "sh", "-c", WRITE).splitlines() == FREE
    shown = lamina.document(container)
    assert (shown["AppArmorProfile"], shown["HostConfig"]["SecurityOpt"]) == (NAME, [f"apparmor={NAME}"])


def test_without_a_profile_a_container_is_unconfined_and_that_is_told(lamina: Lamina):
    for words in ((), ("--security-opt", "apparmor=unconfined")):
        container = lamina("create", *words, "base", "sh", "-c", WRITE)
        assert lamina("start", "-a", container).splitlines() == FREE
        assert lamina.show(container, "{{.AppArmorProfile}}") == "unconfined"
    assert "name=apparmor" in json.loads(lamina("info", "--format", "{{json .SecurityOptions}}"))
    assert " apparmor" in lamina("info").splitlines()


def test_a_profile_that_is_not_loaded_is_one_clear_error(lamina: Lamina):
    error = lamina.error("run", "--rm", "--security-opt", "apparmor=never-loaded", "base", "true", code=125)
    assert "no such AppArmor profile is loaded: 'never-loaded'" in error
    assert lamina("ps", "-aq") == ""
