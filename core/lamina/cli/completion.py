"""What the shell offers after TAB: names of containers, images, volumes and drivers, read without opening the store.

    @click.argument("container", shell_complete=complete_containers)

Completion must be quick, silent and change nothing, so whatever goes wrong here is an empty answer.
"""

from collections.abc import Callable, Iterable

import click

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _completer(find: Callable[[str, str], Iterable[str]]) -> Complete:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        del param
        taken = {word for words in ctx.params.values() if isinstance(words, tuple) for word in words}
        try:
            from lamina.usecases.settings import read_settings

            given = ctx.find_root().params
            root_dir = read_settings(root_dir=given.get("root") or "", run_dir=given.get("run_dir") or "").root_dir
            return [name for name in find(root_dir, incomplete) if name.startswith(incomplete) and name not in taken]
        except Exception:  # noqa: BLE001 - a traceback in the middle of a person's command line helps nobody
            return []

    return complete


def _containers(states: tuple[str, ...]) -> Complete:
    def find(root_dir: str, incomplete: str) -> Iterable[str]:
        from lamina.store.names import container_names

        return container_names(root_dir, states=states, with_ids=bool(incomplete))

    return _completer(find)


def _images(root_dir: str, incomplete: str) -> Iterable[str]:
    from lamina.store.names import image_names

    return image_names(root_dir, with_ids=bool(incomplete))


def _volumes(root_dir: str, incomplete: str) -> Iterable[str]:
    from lamina.store.names import volume_names

    del incomplete
    return volume_names(root_dir)


def _networks(root_dir: str, incomplete: str) -> Iterable[str]:
    from lamina.store.names import network_names

    return sorted({*network_names(root_dir), *_plugin_names("network", root_dir)}) + (
        [f"container:{name}" for name in _running_names(root_dir)] if incomplete.startswith("c") else []
    )


def _made_networks(root_dir: str, incomplete: str) -> Iterable[str]:
    from lamina.store.names import network_names

    del incomplete
    return network_names(root_dir)


def _running_names(root_dir: str) -> list[str]:
    from lamina.store.names import container_names

    return container_names(root_dir, states=("running", "paused"))


def _plugin_names(kind: str, root_dir: str) -> list[str]:
    import os

    from lamina.api.host import PluginHost

    cache = os.path.join(root_dir, "plugins.json")
    return PluginHost(cache_path=cache if os.path.exists(cache) else None).names(kind)


def _plugins(kind: str) -> Complete:
    return _completer(lambda root_dir, _incomplete: _plugin_names(kind, root_dir))


complete_containers = _containers(())
complete_running = _containers(("running", "paused"))
complete_stopped = _containers(("created", "exited"))
complete_paused = _containers(("paused",))
complete_images = _completer(_images)
complete_volumes = _completer(_volumes)
complete_drivers = _plugins("storage")
complete_networks = _completer(_networks)
complete_made_networks = _completer(_made_networks)
complete_network_drivers = _plugins("network")
complete_volume_drivers = _plugins("volume")
