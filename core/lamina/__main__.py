"""The program `lamina`, and `python -m lamina`: makes imports cheap, then runs the command line.

Half of a short command's time are imports. Three things that they cost here are not needed: the garbage collector, which looks for
cycles among modules that stay anyway, the search for modules whose place is known (`finder.py`), and what `standins.py` stands
in for.
"""

import gc

from lamina import finder, standins

COLLECT_AFTER = 100_000
"""Objects, net, before the collector looks for cycles; Python's own number is 700."""


def run() -> None:
    """Run the command line and exit with its code."""
    gc.set_threshold(COLLECT_AFTER)
    finder.put_in()
    standins.put_in()
    from lamina.cli.main import run as run_command_line

    run_command_line()


if __name__ == "__main__":
    run()
