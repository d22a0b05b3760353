"""What Docker's documents say of restarts, health checks and the log becomes a container's supervision."""

from typing import Any

from lamina.model.supervision import HealthCheck, Supervision
from lamina.store.docker_config import DockerConfig, container_config


def read(config: dict[str, Any] | None = None, host: dict[str, Any] | None = None) -> DockerConfig:
    return container_config(
        {"Config": {"Image": "x", "Cmd": ["y"], **(config or {})}}, {"NetworkMode": "none", **(host or {})}, networks=["none"]
    )


def test_what_asks_nothing_is_nothing():
    usual = {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "LogConfig": {"Type": "json-file", "Config": {}}}
    assert read(host=usual).config.supervision is None
    assert read({"Healthcheck": {"Test": ["NONE"]}}).config.supervision is None


def test_policy_health_check_and_log_are_taken_over():
    found = read(
        {"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5, "Retries": 2}, "Shell": ["/bin/bash", "-c"]},
        {
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        },
    )
    health = HealthCheck(test=("CMD-SHELL", "true"), interval_ns=5, retries=2, shell=("/bin/bash", "-c"))
    asked = Supervision(restart="on-failure", restart_most=3, health=health, log_options={"max-size": "1m"})
    assert found.config.supervision == asked
    assert found.lost == ()


def test_a_log_that_is_kept_in_another_way_is_said():
    found = read(host={"LogConfig": {"Type": "syslog", "Config": {"tag": "x"}}, "RestartPolicy": {"Name": "always"}})
    assert found.config.supervision == Supervision(restart="always")
    assert "syslog" in found.lost[0]
