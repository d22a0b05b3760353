"""How a container is looked after, as values: policies, delays, log limits, health checks, and the options that say them."""

from typing import Any

import pytest

from lamina.cli.supervision_options import read_supervision
from lamina.errors import ConflictError, UsageError
from lamina.model.container import ContainerConfig
from lamina.model.durations import format_duration, parse_duration
from lamina.model.supervision import (
    HealthCheck,
    LogLimits,
    Supervision,
    log_limits,
    next_delay_ms,
    parse_restart,
)
from lamina.usecases.health import Health

S = 10**9


@pytest.mark.parametrize(
    ("text", "read"),
    [("no", ("no", 0)), ("always", ("always", 0)), ("unless-stopped", ("unless-stopped", 0)), ("on-failure", ("on-failure", 0)),
     ("on-failure:5", ("on-failure", 5))],
)  # fmt: skip
def test_a_restart_policy_is_read(text: str, read: tuple[str, int]):
    assert parse_restart(text) == read


@pytest.mark.parametrize("text", ["", "yes", "always:3", "on-failure:", "on-failure:x", "on-failure:-1", "on-failure:1:2", "No"])
def test_what_is_no_restart_policy_is_refused(text: str):
    with pytest.raises(UsageError, match="invalid restart policy"):
        parse_restart(text)


def test_the_delay_doubles_up_to_a_minute_and_is_short_again_after_a_long_run():
    delays = [next_delay_ms(0, ran_ns=0)]
    while len(delays) < 12:
        delays.append(next_delay_ms(delays[-1], ran_ns=S))
    assert delays == [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]
    assert next_delay_ms(60000, ran_ns=10 * S) == 100


def test_a_policy_wants_a_restart_by_its_own_rule():
    def wants(policy: str, code: int, count: int = 0, most: int = 0) -> bool:
        return Supervision(restart=policy, restart_most=most).wants_restart(exit_code=code, restart_count=count)

    assert [wants("no", 1), wants("always", 0), wants("unless-stopped", 0)] == [False, True, True]
    assert [wants("on-failure", 0), wants("on-failure", 1, 99), wants("on-failure", 1, 2, 3), wants("on-failure", 1, 3, 3)] == [
        False, True, True, False,
    ]  # fmt: skip


def test_log_limits_are_read_as_docker_reads_them():
    assert log_limits("json-file", {}) == LogLimits()
    assert log_limits("none", {}) == LogLimits()
    for text, size in (("10m", 10_000_000), ("1k", 1000), ("2g", 2_000_000_000), ("500", 500), ("1.5KB", 1500)):
        assert log_limits("json-file", {"max-size": text}) == LogLimits(size, 1)
    assert log_limits("json-file", {"max-size": "10m", "max-file": "3"}) == LogLimits(10_000_000, 3)


@pytest.mark.parametrize(
    ("driver", "options", "said"),
    [
        ("syslog", {}, "invalid log driver 'syslog'"),
        ("none", {"max-size": "1m"}, "takes no options"),
        ("json-file", {"compress": "true"}, "unknown log option 'compress'"),
        ("json-file", {"max-file": "3"}, "needs max-size"),
        ("json-file", {"max-size": "0"}, "max-size=0"),
        ("json-file", {"max-size": "x"}, "max-size=x"),
        ("json-file", {"max-size": "1m", "max-file": "0"}, "max-file=0"),
        ("json-file", {"max-size": "1m", "max-file": "-2"}, "max-file=-2"),
    ],
)
def test_a_log_option_that_cannot_be_kept_is_refused(driver: str, options: dict[str, str], said: str):
    with pytest.raises(UsageError, match=said):
        log_limits(driver, options)


def test_nothing_asked_is_nothing():
    assert read_supervision({}) is None


def test_the_options_become_values_that_are_kept():
    asked: dict[str, Any] = {
        "restart": "on-failure:2", "health_cmd": "curl x", "health_interval": "1m30s", "health_retries": 4, "log_driver": None,
        "log_options": ("max-size=1m", "max-file=2"), "health_timeout": None, "health_start_period": None,
        "health_start_interval": "500ms", "no_healthcheck": False,
    }  # fmt: skip
    found = read_supervision(asked)
    assert asked == {}
    health = HealthCheck(test=("CMD-SHELL", "curl x"), interval_ns=90 * S, start_interval_ns=S // 2, retries=4)
    assert found == Supervision(
        restart="on-failure", restart_most=2, health=health, log_options={"max-size": "1m", "max-file": "2"}
    )
    config = ContainerConfig(image="x", supervision=found)
    assert ContainerConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"no_healthcheck": True, "health_retries": 1}, ConflictError),
        ({"health_interval": "10"}, UsageError),
        ({"health_interval": "10us"}, UsageError),
        ({"health_timeout": "-1s"}, UsageError),
        ({"health_retries": -1}, UsageError),
        ({"log_options": ("max-size",)}, UsageError),
        ({"restart": "sometimes"}, UsageError),
    ],
)
def test_options_that_contradict_or_mean_nothing_are_refused(options: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        read_supervision(options)
    with pytest.raises(ConflictError):
        read_supervision({"restart": "always"}, auto_remove=True)


def test_an_image_says_of_the_check_what_the_user_does_not():
    image = HealthCheck(test=("CMD", "true"), interval_ns=S, retries=2)
    assert HealthCheck(retries=5).over(image) == HealthCheck(test=("CMD", "true"), interval_ns=S, retries=5)
    assert HealthCheck(test=("CMD-SHELL", "x y")).over(image).command == ("/bin/sh", "-c", "x y")
    assert HealthCheck(test=("CMD-SHELL", "x"), shell=("/bin/bash", "-ec")).command == ("/bin/bash", "-ec", "x")
    assert HealthCheck(test=("NONE",)).over(image).command == ()
    assert HealthCheck().with_defaults() == HealthCheck(interval_ns=30 * S, timeout_ns=30 * S, start_interval_ns=5 * S, retries=3)


def test_health_turns_by_dockers_rules_and_keeps_five_results():
    def results(health: Health, *codes: int, counts: bool = True) -> Health:
        for code in codes:
            health = health.after({"ExitCode": code}, retries=3, counts=counts)
        return health

    assert results(Health(), 1, 1) == Health("starting", 2, ({"ExitCode": 1},) * 2)
    assert results(Health(), 1, 1, 1).status == "unhealthy"
    assert results(Health(), 1, 1, 1, 1, counts=False) == Health("starting", 0, ({"ExitCode": 1},) * 4)
    healthy = results(Health(), 1, 0)
    assert (healthy.status, healthy.failing_streak) == ("healthy", 0)
    assert results(healthy, 1, 2, counts=False).status == "healthy"  # once healthy, failures count in the start period, too
    assert results(healthy, 1, -1, 2, counts=False).status == "unhealthy"
    assert results(healthy, 1, 1, 1, 0).status == "healthy"
    assert len(results(healthy, *[1] * 20).log) == 5


@pytest.mark.parametrize("text", ["0s", "1ns", "15µs", "300ms", "1.5s", "30s", "1m30s", "1h0m0s", "26h0m0.001s"])
def test_a_duration_is_written_as_go_writes_it(text: str):
    assert format_duration(parse_duration(text)) == text
