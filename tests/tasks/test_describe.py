"""Causes and statuses in words."""

from __future__ import annotations

import pytest

from mbpo_core.execution import Cause, CauseKind, StagePlan, StageRequest
from tasks.describe import describe_cause, describe_stage, describe_status

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Cause(kind=CauseKind.CONFIG, field="negatives.epsilon", old=8 / 255, new=16 / 255), "0.0313725 → 0.0627451"),
        (Cause(kind=CauseKind.MISSING, field="artifact", new=DIGEST), "MISSING, never made"),
        (Cause(kind=CauseKind.INPUT, field="inputs.samples", old=DIGEST, new="pending:" + DIGEST), "→ not made yet"),
        (Cause(kind=CauseKind.MODEL, field="policies.policy.digest", old=DIGEST, new="f" * 64), "0123456789ab → ffff"),
        (Cause(kind=CauseKind.FORCED, field="pairs"), "FORCED pairs"),
    ],
)
def test_a_cause_names_field_old_and_new(cause: Cause, words: str) -> None:
    assert words in describe_cause(cause)


def _plan(**changes: object) -> StagePlan:
    request = StageRequest(stage="pairs", key="pairs", config={}, inputs={}, policies={}, policy_config=None, seed=0)
    fields = {"stage": "pairs", "key": "pairs", "status": "runs", "digest": DIGEST, "identity": {}, "request": request}
    return StagePlan.model_validate(fields | changes)


def test_a_status_says_what_is_reused() -> None:
    assert describe_status(_plan(status="cached", seconds_saved=125.0)) == "cached (saves 2 min 5 s)"
    assert describe_status(_plan(status="resumes", parts_done=3)) == "resumes after 3 parts"
    assert describe_status(_plan()) == "runs"


def test_a_stage_before_it_ran_is_its_causes() -> None:
    text = describe_stage(_plan(causes=[Cause(kind=CauseKind.FORCED, field="pairs")]), None)
    assert text.splitlines() == ["### pairs: runs", "", "- because FORCED pairs"]
