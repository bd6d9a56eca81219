"""Causes and statuses in words."""

from __future__ import annotations

import pytest

from mbpo_core.execution import Cause, CauseKind, StagePlan, StageRequest
from mbpo_core.stage import ArtifactRef
from mbpo_core.store.lineage import Stale
from tasks.describe import command_for, describe_cause, describe_plans, describe_stage, describe_stale, describe_status

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
    finished = ArtifactRef(stage="training", digest=DIGEST, content=DIGEST, uri="")
    text = describe_status(_plan(status="resumes", goes_on_from=finished, seconds_saved=125.0))
    assert text == "resumes from 0123456789ab (saves 2 min 5 s)"
    assert describe_status(_plan()) == "runs"


def test_a_stage_before_it_ran_is_its_causes() -> None:
    text = describe_stage(_plan(causes=[Cause(kind=CauseKind.FORCED, field="pairs")]), None)
    assert text.splitlines() == ["### pairs: runs", "", "- because FORCED pairs"]


def test_a_plan_is_a_table_in_the_same_words() -> None:
    causes = [Cause(kind=CauseKind.CONFIG, field="report.title", old="a", new="b | c"), Cause(kind="FORCED", field="x")]
    text = describe_plans([_plan(causes=causes, warnings=["old *source*"])], "Run demo")
    assert text.splitlines() == [
        "### Run demo",
        "",
        "| stage | what happens | because |",
        "|---|---|---|",
        r"| pairs | runs | CONFIG report.title a → b \| c<br>FORCED x<br>note: old \*source\* |",
    ]


@pytest.mark.parametrize(
    ("key", "command"),
    [
        ("pairs", "mbpo pairs --run demo"),
        ("pairs/1", "mbpo pairs --run demo"),
        ("training/1", "mbpo training --run demo --round 1"),
        ("training/dpo", "mbpo training --run demo --baseline dpo"),
        ("rollouts/0", "mbpo rollouts --run demo --round 0"),
        ("negatives/images", "mbpo negatives --run demo --images"),
        ("negatives/images/1", "mbpo negatives --run demo --images"),
    ],
)
def test_each_pointer_has_the_command_that_makes_it(key: str, command: str) -> None:
    from typer.testing import CliRunner

    from flows.cli import app

    assert command_for(key, "demo") == command
    assert CliRunner().invoke(app, [*command.split()[1:], "--help"]).exit_code == 0


def test_what_is_stale_names_its_commands_in_order() -> None:
    text = describe_stale([Stale(key="training/0", because=["pairs"]), Stale(key="report", because=["pairs"])], "demo")
    assert "mbpo training --run demo --round 0\nmbpo report --run demo\n" in text
    assert describe_stale([], "demo") == "Nothing of the run is stale now."
