"""The summary's shape, its paired differences, seeds, and how it is printed."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import pytest
from rich.console import Console

from mbpo_core.errors import DataError
from mbpo_core.evaluation.intervals import wilson_interval
from mbpo_core.evaluation.summary import combine_summaries, count_rows, in_order, summarize, summary_for, summary_of
from mbpo_core.evaluation.table import summary_markdown, summary_table
from tests.evaluation.rows import caption, prediction


def policy_rows(label: str, right: set[int], total: int = 20) -> list[dict[str, Any]]:
    return [
        prediction(number, "correct" if number in right else "wrong", policy=label, probe="prior_conflict")
        for number in range(total)
    ]


def two_policies() -> list[dict[str, Any]]:
    return policy_rows("base", {0, 1, 2}) + policy_rows("trained", {1, 2, 3, 4, 5, 6, 7, 8})


def test_values_intervals_and_paired_difference() -> None:
    summary = summarize(two_policies(), confidence=0.9)
    base = summary["policies"]["base"]["prior_conflict_accuracy"]
    low, high = wilson_interval(3, 20, 0.9)
    assert base == {"value": 0.15, "low": low, "high": high, "n": 20}
    difference = summary["differences"]["trained"]["prior_conflict_accuracy"]
    assert difference["value"] == pytest.approx(0.25)
    assert difference["low"] <= 0.25 <= difference["high"]
    assert difference["p"] == pytest.approx(2 * (1 + 7) / 2**7)
    assert difference["n"] == 20
    assert list(summary["differences"]) == ["trained"]


def test_equal_answers_do_not_prove_equal_policies() -> None:
    summary = summarize(policy_rows("base", {0, 1}) + policy_rows("trained", {0, 1}))
    entry = summary["differences"]["trained"]["prior_conflict_accuracy"]
    bound = wilson_interval(0, 20)[1]
    assert entry == {"value": 0.0, "low": -bound, "high": bound, "n": 20, "p": 1.0}
    all_gained = summarize(policy_rows("base", set()) + policy_rows("trained", set(range(20))))
    entry = all_gained["differences"]["trained"]["prior_conflict_accuracy"]
    assert (entry["value"], entry["low"], entry["high"]) == (1.0, 1 - bound, 1.0)


def test_order_of_rows_does_not_matter_within_a_policy() -> None:
    rows = policy_rows("base", {0, 1}) + policy_rows("trained", {5})
    shuffled = random.Random(0).sample(rows[:20], 20) + random.Random(1).sample(rows[20:], 20)
    assert summarize(shuffled) == summarize(rows)


def test_ratio_metric_difference_resamples_questions_of_both_policies_together() -> None:
    """The same captions twice: the difference is zero on every draw, though chair_i itself varies."""
    scenes = [({"dog": "red"}, "A dog and a cat."), ({"car": "red"}, "A car."), ({"bell": "red"}, "A key, a boot.")] * 5
    rows = [
        caption(number, text, scene, policy=label)
        for label in ("base", "trained")
        for number, (scene, text) in enumerate(scenes)
    ]
    summary = summarize(rows)
    entry = summary["policies"]["base"]["chair_i"]
    assert entry["value"] == pytest.approx(3 / 5)
    assert entry["n"] == 15
    assert entry["low"] < 0.6 < entry["high"]
    assert summary["differences"]["trained"]["chair_i"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 15}


def test_stored_summary_is_shown_in_its_own_order() -> None:
    rows = two_policies() + policy_rows("dpo", {4})
    rows += [caption(99, "A dog.", {"dog": "red"}, policy=label) for label in ("base", "trained", "dpo")]
    summary = summarize(rows)
    stored = json.loads(json.dumps(summary, sort_keys=True))
    assert list(stored["policies"]) == ["base", "dpo", "trained"]
    restored = in_order(stored)
    assert list(restored["policies"]) == ["base", "trained", "dpo"]
    assert list(restored["differences"]) == ["trained", "dpo"]
    assert list(restored["metrics"]) == list(summary["metrics"]) == list(restored["policies"]["base"])
    assert restored == stored == summary
    assert summary_markdown(stored, full=True) == summary_markdown(summary, full=True)
    assert printed(stored) == printed(summary)
    combined = json.loads(json.dumps(combine_summaries([stored, summary]), sort_keys=True))
    assert list(in_order(combined)["policies"]) == ["base", "trained", "dpo"]


def test_summary_for_has_exactly_the_promised_keys() -> None:
    rows = two_policies() + policy_rows("sft", {4})
    view = summary_for(summarize(rows))
    assert list(view) == ["base", "trained", "difference"]
    for entries in view.values():
        assert {"value", "low", "high", "n"} == set(entries["prior_conflict_accuracy"])
    assert summary_for(summarize(rows), trained="sft")["difference"]["accuracy"]["value"] == pytest.approx(-0.1)


@pytest.mark.parametrize(("base", "trained"), [("base", "dpo"), ("trained", "base"), ("sft", "trained")])
def test_summary_for_refuses_comparisons_that_were_not_made(base: str, trained: str) -> None:
    with pytest.raises(DataError, match="no comparison"):
        summary_for(summarize(two_policies()), base, trained)


def test_policies_must_have_answered_the_same_questions() -> None:
    with pytest.raises(DataError, match="different questions"):
        summarize(two_policies()[:-1])
    with pytest.raises(DataError, match="no question was answered"):
        summarize([])


def test_seeds_are_averaged_with_a_t_interval() -> None:
    """Differences 0.25, 0.35, 0.15: mean 0.25, half-width 4.3027 x 0.1 / sqrt(3)."""
    summaries = [summarize(policy_rows("base", {0}) + policy_rows("trained", set(range(right)))) for right in (6, 8, 4)]
    combined = combine_summaries(summaries)
    entry = combined["differences"]["trained"]["prior_conflict_accuracy"]
    assert entry == {
        "value": pytest.approx(0.25),
        "low": pytest.approx(0.0016, abs=1e-4),
        "high": pytest.approx(0.4984, abs=1e-4),
        "n": 3,
    }
    assert summary_for(combined)["base"]["accuracy"]["value"] == pytest.approx(0.05)
    assert "3 seeds" in summary_markdown(combined)


def test_a_runs_share_of_pooled_counts_is_what_the_run_counts_alone() -> None:
    runs = [[], []]
    for run, rows in enumerate(runs):
        for label, right in (("base", {0, run}), ("trained", {1, 2, 3 + run})):
            rows += policy_rows(label, right, total=12 + run)
            rows += [caption(90, "a dog and a cat", {"dog": "red", **({"cup": "red"} if run else {})}, policy=label)]
            rows += [
                prediction(100 + number, verdict, policy=label, meta={"twin": f"pair {number // 2}"})
                for number, verdict in enumerate(["correct", "correct", "wrong", "correct"])
            ]
    counts = count_rows(runs)
    for run, rows in enumerate(runs):
        part = in_order(json.loads(json.dumps(summary_of(counts.only(run), seed=run))))
        alone = in_order(json.loads(json.dumps(summarize(rows, seed=run))))
        assert part == alone
        assert {"chair_i", "twin_pair_accuracy", "prior_conflict_accuracy"} <= set(part["metrics"])
        assert part["about"]["questions"] == len(rows) // 2


def test_seeds_need_the_same_policies() -> None:
    one = summarize(policy_rows("base", {0}))
    with pytest.raises(DataError, match="cannot average"):
        combine_summaries([one])
    with pytest.raises(DataError, match="cannot average"):
        combine_summaries([one, summarize(two_policies())])


def test_metrics_missing_or_null_in_a_seed_are_left_out() -> None:
    empty = summarize([caption(0, "Nothing.", {"dog": "red"})])
    named = summarize([caption(0, "A dog.", {"dog": "red"})])
    combined = combine_summaries([empty, named])["policies"]["base"]
    assert "chair_i" not in combined
    assert combined["caption_recall"]["value"] == 0.5


def printed(summary: dict[str, Any], **options: Any) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(summary_table(summary, **options))
    return console.file.getvalue()


def test_table_shows_policies_as_columns_and_the_last_difference() -> None:
    text = printed(summarize(two_policies()))
    assert "15.0 [5.2, 36.0]" in text
    assert "+25.0 [" in text
    assert "MBPO − base" in text
    assert "accuracy of" not in text


def test_full_table_has_groups_and_survives_markup_in_probe_names() -> None:
    rows = [prediction(0, probe="[red]x")]
    assert "[red]x" in printed(summarize(rows), full=True)
    assert "–" in printed(summarize([caption(0, "Nothing.", {"dog": "red"})]), full=True)


def test_markdown_has_a_row_a_metric_and_escapes_bars() -> None:
    summary = summarize([prediction(0, probe="a|b")])
    text = summary_markdown(summary, full=True)
    assert "A\\|b" in text
    header, rule, *_ = text.splitlines()
    assert header == "| metric | base |"
    assert rule == "|---|---:|"
