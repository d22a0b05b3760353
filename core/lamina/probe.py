"""One check of a container's health, run by its monitor when it is due: `python -m lamina.probe ROOT RUN_DIR CONTAINER`.

The exit code tells the monitor whether the container is still starting (`runtime/probes.py`).
"""

import sys

from lamina.engine import Engine
from lamina.errors import LaminaError
from lamina.runtime.probes import STARTING


def main() -> int:
    """Check, and write down what came of it; a container that isn't running isn't checked."""
    root_dir, run_dir, container_id = sys.argv[1:4]
    try:
        with Engine(root_dir=root_dir, run_dir=run_dir, warn=lambda _text: None) as engine:
            from lamina.usecases.health import check

            status = check(engine.context, engine.entering, engine.context.records.find(container_id))
    except (LaminaError, OSError):
        return STARTING
    return STARTING if status == "starting" else 0


if __name__ == "__main__":
    sys.exit(main())
