"""Settings: where the store is and which storage driver and network are the default, by flag, environment, or configuration file.

The order is flag, environment (`LAMINA_ROOT`, `LAMINA_RUN_DIR`, `LAMINA_STORAGE_DRIVER`, `LAMINA_PULL`, `LAMINA_NETWORK`), the
file (`/etc/lamina/config.toml`, or what `LAMINA_CONFIG` names), built in. With no driver named anywhere the store remembers the
best that worked when it was made.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lamina.dataclasses import dataclass, field
from lamina.errors import LaminaError, NotFoundError, NotUsableError, UsageError
from lamina.store.configfile import read_config_file

if TYPE_CHECKING:  # a build from the cache reads the settings and no more
    from lamina.api.host import PluginHost
    from lamina.store.layers import LayerStore

DEFAULT_ROOT_DIR = "/var/lib/lamina"
DEFAULT_RUN_DIR = "/run/lamina"
PULL_POLICIES = ("missing", "always", "never")
DEFAULT_NETWORK = "bridge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was decided; an empty driver is for `choose_driver` to fill."""

    root_dir: str
    run_dir: str
    storage_driver: str
    pull: str = "missing"
    """When `run` and `create` pull an image."""
    network: str = DEFAULT_NETWORK
    """The network of a container for which none is named."""
    log_driver: str = ""
    """`json-file` or `none` for a container for which none is named; "" is json-file."""
    log_options: Mapping[str, str] = field(default_factory=dict)
    """Its options where a container has none of its own: the table `log-opts`, as Docker's daemon.json has it."""
    selinux_enabled: bool = False
    """Whether a container has a label of SELinux unasked, as Docker's daemon.json says it."""


def read_settings(
    *, root_dir: str = "", run_dir: str = "", storage_driver: str = "", environment: Mapping[str, str] = os.environ
) -> Settings:
    """Merge what the caller gives with the environment and the configuration file. Raises `UsageError` for a bad file."""
    file = read_config_file(environment)
    root = root_dir or environment.get("LAMINA_ROOT", "") or file.get("root", "") or DEFAULT_ROOT_DIR
    run = run_dir or environment.get("LAMINA_RUN_DIR", "") or file.get("run-dir", "")
    if not run:  # a store of one's own has a run directory of its own
        run = DEFAULT_RUN_DIR if root == DEFAULT_ROOT_DIR else os.path.join(root, "run")
    driver = storage_driver or environment.get("LAMINA_STORAGE_DRIVER", "") or file.get("storage-driver", "")
    pull = environment.get("LAMINA_PULL", "") or file.get("pull", "") or PULL_POLICIES[0]
    if pull not in PULL_POLICIES:
        raise UsageError(
            f"'{pull}' doesn't say when to pull", hint=f"LAMINA_PULL and the setting 'pull' are {', '.join(PULL_POLICIES)}"
        )
    network = environment.get("LAMINA_NETWORK", "") or file.get("network", "") or DEFAULT_NETWORK
    return Settings(
        root_dir=os.path.abspath(root), run_dir=os.path.abspath(run), storage_driver=driver, pull=pull, network=network,
        selinux_enabled=file.get("selinux-enabled", False), **_log_settings(file),
    )  # fmt: skip


def _log_settings(file: Mapping[str, Any]) -> dict[str, Any]:
    driver, options = file.get("log-driver", ""), file.get("log-opts", {})
    if not driver and not options:
        return {}
    from lamina.model.supervision import log_limits

    options = {name: str(value) for name, value in options.items()}
    log_limits(driver or "json-file", options)  # said here, before a container is made with it
    return {"log_driver": driver, "log_options": options}


def choose_driver(root_dir: str, host: "PluginHost", layers: "LayerStore") -> str:
    """Give the store's own default driver: the best that works here, chosen once and remembered.

    Best is one that shares layers and can tell a layer's changes by itself, then the deepest.
    """
    path = os.path.join(root_dir, "default-driver")
    try:
        with open(path, encoding="utf-8") as file:
            remembered = file.read().strip()
        if remembered in host.names("storage"):
            return remembered
    except OSError:
        pass
    ranked, reasons = [], []
    for name in host.names("storage"):
        try:
            probe = layers.driver(name).probe()
        except (LaminaError, NotFoundError, OSError) as error:
            reasons.append(f"{name}: {error}")
            continue
        if probe.usable:
            able = probe.capabilities
            ranked.append((able.native_diff, able.max_depth or 0, layers.driver(name).name))
        else:
            reasons.append(f"{name}: {probe.reason}")
    if not ranked:
        raise NotUsableError("no storage driver works here", hint="; ".join(reasons))
    best = max(ranked)[2]
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as out:
        out.write(best + "\n")
    os.rename(temporary, path)
    return best
