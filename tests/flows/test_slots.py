"""Prefect's side of the accelerators: who takes a slot, and what is said where the limit is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mbpo_core.config import PipelineConfig
from mbpo_core.errors import ConfigError
from mbpo_core.planning import StagePlan
from mbpo_core.stages import STAGES
from mbpo_core.store import Store
from tasks.run import Run, expect
from tasks.slots import device_slots
from tests.flows import fakes

LIMIT = "gpu:testing"


@pytest.fixture
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect: None) -> dict[str, StagePlan]:
    """Plans of a run on a node with two fake accelerators, by run pointer; a server is named."""
    from prefect.settings import PREFECT_API_URL

    from flows.pipeline import follow_method

    fakes.install(monkeypatch)
    for name, value in (("MBPO_NODE", "testing"), ("MBPO_DEVICES", "fake:0,fake:1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MBPO_NODE_FOLDER", str(tmp_path / "node"))
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    config = PipelineConfig.model_validate({"method": "mbpo", "rounds": 1, "launch": {"processes": 2}})
    dry = Run(config, Store(tmp_path / "runs"), perform=expect)
    follow_method(dry)
    return {plan.key: plan for plan in dry.plans}


@pytest.fixture
def client(prefect: None) -> Iterator[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def limit(client: Any) -> Iterator[None]:
    """What `mbpo pool create` makes for this node."""
    client.upsert_global_concurrency_limit_by_name(LIMIT, 2)
    yield
    client.delete_global_concurrency_limit_by_name(LIMIT)


def test_a_missing_limit_names_the_command_that_makes_it(plans: dict[str, StagePlan]) -> None:
    with (
        pytest.raises(ConfigError, match=r"limit gpu:testing .*mbpo pool create"),
        device_slots(STAGES["negatives"], plans["negatives"], print),
    ):
        pytest.fail("there is no slot to be had")


def test_a_stage_with_a_model_holds_a_slot_a_process(plans: dict[str, StagePlan], limit: None, client: Any) -> None:
    told: list[str] = []
    with device_slots(STAGES["negatives"], plans["negatives"], told.append):
        assert told == ["negatives: takes 2 of Prefect's limit gpu:testing, once that many are free"]
        assert client.read_global_concurrency_limit_by_name(LIMIT).active_slots == 2
    assert client.read_global_concurrency_limit_by_name(LIMIT).active_slots == 0


def test_what_needs_no_device_takes_no_slot(plans: dict[str, StagePlan], monkeypatch: pytest.MonkeyPatch) -> None:
    """No limit is known here, so that taking a slot would be an error."""
    plan = plans["negatives"]
    with device_slots(STAGES["samples"], plans["samples"], pytest.fail):
        pass
    with device_slots(STAGES["negatives"], plan.model_copy(update={"ref": plan.expected()}), pytest.fail):
        pass  # cached
    on_cpu = plan.request.model_copy(update={"policy_config": (plan.request.policy_config or {}) | {"device": "cpu"}})
    with device_slots(STAGES["negatives"], plan.model_copy(update={"request": on_cpu}), pytest.fail):
        pass
    monkeypatch.delenv("PREFECT_API_URL")
    with device_slots(STAGES["negatives"], plan, pytest.fail):
        pass  # nobody watches an embedded server
