"""A/A: a policy against itself differs by nothing, and equal policies with noise of their own are rarely told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mbpo_core.config import EvaluationConfig
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.evaluation.answering import answer_questions, open_questions
from mbpo_core.evaluation.balance import Balance, choose_partners
from mbpo_core.evaluation.summary import Summary, summarize
from tests.evaluation.rows import caption, pooled, prediction

if TYPE_CHECKING:
    from mbpo_core.models.policy import Policy

TRIALS, QUESTIONS = 200, 80


def assert_nothing(summary: Summary) -> None:
    for label, entries in summary["differences"].items():
        for name, entry in entries.items():
            if entry["value"] is not None:
                assert (label, name, entry["value"]) == (label, name, 0.0)
                assert entry["low"] <= 0 <= entry["high"]
                assert entry.get("p", 1.0) == 1.0


def hand_made(policy: str) -> list[dict[str, Any]]:
    rows = [
        prediction(
            number, "correct" if number % 3 else "wrong", policy=policy, probe="prior_conflict", blind_text="red",
            blind_verdict="wrong", shuffled_verdict="wrong", noised_text="green", token_gains_gold=[0.1 * number],
            meta={"subject": f"thing {number % 4}", "scene_id": f"scene {number % 5}", "says_prior": number % 2 == 0},
        )
        for number in range(40)
    ]  # fmt: skip
    return rows + [caption(100 + number, "A dog and a key.", {"dog": "red"}, policy=policy) for number in range(6)]


def test_base_against_base_on_hand_made_rows() -> None:
    rows = hand_made("base") + hand_made("trained")
    assert_nothing(summarize(rows, bootstrap=100))
    assert_nothing(pooled([rows, rows, rows], bootstrap=100))


def test_base_against_base_on_answers_of_a_model(demo_policy: Policy) -> None:
    counts = DemoCounts(offline=0, online=0, dev_probe=0, dev_small_probe=0, eval_probe=1, eval_small_probe=1)
    samples = [row.model_dump() for row in demo_samples("uniform", 3, counts)]
    config = EvaluationConfig(max_new_tokens=24)
    balance = Balance(choose_partners(samples), {row["sample_id"]: row["images"] for row in samples})
    opened = open_questions(demo_policy, samples, config, balance)
    rows = [
        row
        for label in ("base", "again")
        for row in answer_questions(demo_policy, label, opened, config, keep_images=False)
    ]
    summary = summarize(rows, bootstrap=100)
    assert {"accuracy", "gain_gold", "noise_unchanged", "blind_gap"} <= set(summary["differences"]["again"])
    assert_nothing(summary)


@pytest.mark.parametrize("objects", [4, pytest.param(12, marks=pytest.mark.slow)])
def test_equal_policies_are_called_different_in_few_cases(objects: int) -> None:
    """Two policies right in 70 % of cases, each by its own luck; objects do not matter. Expected 5 %, allowed 10 %."""
    rng = np.random.default_rng(objects)
    called = 0
    for trial in range(TRIALS):
        right = rng.random((2, QUESTIONS)) < 0.7
        rows = [
            prediction(
                number,
                "correct" if right[policy, number] else "wrong",
                policy=str(policy),
                meta={"subject": f"thing {number % objects}"},
            )
            for policy in (0, 1)
            for number in range(QUESTIONS)
        ]
        entry = summarize(rows, bootstrap=200, seed=trial)["differences"]["1"]["neutral_accuracy"]
        called += not entry["low"] <= 0 <= entry["high"]
    assert 0.005 * TRIALS <= called <= 0.1 * TRIALS


def test_policies_that_differ_on_one_object_are_not_told_apart_by_its_many_questions() -> None:
    """All of the gain is one object's of four: by question it is certain, by object it is not."""
    rows = [
        prediction(n, "correct" if policy and n % 4 == 0 else "wrong", policy=str(policy), meta={"subject": str(n % 4)})
        for policy in (0, 1)
        for n in range(400)
    ]
    by_question = summarize(rows, bootstrap=500, clusters=())["differences"]["1"]["neutral_accuracy"]
    by_object = summarize(rows, bootstrap=500)["differences"]["1"]["neutral_accuracy"]
    assert by_question["low"] > 0.2
    assert by_object["low"] == 0
    assert by_question["value"] == by_object["value"] == 0.25
