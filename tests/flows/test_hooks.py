"""When a flow ends badly: devices are freed, an event says so, and the state is truthful even after a kill."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import hooks
from mbpo_core.config import PipelineConfig
from tests.flows import fakes


def test_every_hook_takes_what_prefect_gives_by_name() -> None:
    for hook in (hooks.free_devices, hooks.tell_failure):
        assert list(inspect.signature(hook).parameters) == ["flow", "flow_run", "state"]
        assert getattr(hooks, hook.__name__) is hook
    assert hooks.free_devices in hooks.SERVICE["on_cancellation"]
    assert hooks.free_devices in hooks.SERVICE["on_crashed"]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"run": "demo"}, "demo"),
        ({"config": {"run": "night"}, "base": ""}, "night"),
        ({"config": PipelineConfig(run="night")}, "night"),
        ({"config": {"run": "default"}, "base": "smoke"}, "smoke"),
        ({"config": {}, "base": "nowhere"}, "default"),
        ({}, "default"),
    ],
)
def test_the_run_is_named_as_far_as_the_parameters_say(parameters: dict[str, Any], name: str) -> None:
    assert hooks.run_name(parameters) == name


def test_a_failed_run_emits_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect: None) -> None:
    from flows.pairs import pairs

    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr("prefect.events.emit_event", lambda *args, **more: told.append((*args, more)))
    fakes.install(monkeypatch)
    monkeypatch.setenv("MBPO_STORE", str(tmp_path / "runs"))
    state = pairs(run="nobody", return_state=True)
    assert state.is_failed()
    ((event, resource, more),) = told
    assert event == "mbpo.run.failed"
    assert resource["prefect.resource.id"] == "mbpo.run.nobody"
    assert "run 'nobody' is not known" in more["payload"]["message"]
    assert more["related"][0]["prefect.resource.id"] == f"prefect.flow-run.{state.state_details.flow_run_id}"


def test_nobody_hearing_of_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.states import Failed

    def deaf(*args: Any, **more: Any) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr("prefect.events.emit_event", deaf)
    flow_run: Any = SimpleNamespace(id="1", name="x", parameters={"run": "demo"})
    flow: Any = SimpleNamespace(name="pairs")
    hooks.tell_failure(flow, flow_run, Failed(message="it broke"))


def test_an_orphaned_flow_run_is_reported_as_crashed(prefect: None) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.states import Completed, Running

    @flow
    def running() -> None:
        """Stands for a flow whose worker is killed."""

    with get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(running, state=Running())
        hooks._report_crash(flow_run.id)
        state = client.read_flow_run(flow_run.id).state
        done = client.create_flow_run(running, state=Completed())
        hooks._report_crash(done.id)
        kept = client.read_flow_run(done.id).state
    assert state is not None
    assert state.is_crashed()
    assert "worker that ran this ended" in str(state.message)
    assert kept is not None
    assert kept.is_completed()


def test_a_process_that_a_worker_started_ends_with_it(tmp_path: Path) -> None:
    """The parent here is a shell that is killed; the flow's process follows although it only sleeps."""
    script = tmp_path / "flow.py"
    script.write_text(
        "import os, sys, time\n"
        "from flows import hooks\n"
        "hooks._report_crash = lambda flow_run_id: open(sys.argv[1], 'w').write(str(flow_run_id))\n"
        "hooks.follow_worker()\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(600)\n",
        encoding="utf-8",
    )
    told, identity = tmp_path / "told", "0f0b7a3c-54e1-4c8b-8a55-0b5d3a1c9d11"
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": identity, "PYTHONPATH": os.getcwd()}
    worker = subprocess.Popen(
        ["sh", "-c", f"{sys.executable} {script} {told} & wait"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    child = int(worker.stdout.readline())
    worker.kill()
    worker.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}/stat").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline, "the flow's process outlived its worker"
        time.sleep(0.1)
    assert told.read_text(encoding="utf-8") == identity
