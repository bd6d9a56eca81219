"""What cannot be is refused before anything is loaded, all of it at once, with the remedy."""

from __future__ import annotations

import json
import urllib.error
from typing import Any

import pytest

from tests.service.conftest import Service


def _message(service: Service, deployment: str, **parameters: Any) -> str:
    """Of the failed state; no task was ever started."""
    run_id = service.start_run(deployment, **parameters)
    run = service.wait_for(run_id, "FAILED", timeout_s=120)
    assert service.ask("/task_runs/filter", flow_runs={"id": {"any_": [run_id]}}) == []
    return str(run["state"]["message"])


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"settings": {"share": 7}}, "share"),
        ({"settings": {"shares": 0.5}}, "shares"),
        ({"run": "No Such Name!"}, "run"),
        ({"mode": "again"}, "mode"),
    ],
    ids=["bounds", "key", "name", "choice"],
)
def test_forms_refuse_at_submission(service: Service, parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        service.start_run("pairs/manual", **parameters)
    assert refused.value.code == 409
    assert named in json.loads(refused.value.read())["detail"]


def test_the_flow_lists_every_problem_before_it_loads_anything(service: Service) -> None:
    changes = ["samples.limit=3", "pairs.share=7"]
    message = _message(service, "pairs/manual", run="nowhere", upstream="0123456789", changes=changes)
    for problem in ("run 'nowhere' is not known", "samples.limit=3", "pairs.share", "0123456789"):
        assert problem in message
    assert "Check the name and the store" in message


def test_a_parameter_that_no_form_has(service: Service) -> None:
    """Only the API can send one. Prefect lets it pass at submission and refuses it when it would call the flow."""
    run_id = service.start_run("pairs/manual", nonsense=1)
    service.wait_for(run_id, "CRASHED", timeout_s=120)
    (refusal,) = [line for line in service.logs(run_id) if "SignatureMismatchError" in line]
    assert "provided with parameters ['nonsense']" in refusal
