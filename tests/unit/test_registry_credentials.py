"""Accounts in Docker's and Podman's files: found by any of their names, kept beside what else is there, and damage is said."""

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from lamina.errors import LaminaError, UsageError
from lamina.registry.credentials import HUB_KEY, Credential, Credentials

ANNA = Credential(username="anna", password="pass:word")
AUTH = {"auth": base64.b64encode(b"anna:pass:word").decode()}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "PATH": str(tmp_path / "bin"),
    }


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.mark.parametrize(
    "name",
    ["r.example:5000", "https://r.example:5000", "http://r.example:5000/", "https://r.example:5000/v2/", "r.example:5000/v1/"],
)
def test_an_account_is_found_by_any_name_of_its_registry(name: str, environment: dict[str, str], tmp_path: Path):
    write(tmp_path / "docker/config.json", {"auths": {name: AUTH}})
    assert Credentials(environment).find("r.example:5000", "app") == ANNA
    assert Credentials(environment).find("r.example:5001", "app") is None
    assert Credentials(environment).find("r.example", "app") is None


@pytest.mark.parametrize("name", [HUB_KEY, "docker.io", "index.docker.io", "https://index.docker.io/v1"])
def test_docker_hubs_account_is_found_by_its_old_names(name: str, environment: dict[str, str], tmp_path: Path):
    write(tmp_path / "docker/config.json", {"auths": {name: AUTH}})
    assert Credentials(environment).find("docker.io") == ANNA


def test_podmans_file_comes_after_dockers_and_the_longest_name_wins(environment: dict[str, str], tmp_path: Path):
    other = {"auth": base64.b64encode(b"other:x").decode()}
    write(tmp_path / "run/containers/auth.json", {"auths": {"r.example": other, "r.example/team": AUTH}})
    write(tmp_path / ".config/containers/auth.json", {"auths": {"q.example": AUTH}})
    found = Credentials(environment)
    assert found.find("r.example", "team/app") == ANNA
    assert found.find("r.example", "teams/app") == Credential(username="other", password="x")
    assert found.find("q.example") == ANNA
    write(tmp_path / "docker/config.json", {"auths": {"r.example": AUTH}})
    assert found.find("r.example", "teams/app") == ANNA


def test_user_and_password_may_stand_apart_and_an_identity_token_wins(environment: dict[str, str], tmp_path: Path):
    write(
        tmp_path / "docker/config.json",
        {"auths": {"a": {"username": "anna", "password": "pass:word"}, "b": {**AUTH, "identitytoken": "t"}}},
    )
    assert Credentials(environment).find("a") == ANNA
    assert Credentials(environment).find("b") == Credential(username="anna", identity_token="t")


@pytest.mark.parametrize(
    "content",
    ["not json", "[]", '{"auths": []}', '{"auths": {"r": {"auth": "!"}}}', '{"auths": {"r": {"auth": "YQ=="}}}',
     '{"credsStore": 1}', '{"credsStore": "../x"}', '{"credHelpers": 1}'],
)  # fmt: skip
def test_a_damaged_file_is_said_and_not_shown(content: str, environment: dict[str, str], tmp_path: Path):
    path = write(tmp_path / "docker/config.json", content)
    with pytest.raises(UsageError, match=str(path)):
        Credentials(environment).find("r")
    assert path.read_text() == content


def test_entries_without_an_account_are_none(environment: dict[str, str], tmp_path: Path):
    write(tmp_path / "docker/config.json", {"auths": {"r": {}, "q": {"auth": ""}, "p": 1}})
    assert [Credentials(environment).find(name) for name in "rqp"] == [None] * 3


def test_storing_keeps_all_else_and_is_readable_for_the_owner_alone(environment: dict[str, str], tmp_path: Path):
    path = write(tmp_path / "docker/config.json", {"auths": {"https://r/v2/": {"auth": "eDp5"}, "q": AUTH}, "new": {"x": [1]}})
    path.chmod(0o644)
    credentials = Credentials(environment)
    stored = credentials.store("r", ANNA)
    assert (stored.place, stored.is_encrypted) == (str(path), False)
    assert json.loads(path.read_text()) == {"auths": {"q": AUTH, "r": AUTH}, "new": {"x": [1]}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert credentials.erase("r")
    assert not credentials.erase("r")
    assert json.loads(path.read_text()) == {"auths": {"q": AUTH}, "new": {"x": [1]}}
    assert os.listdir(path.parent) == ["config.json"]


def test_a_file_that_is_a_symlink_stays_one(environment: dict[str, str], tmp_path: Path):
    real = write(tmp_path / "dotfiles/docker.json", {"kept": True})
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").symlink_to(real)
    Credentials(environment).store("r", ANNA)
    assert (tmp_path / "docker/config.json").is_symlink()
    assert json.loads(real.read_text()) == {"kept": True, "auths": {"r": AUTH}}


def test_a_helper_that_fails_says_nothing_of_what_it_knows(environment: dict[str, str], tmp_path: Path):
    helper = write(tmp_path / "bin/docker-credential-bad", "#!/bin/sh\necho secret stuff; echo more secret >&2; exit 3\n")
    helper.chmod(0o755)
    write(tmp_path / "docker/config.json", {"credsStore": "bad"})
    with pytest.raises(LaminaError, match="'docker-credential-bad' failed at 'get' with exit code 3") as caught:
        Credentials(environment).find("r")
    assert "secret" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("answer", ["nonsense", "[]", '{"Username": 1, "Secret": "s3cret"}'])
def test_a_helper_that_talks_nonsense_is_said(answer: str, environment: dict[str, str], tmp_path: Path):
    helper = write(tmp_path / "bin/docker-credential-odd", f"#!/bin/sh\necho '{answer}'\n")
    helper.chmod(0o755)
    write(tmp_path / "docker/config.json", {"credHelpers": {"r": "odd"}})
    with pytest.raises(LaminaError, match="gave no account") as caught:
        Credentials(environment).find("r")
    assert "s3cret" not in str(caught.value)
    assert Credentials(environment).find("q") is None


def test_a_helper_that_never_ends_is_ended(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    helper = write(tmp_path / "bin/docker-credential-mad", "#!/bin/sh\nwhile :; do echo s3cret; done\n")
    helper.chmod(0o755)
    write(tmp_path / "docker/config.json", {"credsStore": "mad"})
    monkeypatch.setattr("lamina.registry.credentials._MAX_BYTES", 1 << 12)
    with pytest.raises(LaminaError, match="'docker-credential-mad' gave no account but something endless") as caught:
        Credentials(environment).find("r")
    assert "s3cret" not in str(caught.value)
    helper.write_text(f"#!/bin/sh\nexec 2>&-; echo $$ > '{tmp_path}/pid'; read line; read line <'{tmp_path}/never'\n")
    os.mkfifo(tmp_path / "never")
    monkeypatch.setattr("lamina.registry.credentials._HELPER_S", 0.5)
    with pytest.raises(LaminaError, match="'docker-credential-mad' gave no answer for"):
        Credentials(environment).find("r")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_helper_may_give_an_identity_token(environment: dict[str, str], tmp_path: Path):
    helper = write(tmp_path / "bin/docker-credential-id", '#!/bin/sh\necho \'{"Username": "<token>", "Secret": "t"}\'\n')
    helper.chmod(0o755)
    write(tmp_path / "docker/config.json", {"credsStore": "id"})
    assert Credentials(environment).find("r") == Credential(identity_token="t")
