"""Runs that are pooled: values over all questions, the t-interval beside them, other baselines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mbpo_core.errors import DataError
from mbpo_core.evaluation.intervals import mean_interval
from mbpo_core.evaluation.summary import count_rows, in_order, summarize, summary_of
from mbpo_core.evaluation.table import summary_markdown
from tests.evaluation.rows import pooled, prediction


def run(**right: int) -> list[dict[str, Any]]:
    """Ten questions; each policy has the first so many right."""
    return [
        prediction(number, "correct" if number < count else "wrong", policy=label)
        for label, count in right.items()
        for number in range(10)
    ]


def test_values_are_of_all_questions_and_seeds_stand_beside() -> None:
    seeds = [run(base=2, sft=4, trained=6), run(base=3, sft=4, trained=9), run(base=1, sft=5, trained=6)]
    summary = pooled(seeds, bootstrap=300)
    base, gained = (
        summary[part][label]["neutral_accuracy"] for part, label in (("policies", "base"), ("differences", "trained"))
    )
    assert (base["value"], base["n"]) == (0.2, 30)
    assert gained["value"] == pytest.approx(0.5)
    assert (gained["seed_mean"], gained["seed_low"], gained["seed_high"]) == pytest.approx(
        mean_interval([0.4, 0.6, 0.5])
    )
    assert gained["low"] < 0.5 < gained["high"]
    assert summary["about"]["pooled"] == 3
    assert summary["about"]["questions"] == 30
    assert "30 questions of 3 seeds" in summary_markdown(json.loads(json.dumps(summary, sort_keys=True)))


def test_differences_may_be_taken_to_another_policy() -> None:
    counts = count_rows([run(base=2, sft=4, trained=6), run(base=2, sft=4, trained=7)])
    summary = summary_of(counts, baseline="sft", bootstrap=100)
    assert summary["about"]["base"] == "sft"
    assert list(in_order(summary)["differences"]) == ["base", "trained"]
    assert summary["differences"]["trained"]["neutral_accuracy"]["value"] == pytest.approx(0.25)
    assert summary["differences"]["base"]["neutral_accuracy"]["value"] == pytest.approx(-0.2)
    with pytest.raises(DataError, match="no policy is called 'dpo'"):
        summary_of(counts, baseline="dpo")


def test_one_seed_is_the_ordinary_summary() -> None:
    rows = run(base=2, trained=6)
    assert pooled([iter(rows)], bootstrap=100, clusters=("object",)) == summarize(
        rows, bootstrap=100, clusters=("object",)
    )


def test_the_same_questions_of_two_seeds_are_two_questions_of_one_scene() -> None:
    """Both seeds gain on the same question only: certain by seed, not by scene."""
    rows = [run(base=0, trained=1), run(base=0, trained=1)]
    entry = pooled(rows, bootstrap=500)["differences"]["trained"]["neutral_accuracy"]
    assert entry["value"] == pytest.approx(0.1)
    assert entry["low"] == 0
    assert (entry["seed_low"], entry["seed_high"]) == (pytest.approx(0.1), pytest.approx(0.1))


def test_seeds_must_have_the_same_policies() -> None:
    with pytest.raises(DataError, match="different questions"):
        pooled([run(base=1, trained=2), run(base=1)], bootstrap=100)
