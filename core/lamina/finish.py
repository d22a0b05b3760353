"""What a monitor becomes when its container has ended and nobody waits for it: `python -m lamina.finish ROOT RUN_DIR CONTAINER`.

It settles the container, removes it with `--rm`, and starts it again if its restart policy says so.
"""

import os
import sys

from lamina.engine import Engine
from lamina.errors import LaminaError, NotFoundError
from lamina.model.container import Status


def main() -> int:
    """Settle the container; whatever fails is left for the next command, which does the same."""
    root_dir, run_dir, container_id = sys.argv[1:4]
    try:
        engine = Engine(root_dir=root_dir, run_dir=run_dir, warn=lambda _text: None)
        container = engine.context.records.find(container_id)
        settled = engine.starter.settle(container)
        if settled is not None and settled.config.auto_remove and not settled.is_active:
            engine.control.remove(settled, volumes=True)
        elif settled is not None and settled.status is Status.RESTARTING:
            engine.restarts.keep(settled)
    except (NotFoundError, LaminaError, OSError):
        return 1
    return 0


if __name__ == "__main__":
    os._exit(main())  # the database stays open, as for commands: its log, once deleted, can't be made again on a full disk
