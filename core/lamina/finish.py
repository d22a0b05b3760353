"""What a monitor becomes when its container has ended and nobody waits for it: `python -m lamina.finish ROOT RUN_DIR CONTAINER`.

Opening the engine settles the container, as it does for any that has ended; `--rm` is seen to there as well.
"""

import sys

from lamina.engine import Engine
from lamina.errors import LaminaError, NotFoundError


def main() -> int:
    """Settle the container; whatever fails is left for the next command, which does the same."""
    root_dir, run_dir, container_id = sys.argv[1:4]
    try:
        with Engine(root_dir=root_dir, run_dir=run_dir, warn=lambda _text: None) as engine:
            container = engine.context.records.find(container_id)
            settled = engine.starter.settle(container)
            if settled is not None and settled.config.auto_remove and not settled.is_active:
                engine.control.remove(settled, volumes=True)
    except (NotFoundError, LaminaError, OSError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
