"""Parts of the pool's set-up that need no server."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flows.service.automations import BEATS, PREFECT_HEARTBEAT_S, heartbeat_s, safe_window
from flows.service.pool import parse_nodes, pool_environment
from mbpo_core.errors import ConfigError


def test_nodes_are_names_and_devices() -> None:
    assert parse_nodes(["gpu-1=8", "a=b=0"]) == {"gpu-1": 8, "a=b": 0}


def test_this_node_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBPO_NODE", "here")
    monkeypatch.setenv("MBPO_DEVICES", "fake:0,fake:1")
    assert parse_nodes([]) == {"here": 2}


def test_every_wrong_node_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'gpu-1', '=8', 'gpu-2=many', 'gpu-3=-1' is not a node"):
        parse_nodes(["gpu-1", "=8", "gpu-2=many", "gpu-3=-1", "fine=1"])


def test_the_window_follows_the_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three beats of silence happen to healthy runs."""
    assert BEATS > 3
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "60")
    assert heartbeat_s() == 60
    assert pool_environment()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "60"
    assert safe_window(60) == timedelta(seconds=240)
    monkeypatch.delenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY")
    assert safe_window(heartbeat_s()) < safe_window(PREFECT_HEARTBEAT_S)


def test_results_are_json_on_every_machine() -> None:
    assert pool_environment()["PREFECT_RESULTS_DEFAULT_SERIALIZER"] == "json"
