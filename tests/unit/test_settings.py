"""Settings: a flag wins over the environment, that over the file, that over what is built in; a bad file is said."""

from pathlib import Path

import pytest

from lamina.errors import UsageError
from lamina.usecases.settings import Settings, read_settings


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config.toml").write_text('root = "/file"\nrun-dir = "/file-run"\nstorage-driver = "vfs"\n')
    return {"LAMINA_CONFIG": str(tmp_path / "config.toml")}


def test_built_in_places_are_the_systems(tmp_path: Path):
    (tmp_path / "empty.toml").write_text("")
    settings = read_settings(environment={"LAMINA_CONFIG": str(tmp_path / "empty.toml")})
    assert settings == Settings(root_dir="/var/lib/lamina", run_dir="/run/lamina", storage_driver="")


def test_the_file_wins_over_what_is_built_in(environment: dict[str, str]):
    assert read_settings(environment=environment) == Settings(root_dir="/file", run_dir="/file-run", storage_driver="vfs")


def test_the_environment_wins_over_the_file(environment: dict[str, str]):
    environment |= {"LAMINA_ROOT": "/env", "LAMINA_RUN_DIR": "/env-run", "LAMINA_STORAGE_DRIVER": "aufs"}
    assert read_settings(environment=environment) == Settings(root_dir="/env", run_dir="/env-run", storage_driver="aufs")


def test_a_flag_wins_over_everything(environment: dict[str, str]):
    environment |= {"LAMINA_ROOT": "/env", "LAMINA_RUN_DIR": "/env-run", "LAMINA_STORAGE_DRIVER": "aufs"}
    settings = read_settings(root_dir="/flag", run_dir="/flag-run", storage_driver="overlay", environment=environment)
    assert settings == Settings(root_dir="/flag", run_dir="/flag-run", storage_driver="overlay")


def test_an_empty_variable_is_as_good_as_none(environment: dict[str, str]):
    assert read_settings(environment={**environment, "LAMINA_ROOT": ""}).root_dir == "/file"


def test_a_store_of_ones_own_has_a_run_directory_of_its_own(tmp_path: Path):
    (tmp_path / "empty.toml").write_text("")
    environment = {"LAMINA_CONFIG": str(tmp_path / "empty.toml"), "LAMINA_ROOT": "/mine"}
    assert read_settings(environment=environment).run_dir == "/mine/run"


def test_a_relative_place_is_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]):
    monkeypatch.chdir(tmp_path)
    assert read_settings(root_dir="store", environment=environment).root_dir == str(tmp_path / "store")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("root = ", "can't be read"),
        ("colour = 'red'", "unknown setting 'colour'"),
        ("selinux-enabled = 'yes'", "setting 'selinux-enabled' is neither true nor false"),
        ("root = 3", "setting 'root' is not a text"),
        ("[root]\na = 'b'", "setting 'root' is not a text"),
        ("storage-driver = ['vfs']", "setting 'storage-driver' is not a text"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(tmp_path: Path, text: str, why: str):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=why) as caught:
        read_settings(environment={"LAMINA_CONFIG": str(path)})
    assert str(path) in caught.value.message


def test_a_file_that_is_not_text_or_not_a_file_is_refused(tmp_path: Path):
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "bytes.toml", tmp_path):
        with pytest.raises(UsageError, match="can't be read"):
            read_settings(environment={"LAMINA_CONFIG": str(path)})


def test_a_named_file_must_be_there(tmp_path: Path):
    with pytest.raises(UsageError, match="doesn't exist"):
        read_settings(environment={"LAMINA_CONFIG": str(tmp_path / "none.toml")})
