"""The options of `run` and `create` about restarts, health checks, the log, and how their texts become a `Supervision`.

Its values are imported where an option asks for them: a container of which nothing is asked pays for nothing.
"""

from typing import TYPE_CHECKING, Any

import click

from lamina.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from lamina.model.supervision import HealthCheck, Supervision

SUPERVISION_OPTIONS: tuple[Any, ...] = (
    click.option("--restart", default=None, metavar="POLICY", help="Run again: always, unless-stopped, on-failure[:N].  [no]"),
    click.option("--health-cmd", default=None, metavar="COMMAND", help="A command for the shell that says whether it is well."),
    click.option("--health-interval", default=None, metavar="DURATION", help="The time between two checks.  [30s]"),
    click.option("--health-timeout", default=None, metavar="DURATION", help="How long a check may take.  [30s]"),
    click.option("--health-retries", type=int, default=None, metavar="NUMBER", help="So many failures make it unhealthy.  [3]"),
    click.option("--health-start-period", default=None, metavar="DURATION", help="How long failures don't count.  [0s]"),
    click.option("--health-start-interval", default=None, metavar="DURATION", help="The time between checks until then.  [5s]"),
    click.option("--no-healthcheck", is_flag=True, help="Leave the image's health check out."),
    click.option("--log-driver", default=None, metavar="NAME", help="json-file, or none.  [json-file]"),
    click.option("--log-opt", "log_options", multiple=True, metavar="NAME=VALUE", help="max-size=10m, max-file=3.  [no limit]"),
)  # fmt: skip


def read_supervision(options: dict[str, Any], *, auto_remove: bool = False) -> "Supervision | None":
    """Take this module's options out of all; give what they ask for, None for nothing. Raises `UsageError`."""
    restart: str | None = options.pop("restart", None)
    health = _read_health(options)
    log_driver: str | None = options.pop("log_driver", None)
    log_options = dict(_read_log_option(text) for text in options.pop("log_options", ()))
    if restart is None and health is None and log_driver is None and not log_options:
        return None
    from lamina.model.supervision import Supervision, parse_restart

    policy, most = parse_restart(restart or "no")
    if auto_remove and policy != "no":
        raise ConflictError("--restart and --rm contradict each other", hint="leave one of them out")
    return Supervision(restart=policy, restart_most=most, health=health, log_driver=log_driver or "", log_options=log_options)


def _read_health(options: dict[str, Any]) -> "HealthCheck | None":
    names = ("cmd", "interval", "timeout", "retries", "start_period", "start_interval")
    asked = {name: options.pop(f"health_{name}", None) for name in names}
    asked = {name: value for name, value in asked.items() if value is not None}
    if options.pop("no_healthcheck", False):
        if asked:
            raise ConflictError("--no-healthcheck and the options --health-… contradict each other")
        from lamina.model.supervision import HealthCheck

        return HealthCheck(test=("NONE",))
    if not asked:
        return None
    from lamina.model.durations import parse_duration
    from lamina.model.supervision import HealthCheck

    if asked.get("retries", 0) < 0:
        raise UsageError("--health-retries can't be negative")
    times: dict[str, Any] = {}
    for name in ("interval", "timeout", "start_period", "start_interval"):
        times[f"{name}_ns"] = time_ns = parse_duration(asked.get(name, "0"))
        if time_ns < 0 or 0 < time_ns < 10**6:
            raise UsageError(f"--health-{name.replace('_', '-')} is '{asked[name]}'", hint="give 1ms or more, or 0 for the default")
    test = ("CMD-SHELL", asked["cmd"]) if asked.get("cmd") else ()
    return HealthCheck(test=test, retries=asked.get("retries", 0))._replace(**times)


def _read_log_option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"invalid log option '{text}'", hint="write NAME=VALUE, as in max-size=10m")
    return name, value
