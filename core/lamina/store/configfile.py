"""The configuration file, `/etc/lamina/config.toml` or what `LAMINA_CONFIG` names: found, read, its top level checked.

Not here: what its settings mean; `usecases/settings.py` and `registry/hosts.py` say that, each of its own.
"""

import os
from collections.abc import Mapping
from typing import Any

from lamina.errors import UsageError

CONFIG_PATH = "/etc/lamina/config.toml"
TEXTS = frozenset({"root", "run-dir", "storage-driver", "pull", "network", "log-driver"})
TABLES = frozenset({"registries", "log-opts"})
SWITCHES = frozenset({"selinux-enabled"})


def config_path(environment: Mapping[str, str] = os.environ) -> str:
    """Where the file is."""
    return environment.get("LAMINA_CONFIG", "") or CONFIG_PATH


def read_config_file(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Read the file; one that isn't there and wasn't named is empty. Raises `UsageError`, naming file and setting."""
    path = config_path(environment)
    try:
        with open(path, "rb") as file:
            import tomllib

            document = tomllib.load(file)
    except FileNotFoundError:
        if environment.get("LAMINA_CONFIG", ""):
            raise UsageError(f"the configuration file '{path}' doesn't exist") from None
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"the configuration file '{path}' can't be read: {error}") from error
    for key, value in document.items():
        if key not in TEXTS | TABLES | SWITCHES:
            raise UsageError(f"'{path}': unknown setting '{key}'", hint=f"known are {', '.join(sorted(TEXTS | TABLES | SWITCHES))}")
        if key in TEXTS and not isinstance(value, str):
            raise UsageError(f"'{path}': setting '{key}' is not a text")
        if key in TABLES and not isinstance(value, dict):
            raise UsageError(f"'{path}': setting '{key}' is not a table")
        if key in SWITCHES and not isinstance(value, bool):
            raise UsageError(f"'{path}': setting '{key}' is neither true nor false")
    return document
