"""A chosen driver's hooks are that driver's alone, whatever other drivers the same process loads, before or after."""

import pytest

from lamina.api.drivers import StorageDriver
from lamina.api.hookspecs import hookimpl
from lamina.api.host import PluginHost
from lamina.api.types import Capabilities, Probe, WhiteoutFormat


class Driver:
    api_version = 1

    def __init__(self, name: str) -> None:
        self.name = name
        self.discarded: list[str] = []

    @hookimpl
    def storage_probe(self) -> Probe:
        return Probe(usable=True, capabilities=Capabilities(whiteouts=WhiteoutFormat.NONE, native_diff=False), method=self.name)

    @hookimpl
    def storage_discard(self, key: str) -> bool:
        self.discarded.append(key)
        return True


@pytest.fixture
def host() -> PluginHost:
    return PluginHost()


def test_a_driver_loaded_later_gets_none_of_anothers_calls(host: PluginHost) -> None:
    first, second = Driver("first"), Driver("second")
    host.register(first, "storage.first")
    chosen = StorageDriver(host=host, asked_name="first", home="/nowhere")
    chosen.discard("a")
    host.register(second, "storage.second")
    chosen.discard("b")
    StorageDriver(host=host, asked_name="second", home="/nowhere").discard("c")
    assert (first.discarded, second.discarded) == (["a", "b"], ["c"])


def test_a_driver_loaded_before_gets_none_of_anothers_calls(host: PluginHost) -> None:
    first, second = Driver("first"), Driver("second")
    host.register(first, "storage.first")
    host.register(second, "storage.second")
    assert StorageDriver(host=host, asked_name="first", home="/nowhere").probe().method == "first"
    assert StorageDriver(host=host, asked_name="second", home="/nowhere").probe().method == "second"
