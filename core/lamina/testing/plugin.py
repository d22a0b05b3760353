"""The pytest plugin: at the end of a run, the counts for each driver and group, and what is worth knowing beside them.

It is loaded by every pytest of an environment with lamina, so it imports nothing until there is something to say.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Write the table."""
    found: dict[str, list[Any]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for key, value in getattr(report, "user_properties", ()):
                    if key == "lamina":
                        found.setdefault(value[0], []).append(value)
    if not found:
        return
    from lamina.testing.report import count_rows

    for name, values in sorted(found.items()):
        terminalreporter.section(f"storage driver {name}")
        for line in count_rows([(group, verdict) for _, group, _, verdict, _, _ in values]):
            terminalreporter.write_line(line)
        for _, _, check, _, underclaimed, notes in values:
            if underclaimed:
                terminalreporter.write_line(f"works, and isn't claimed: {check}")
            for note in notes:
                terminalreporter.write_line(f"recorded: {check}: {note}")
