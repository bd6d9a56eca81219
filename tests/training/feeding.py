"""Stand-ins for the stages upstream of training: they write true rows without mining or sampling."""

from __future__ import annotations

from typing import Any

from mbpo_core import records
from mbpo_core.config import Section
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.models.policy import load_policy
from mbpo_core.models.resolve import resolve_model
from mbpo_core.stage import StageContext, StageSpec
from tests.training.rows import DIGEST, POLICY, pair_rows, rollout_rows


class CountConfig(Section):
    """How many rows to write."""

    count: int = 4


def write_pairs(context: StageContext) -> None:
    """The first pairs of the demo pool."""
    _write(context, [_pair(row) for row in pair_rows(_samples(), context.config.count)])


def write_rollouts(context: StageContext) -> None:
    """Groups of canned answers, one of equal rewards."""
    policy = load_policy(resolve_model(POLICY), POLICY)
    rows = rollout_rows(policy, _samples()[::-1], context.config.count, flat=1)
    _write(context, [_rollout(row) for row in rows])


PAIRS = StageSpec(
    name="pairs", version=1, config=CountConfig, entry=f"{__name__}:write_pairs", record=records.PreferencePair
)
ROLLOUTS = StageSpec(
    name="rollouts", version=1, config=CountConfig, entry=f"{__name__}:write_rollouts", record=records.RolloutGroup
)


def _samples() -> list[records.Sample]:
    none: dict[str, Any] = {"online": 0, "eval_probe": 0, "eval_small_probe": 0, "dev_probe": 0, "dev_small_probe": 0}
    samples = demo_samples(setting="uniform", seed=7, counts=DemoCounts(offline=24, **none))
    return [sample for sample in samples if sample.split == "offline"]


def _write(context: StageContext, rows: list[dict[str, Any]]) -> None:
    for part in context.output.parts(len(rows), len(rows)):
        part.finish(rows[part.start : part.stop])


def _pair(row: dict[str, Any]) -> dict[str, Any]:
    numbers = ("gain_chosen", "gain_rejected", "logprob_chosen", "logprob_rejected")
    return {
        **row,
        "rejected_images": row["images"],
        "question_kind": "open",
        "negative_kind": "adversarial",
        "blind": "mask",
        "token_gains_chosen": [],
        "token_gains_rejected": [],
        **dict.fromkeys((*numbers, "blind_logprob_chosen", "blind_logprob_rejected"), 0.0),
    }


def _rollout(row: dict[str, Any]) -> dict[str, Any]:
    verdict = {
        "text": "",
        "finish_reason": "stop",
        "extracted": None,
        "verdict": "correct",
        "reason": "",
        "accuracy_reward": 1.0,
        "format_reward": 0.2,
    }
    rewards = {completion["reward"] for completion in row["completions"]}
    return {
        **row,
        "completions": [{**verdict, **completion} for completion in row["completions"]],
        "answer": "",
        "question_kind": "short_text",
        "answer_form": "word",
        "choices": [],
        "policy_digest": DIGEST,
        "round_index": 0,
        "verifier": "short_text@1",
        "zero_variance": len(rewards) == 1,
    }
