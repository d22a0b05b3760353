"""The plugin host: what is installed is found and remembered, what is broken is named, and what isn't chosen isn't called."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.api.drivers import NetworkDriver, StorageDriver, VolumeDriver
from lamina.api.hookspecs import hookimpl
from lamina.api.host import REQUIRED, PluginHost
from lamina.api.types import API_VERSION, Capabilities, Probe, View, VolumeSpec, WhiteoutFormat
from lamina.errors import NotFoundError, PluginError
from lamina.model.mount import Mount

GOOD = """
from lamina.api.hookspecs import hookimpl
from lamina.api.types import Capabilities, Probe, View, WhiteoutFormat

class Driver:
    name = "NAME"
    api_version = 1

    @hookimpl
    def storage_probe(self):
        return Probe(usable=True, capabilities=Capabilities(whiteouts=WhiteoutFormat.NONE, native_diff=False), method=self.name)

    @hookimpl
    def storage_prepare(self):
        return True

    @hookimpl
    def storage_mounts(self, home, key):
        return View(root=home + "/" + key)

    @hookimpl
    def storage_discard(self):
        return True

    @hookimpl
    def storage_keys(self):
        return []

plugin = Driver()
"""


class Installed:
    """A directory of distributions, as pip leaves them, on `sys.path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, module: str, code: str, *entries: str) -> None:
        (self.path / f"{module}.py").write_text(code)
        folder = self.path / f"{module}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text("[lamina]\n" + "".join(f"{entry}\n" for entry in entries))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    path = tmp_path / "site"
    path.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(path))
    yield Installed(path)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def age(path: Path) -> None:
    """Let time pass for a directory: two changes within one clock tick would look like one."""
    os.utime(path, ns=(1, 1))


def test_an_installed_plugin_is_found_by_its_entry_point(site: Installed):
    site.install("good", GOOD.replace("NAME", "good"), "storage.good = good:plugin")
    host = PluginHost()
    assert "good" in host.names("storage")
    driver = StorageDriver(host=host, asked_name="good", home="/nowhere")
    assert driver.probe().method == "good"
    assert host.get("storage", "good") is host.get("storage", "good")


def test_an_alias_is_the_same_plugin(site: Installed):
    site.install("good", GOOD.replace("NAME", "good"), "storage.good = good:plugin", "storage.good2 = good:plugin")
    host = PluginHost()
    assert host.get("storage", "good2") is host.get("storage", "good")
    assert StorageDriver(host=host, asked_name="good2", home="/").name == "good"


def test_entries_of_an_unknown_kind_are_left_aside(site: Installed):
    site.install("odd", "plugin = 1", "teleport.odd = odd:plugin", "odd = odd:plugin")
    assert not [name for name in PluginHost().entries() if "odd" in name]


def test_a_driver_that_is_not_installed_is_said_with_those_that_are(site: Installed):
    with pytest.raises(NotFoundError, match="storage driver 'nope' is not installed") as caught:
        PluginHost().get("storage", "nope")
    assert "overlay" in caught.value.hint


BROKEN = {
    "import": ("import no_such_module_at_all", "can't be loaded from 'broken:plugin': ModuleNotFoundError"),
    "syntax": ("def", "SyntaxError"),
    "exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "attribute": ("other = 1", "AttributeError"),
    "version": (
        GOOD.replace("api_version = 1", "api_version = 99").replace("NAME", "broken"),
        "version 99 of the contract, this is",
    ),
    "no version": (GOOD.replace("api_version = 1", "").replace("NAME", "broken"), "version None of the contract"),
    "no name": (GOOD.replace('name = "NAME"', "name = None"), "has no name"),
    "another's name": (GOOD.replace("NAME", "vfs"), "claims the name 'vfs', which is another plugin's"),
    "missing hook": (
        GOOD.replace("NAME", "broken").replace("    @hookimpl\n    def storage_keys", "    def storage_keys"),
        "doesn't implement the hook 'storage_keys'",
    ),
    "unknown argument": (
        GOOD.replace("NAME", "broken").replace("storage_prepare(self)", "storage_prepare(self, colour)"),
        "implements a hook wrongly: .*colour",
    ),
    "unknown hook": (
        GOOD.replace("NAME", "broken").replace("plugin =", "Driver.storage_teleport = hookimpl(lambda self: 1)\nplugin ="),
        "implements a hook wrongly: .*storage_teleport",
    ),
    "raising attribute": (
        GOOD.replace('name = "NAME"', "name = property(lambda self: 1 / 0)"),
        "can't be examined: ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_plugin_is_one_error_with_its_name(site: Installed, how: str):
    code, why = BROKEN[how]
    site.install("broken", code, "storage.broken = broken:plugin")
    host = PluginHost()
    for _ in range(2):  # the second time as the first
        with pytest.raises(PluginError, match=f"(?s)plugin 'storage.broken' .*{why}") as caught:
            host.get("storage", "broken")
        assert "\n" not in caught.value.message
    assert [name for name, _ in host.broken("storage")] == ["broken"]
    assert host.get("storage", "vfs").name == "vfs"


def test_a_broken_plugin_is_not_called_afterwards(site: Installed):
    code = GOOD.replace("NAME", "broken").replace("storage_discard(self)", "storage_discard(self, colour)")
    code = code.replace("def storage_prepare(self):\n", "def storage_prepare(self):\n        raise RuntimeError('called')\n")
    site.install("broken", code, "storage.broken = broken:plugin")
    site.install("good", GOOD.replace("NAME", "good"), "storage.good = good:plugin")
    host = PluginHost()
    with pytest.raises(PluginError):
        host.get("storage", "broken")
    StorageDriver(host=host, asked_name="good", home="/").prepare("k", (), {})


def test_required_hooks_exist_in_the_contract():
    from lamina.api import hookspecs

    for kind, hooks in REQUIRED.items():
        for hook in hooks:
            assert hasattr(hookspecs, hook), f"{kind}: {hook}"


class TestTheCache:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Path:
        return tmp_path / "plugins.json"

    def test_is_used_instead_of_a_scan(self, site: Installed, cache: Path):
        PluginHost(cache_path=str(cache)).entries()
        document = json.loads(cache.read_text())
        document[0]["entries"]["storage.cached"] = "nowhere:plugin"
        cache.write_text(json.dumps(document))
        assert "cached" in PluginHost(cache_path=str(cache)).names("storage")

    def test_is_void_when_a_directory_of_the_path_has_changed(self, site: Installed, cache: Path):
        age(site.path)
        assert "late" not in PluginHost(cache_path=str(cache)).names("storage")
        site.install("late", GOOD.replace("NAME", "late"), "storage.late = late:plugin")
        assert "late" in PluginHost(cache_path=str(cache)).names("storage")

    def test_forgets_what_was_uninstalled(self, site: Installed, cache: Path):
        site.install("gone", GOOD.replace("NAME", "gone"), "storage.gone = gone:plugin")
        age(site.path)
        assert "gone" in PluginHost(cache_path=str(cache)).names("storage")
        (site.path / "gone-1.0.dist-info" / "entry_points.txt").unlink()
        (site.path / "gone-1.0.dist-info").rename(site.path / "elsewhere")
        assert "gone" not in PluginHost(cache_path=str(cache)).names("storage")

    def test_is_kept_for_each_path_so_that_two_programs_do_not_undo_each_others(
        self, site: Installed, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        PluginHost(cache_path=str(cache)).entries()
        with monkeypatch.context() as other:
            other.setattr(sys, "path", [str(tmp_path), *sys.path])
            PluginHost(cache_path=str(cache)).entries()
        written = cache.stat().st_ino
        PluginHost(cache_path=str(cache)).entries()
        assert cache.stat().st_ino == written

    def test_does_not_grow_for_ever(self, site: Installed, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        path = list(sys.path)
        for number in range(20):
            (tmp_path / str(number)).mkdir()
            monkeypatch.setattr(sys, "path", [str(tmp_path / str(number)), *path])
            PluginHost(cache_path=str(cache)).entries()
        assert len(json.loads(cache.read_text())) < 10

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "{}", "5", '{"fingerprint": 1}', "[1, null]", '[{"entries": 3}]', '[{"fingerprint": 3}]']
    )
    def test_that_is_damaged_is_as_good_as_none(self, site: Installed, cache: Path, text: str):
        cache.write_text(text)
        assert "vfs" in PluginHost(cache_path=str(cache)).names("storage")

    def test_in_a_place_that_cannot_be_written_is_no_error(self, site: Installed, tmp_path: Path):
        assert "vfs" in PluginHost(cache_path=str(tmp_path / "none" / "plugins.json")).names("storage")


class Driver:
    """A driver that answers what it was given."""

    name = "odd"
    api_version = API_VERSION

    def __init__(self, **answers: object) -> None:
        self.answers = answers

    def _answer(self, hook: str) -> object:
        answer = self.answers.get(hook)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @hookimpl
    def storage_probe(self) -> object:
        return self._answer("storage_probe")

    @hookimpl
    def storage_mounts(self) -> object:
        return self._answer("storage_mounts")

    @hookimpl
    def storage_keys(self) -> object:
        return self._answer("storage_keys")

    @hookimpl
    def storage_changes(self) -> object:
        return self._answer("storage_changes")

    @hookimpl
    def storage_prepare(self) -> object:
        return self._answer("storage_prepare")

    @hookimpl
    def network_attach(self) -> object:
        return self._answer("network_attach")

    @hookimpl
    def volume_mounts(self) -> object:
        return self._answer("volume_mounts")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def nonsense_views() -> list[object]:
    mount = Mount(type="bind", target="/m", source="/s")
    nonsense_mounts: list[object] = [
        None, ("x",), (Mount(type="bind", target="m"),), (mount, Mount(type="overlay", target="/m", options=(("lowerdir+", 3),))),
        (Mount(type="overlay", target="/m", options=("lowerdir",)),), (Mount(type=None, target="/m"),),
        (Mount(type="bind", target="/m", flags="ro"),),
    ]  # fmt: skip
    views = [View(root="relative"), View(root=None), View(root="/r", upper_dir="relative")]
    return [None, "/root", (), Unprintable(), *views, *(View(root="/r", mounts=mounts) for mounts in nonsense_mounts)]


def storage(**answers: object) -> StorageDriver:
    host = PluginHost()
    host.register(Driver(**answers), "storage.odd")
    return StorageDriver(host=host, asked_name="odd", home="/")


@pytest.mark.parametrize("answer", nonsense_views(), ids=lambda each: type(each).__name__)
def test_a_view_that_is_none_is_refused_with_plugin_and_hook(answer: object):
    with pytest.raises(PluginError, match=r"^plugin 'storage\.odd' answered 'storage_mounts' with"):
        storage(storage_mounts=answer).mounts("k", (), readonly=False)


def test_every_other_answer_that_is_data_is_looked_at_too():
    with pytest.raises(PluginError, match="answered 'storage_probe' with nonsense"):
        storage(storage_probe=Probe(usable=True, capabilities=None)).probe()
    with pytest.raises(PluginError, match="answered 'storage_keys' with nonsense"):
        storage(storage_keys=["a", 1]).keys()
    with pytest.raises(PluginError, match="answered 'storage_changes' with nonsense"):
        storage(storage_changes=["/a"]).changes("k", (), None)
    with pytest.raises(PluginError, match="answered 'storage_prepare' with NoneType"):
        storage(storage_prepare=None).prepare("k", (), {})


def test_a_long_answer_is_cut_in_the_message():
    with pytest.raises(PluginError) as caught:
        storage(storage_mounts="x" * 100_000).mounts("k", (), readonly=False)
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyError("k"), ValueError()])
def test_a_foreign_exception_becomes_ours_with_plugin_and_hook(error: Exception):
    with pytest.raises(PluginError, match=r"^plugin 'storage\.odd' failed in 'storage_prepare': ") as caught:
        storage(storage_prepare=error).prepare("k", (), {})
    assert caught.value.__cause__ is error


def test_the_kernels_errors_and_ours_pass_as_they_are():
    for error in (OSError(28, "no space"), NotFoundError("x")):
        with pytest.raises(type(error)) as caught:
            storage(storage_prepare=error).prepare("k", (), {})
        assert caught.value is error


def test_a_network_that_answers_a_word_is_not_taken_for_the_hosts():
    from lamina.api.types import Attachment

    host = PluginHost()
    host.register(Driver(network_attach=Attachment(namespace="new")), "network.odd")
    with pytest.raises(PluginError, match=r"plugin 'network\.odd' answered 'network_attach' with nonsense"):
        NetworkDriver(host=host, asked_name="odd").attach("c", {})


def test_a_volumes_mounts_are_mounts():
    host = PluginHost()
    host.register(Driver(volume_mounts=["/path"]), "volume.odd")
    with pytest.raises(PluginError, match=r"plugin 'volume\.odd' answered 'volume_mounts' with nonsense"):
        VolumeDriver(host=host, asked_name="odd", home="/").mounts(VolumeSpec(name="v"))


class Timing:
    """Wraps preparations, in the old and the new way."""

    name = "timing"
    api_version = API_VERSION

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    @hookimpl(wrapper=True)
    def storage_prepare(self, home: str, key: str):
        self.seen.append(("before", key))
        answer = yield
        self.seen.append(("after", key))
        return answer

    @hookimpl(hookwrapper=True)
    def storage_discard(self, key: str):
        self.seen.append(("discard", key))
        yield


class Recorder(Driver):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.seen: list[str] = []

    @hookimpl
    def storage_prepare(self, key: str) -> bool:
        self.seen.append(key)
        return True

    @hookimpl
    def storage_discard(self, key: str) -> bool:
        self.seen.append(key)
        return True


def test_a_wrapper_sees_the_calls_of_whichever_driver_is_chosen_and_other_drivers_none():
    host = PluginHost()
    timing, first, second = Timing(), Recorder("first"), Recorder("second")
    host.register(timing, "watch.timing")
    host.register(first, "storage.first")
    host.register(second, "storage.second")
    StorageDriver(host=host, asked_name="first", home="/").prepare("a", (), {})
    other = StorageDriver(host=host, asked_name="second", home="/")
    other.prepare("b", (), {})
    other.discard("b")
    assert timing.seen == [("before", "a"), ("after", "a"), ("before", "b"), ("after", "b"), ("discard", "b")]
    assert (first.seen, second.seen) == (["a"], ["b", "b"])


def test_a_broken_watcher_is_a_warning_and_drivers_work_without_it(site: Installed):
    site.install("peep", "import no_such_module_at_all", "watch.peep = peep:plugin")
    warnings: list[str] = []
    host = PluginHost(warn=warnings.append)
    assert host.get("storage", "vfs").name == "vfs"
    assert len(warnings) == 1
    assert "plugin 'watch.peep' can't be loaded" in warnings[0]


def test_capabilities_are_what_the_driver_claims():
    claimed = Capabilities(whiteouts=WhiteoutFormat.AUFS, native_diff=True, max_depth=3)
    assert storage(storage_probe=Probe(usable=True, capabilities=claimed)).probe().capabilities == claimed
