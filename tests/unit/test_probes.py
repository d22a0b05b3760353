"""When the monitor has a container's health checked."""

import os
import select
import time

import pytest

from lamina.runtime.probes import STARTING, ProbePlan, Probes


def plan(command: str, *, interval_s: float = 0.05, start_interval_s: float = 0.05, start_period_s: float = 0) -> ProbePlan:
    return ProbePlan(
        command=("/bin/sh", "-c", command), interval_s=interval_s, start_interval_s=start_interval_s, start_period_s=start_period_s
    )


def run_once(probes: Probes) -> None:
    """Wait as the monitor does: until a check is due, and until it has ended."""
    while not probes.pid:
        time.sleep(probes.timeout_ms() / 1000)
        probes.go_on()
    assert probes.timeout_ms() == -1
    select.select([probes.pidfd], [], [])
    probes.go_on()
    assert not probes.pid


def test_a_check_comes_an_interval_after_the_last_ones_end():
    probes = Probes(plan("sleep 0.1", interval_s=0.2))
    begun = time.monotonic()
    assert 0 < probes.timeout_ms() <= 201
    run_once(probes)
    run_once(probes)
    assert time.monotonic() - begun > 0.59
    assert 0 < probes.timeout_ms() <= 201


@pytest.mark.parametrize(("code", "waits_longest_ms"), [(STARTING, 100), (0, 60_000)])
def test_the_start_interval_counts_until_the_container_has_been_well(code: int, waits_longest_ms: int):
    probes = Probes(plan(f"exit {code}", interval_s=60, start_interval_s=0.1, start_period_s=50))
    assert probes.timeout_ms() <= 101
    run_once(probes)
    assert waits_longest_ms / 2 < probes.timeout_ms() <= waits_longest_ms + 1


def test_without_a_start_period_the_interval_counts_from_the_beginning():
    assert Probes(plan("true", interval_s=60)).timeout_ms() > 50_000


def test_a_check_that_runs_is_ended_with_its_container_and_one_that_cannot_run_is_left_out():
    probes = Probes(plan("exec sleep 1000", interval_s=0))
    probes.go_on()
    assert probes.pid
    probes.end()
    with pytest.raises(ProcessLookupError):
        os.kill(probes.pid, 0)
    missing = Probes(ProbePlan(command=("/no/such/program",), interval_s=0, start_interval_s=0, start_period_s=0))
    missing.go_on()
    assert not missing.pid
