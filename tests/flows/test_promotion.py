"""A refusal under Prefect: an event that automations can forward, a note on the flow run, and a run that ends well."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mbpo_core.store import Store
from tasks.promotion import REFUSED, promote
from tasks.run import Run
from tests.promotion.making import answers, checkpoint, config, evaluate


def _events(name: str) -> list[Any]:
    """Events of a name, once the server has written one down."""
    from prefect.client.orchestration import get_client
    from prefect.events.filters import EventFilter, EventNameFilter

    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:
            found = client.read_events(EventFilter(event=EventNameFilter(name=[name])), limit=50).events
            if found or time.monotonic() > deadline:
                return list(found)
            time.sleep(0.1)


def test_a_refusal_is_an_event_and_a_note_and_no_failure(prefect: None, tmp_path: Path) -> None:
    from prefect import flow
    from prefect.artifacts import Artifact

    store = Store(tmp_path / "runs")
    run = Run(config(), store)

    @flow
    def nightly() -> None:
        for name, right in (("good", 90), ("bad", 50)):
            policy = checkpoint(store, name)
            promote(run, evaluate(store, policy, answers(right, 100 - right), seed=right), policy)

    state = nightly(return_state=True)
    assert state.is_completed()
    note = Artifact.get("mbpo-promotion")
    assert note
    assert "not promoted" in str(note.data)
    assert "significantly worse in accuracy" in str(note.data)
    (event,) = _events(REFUSED)
    assert event.resource.id == "mbpo.run.r"
    assert (event.payload["metric"], event.payload["run"]) == ("accuracy", "r")
    low, high = event.payload["interval"]
    assert low < event.payload["difference"] < high < 0
    assert "prefect.flow-run" in str(event.related), "so that an automation can name the flow run"
