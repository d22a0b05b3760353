"""What stays with a container, and the daemons: their own memory and descriptors over many execs and a large log."""

from pathlib import Path

import archives
from busy import sizes, told
from cases import wait_until
from engines import Engine, children
from test_soak import size_of


def grow(kind: type[Engine], place: Path, *, execs: int, log_bytes: int) -> dict[str, str]:
    """Give how they grew, as rows of a table."""
    engine = kind(place / "root", place / "run", "overlay")
    engine.start()
    try:
        engine("load", "-q", "-i", str(archives.image(place / "base.tar", "base:latest", archives.base_layers())))
        write = f"yes {'x' * 99} | head -c"
        script = f"{write} {log_bytes // 10}; until test -e /go; do sleep 0.1; done; {write} {log_bytes}; exec sleep 1000000"
        engine("run", "-d", "--name", "one", "--network", "none", "base", "sh", "-c", script)
        keeper = engine.keeper("one")

        def all_sizes() -> dict[str, tuple[int, int]]:
            return {engine.keeper_name: size_of(keeper), **sizes(engine)}

        def is_written() -> bool:
            (first,) = [each for each in children(keeper) if Path(f"/proc/{each}/cmdline").read_bytes()]
            return b"sleep\x001000000" in Path(f"/proc/{first}/cmdline").read_bytes()

        for _ in range(10):
            engine("exec", "one", "true")
        before = all_sizes()
        for _ in range(execs):
            engine("exec", "one", "true")
        between = all_sizes()
        engine("exec", "one", "touch", "/go")
        wait_until(is_written, "all is written", timeout_s=600)
        after = all_sizes()
        rows = {
            f"own memory before and after {execs:,} execs": told(before, between, 0),
            "descriptors": told(before, between, 1),
            f"own memory before and after {log_bytes // 1_000_000} MB of log": told(between, after, 0),
            "descriptors then": told(between, after, 1),
        }
        engine("rm", "-f", "one")
    finally:
        engine.close()
    return rows
