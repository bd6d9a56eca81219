"""What each section counts, against counts made by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from mbpo_core import records
from mbpo_core.reports.changes import changes_section
from mbpo_core.reports.curves import curves_section
from mbpo_core.reports.funnel import funnel_section
from mbpo_core.reports.lineage import lineage_section
from mbpo_core.reports.mined import pairs_section
from mbpo_core.reports.negatives import negatives_section
from mbpo_core.reports.results import results_section
from mbpo_core.reports.rollouts import rollouts_section
from mbpo_core.reports.sources import in_pipeline_order, named_of, rounds_of, same_words, spread
from tests.reports.fake_run import MemoryReader, fake_run, reader


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    return fake_run(30)


def changed(source: MemoryReader, **columns: Any) -> MemoryReader:
    """The same reader with the given columns of its first rows replaced; a list gives one value a row."""
    count = max(len(values) for values in columns.values())
    rows = [
        row | {name: values[number] for name, values in columns.items()}
        for number, row in enumerate(source.tables["part"][:count])
    ]
    return replace(source, tables={**source.tables, "part": rows})


def test_attack_counts_only_answers_that_were_right(run: dict[str, Any]) -> None:
    """5 negatives, 4 right; 3 flipped before rounding, 2 of them after; and 2 samples that never flipped."""
    negatives = changed(
        run["negatives"],
        clean_correct=[True, True, True, True, False],
        flipped_unrounded=[True, True, True, False, False],
        flipped=[True, True, False, False, False],
        attacked_answer=["Blue.", "red", "x", "x", "x"],
        blind_answer=["blue", "x", "x", "x", "x"],
        chosen=["green", "green", "x", "x", "x"],
        meta=['{"prior_answer": "blue"}', '{"prior_answer": "green"}', "{}", "{}", "{}"],
        question_kind=["short_text"] * 3 + ["numeric"] * 2,
        logprob_clean=[-1.0] * 5,
        logprob_attacked=[-3.0] * 5,
        logprob_rounded=[-2.0] * 5,
    )
    negatives.manifest = negatives.manifest.model_copy(update={"dropped": {"same_answer": 2}})
    letters = [{"reason": "same_answer", "row": '{"kind": "numeric"}'}] * 2 + [{"reason": "length", "row": "{}"}]
    negatives.tables["dropped"] = letters
    section = negatives_section([(0, negatives)])
    assert section is not None
    assert (section.title, section.rounds) == ("What the attack did", [])
    assert [value for fact in section.facts for value in fact.values] == [
        "6 of 7 (85.7 %)",
        "3 of 6 (50.0 %)",
        "2 of 3 (66.7 %)",
        "2 of 6 (33.3 %)",
        "2",  # stayed right
        "1 of 2 (50.0 %)",  # blind
        "1 of 1 (100.0 %)",  # prior, where it is not the truth
        "5 of 5 (100.0 %)",
        "−1.00 → −3.00 → −2.00",
        "16/255",
    ]
    assert section.by_kind == [
        ["numeric", "4", "3 of 4 (75.0 %)", "0 of 3 (0.0 %)"],
        ["short text", "3", "3 of 3 (100.0 %)", "2 of 3 (66.7 %)"],
    ]
    assert section.method == "adversarial; norm linf, epsilon 16/255, steps 10, random_start"


def test_funnel_names_every_reason(run: dict[str, Any]) -> None:
    section = funnel_section(run)
    assert section is not None
    counts = {step.name: step.count for step in section.steps}
    assert counts["offline samples"] == 30
    assert counts["negatives"] == 25
    assert counts["pairs"] == 15
    assert section.steps[-1].dropped[0][:1] == ("outside_share",)
    assert [count for *_, count in section.steps[-1].dropped] == [6, 4]
    assert [step.share for step in section.steps] == [None, 1.0, 25 / 30, 0.5]
    assert section.setting.startswith("Uniform setting")
    told = [row for row in run["samples"].rows() if row["split"] in ("offline", "online")]
    conflicts = sum('"conflict": true' in row["meta"] for row in told)
    assert section.conflict.startswith(f"{conflicts} of ")


def test_each_setting_has_its_sentence() -> None:
    natural = fake_run(6, setting="natural")
    section = funnel_section({"samples": natural["samples"]})
    assert section is not None
    assert section.setting.startswith("Natural setting")
    own = reader("samples", {"part": []}, config={"source": "jsonl"})
    section = funnel_section({"samples": own})
    assert section is not None
    assert section.setting.startswith("The numbers hold for these data")
    assert section.conflict == ""
    assert funnel_section({}) is None


def test_pairs_carry_pictures_gains_and_what_the_policy_said(run: dict[str, Any]) -> None:
    section = pairs_section([(0, run["pairs"])], [(0, run["negatives"])], 4)
    assert section is not None
    rows = list(run["pairs"].rows())
    assert [card.sample_id for card in section.cards] == [rows[i]["sample_id"] for i in (0, 3, 7, 11)]
    first, negative = section.cards[0], next(iter(run["negatives"].rows()))
    assert first.blind_answer == negative["blind_answer"]
    assert [caption for caption, _ in first.pictures] == ["clean", "adversarial", "difference ×7"]
    assert all(shown is not None for _, shown in first.pictures)
    assert first.gain_chosen == rows[0]["gain_chosen"]
    assert [chart.title for chart in section.gains] == ["Pairs that were kept (15)", "All pairs that were scored (25)"]


def test_rounds_follow_each_other_on_one_axis(run: dict[str, Any]) -> None:
    def steps(first: int, index: int) -> MemoryReader:
        rows = [row | {"step": first + i} for i, row in enumerate(run["training/0"].tables["part"][:3])]
        return replace(run[f"training/{index}"], tables={"part": rows})

    for second in (0, 3):  # a round may count its steps on, or from the start again
        section = curves_section({"training/0": steps(0, 0), "training/1": steps(second, 1)})
        assert section is not None
        assert section.lines == [("MBPO", "6 optimizer steps, 48 pairs and 48 online groups, 5,400 tokens")]
        assert section.starts == [3]
        assert 'class="mark"' in section.charts[1].svg
        assert 'text-anchor="middle">5<' in section.charts[1].svg


def test_baselines_are_drawn_over_the_method_or_alone(run: dict[str, Any]) -> None:
    section = curves_section(run)
    assert section is not None
    kl = next(chart for chart in section.charts if chart.title.startswith("KL"))
    assert [name for _, name in kl.legend] == ["MBPO", "DPO"]  # SFT scores no reference
    assert {"Loss of MBPO", "Loss of SFT", "Loss of DPO"} <= {chart.title for chart in section.charts}
    alone = curves_section({"training/sft": run["training/sft"]})
    assert alone is not None
    assert [chart.title for chart in alone.charts] == ["Gradient norm", "Loss of SFT"]
    assert curves_section({}) is None


def test_fired_stop_rule_is_told(run: dict[str, Any]) -> None:
    stopped = changed(run["training/0"], stopped=[False, False, True])
    section = curves_section({"training/0": stopped})
    assert section is not None
    assert section.lines[0][1].endswith("the stop rule fired at step 2")


def test_rollouts_show_mixed_groups_first_but_not_only(run: dict[str, Any]) -> None:
    section = rollouts_section(run, 8)
    assert section is not None
    assert [line.round_index for line in section.rounds] == [0, 1]
    assert [card.round_index for card in section.cards] == [0] * 4 + [1] * 4
    assert sum(card.zero_variance for card in section.cards) == 2
    groups = list(run["rollouts/0"].rows())
    mixed = sum(not group["zero_variance"] for group in groups)
    assert section.rounds[0].mixed.startswith(f"{mixed} of {len(groups)} (")
    assert all(sum(attempt.times for attempt in card.attempts) == 8 for card in section.cards)


def test_changes_are_paired_by_question_and_counted_both_ways() -> None:
    verdicts = {"base": ["wrong", "correct", "correct", "wrong"], "trained": ["correct", "correct", "wrong", "wrong"]}
    rows = [
        records.Prediction(
            policy=label, sample_id=f"q{number}", images=[], question="?", answer="a", question_kind="short_text",
            probe="neutral", text=verdict, extracted=None, verdict=verdict,  # type: ignore[arg-type]
            blind_text=None, blind_verdict=None,
        )
        for label, column in verdicts.items()
        for number, verdict in enumerate(column)
    ]  # fmt: skip
    section = changes_section(reader("evaluation", {"part": rows}), 10)
    assert section is not None
    assert section.by_probe == [("neutral", 4, 1, 1)]
    assert [(card.sample_id, card.before[1], card.after[1]) for card in section.cards] == [
        ("q0", "wrong", "correct"),
        ("q2", "correct", "wrong"),
    ]
    assert changes_section(reader("evaluation", {"part": rows[:4]}), 10) is None
    assert changes_section(None, 10) is None


def test_results_tell_a_loss_beyond_its_interval(run: dict[str, Any]) -> None:
    summary = copy.deepcopy(run["evaluation"].json("summary.json"))
    change = summary["differences"]["trained"]
    change["neutral_accuracy"] = {
        "value": -0.2,
        "low": -0.3,
        "high": -0.1,
        "n": 30,
        "p": 1e-4,
    }
    section = results_section(reader("evaluation", {}, files={"summary.json": summary}))
    assert section is not None
    assert "colour without a prior (−20.0 points)" in section.sentences[1]
    row = next(row for row in section.rows if row.name == "neutral_accuracy")
    assert (row.differences[0].tone, row.differences[0].value) == ("bad", "−20.0")
    assert row.differences[0].title == "n = 30, McNemar p = 0.0001"
    assert [title for _, title in section.policies] == ["base", "SFT", "DPO", "MBPO"]


def test_lower_is_better_where_it_is(run: dict[str, Any]) -> None:
    summary = copy.deepcopy(run["evaluation"].json("summary.json"))
    summary["differences"]["trained"]["chair_i"] = {"value": -0.2, "low": -0.3, "high": -0.1, "n": 30}
    section = results_section(reader("evaluation", {}, files={"summary.json": summary}))
    assert section is not None
    row = next(row for row in section.rows if row.name == "chair_i")
    assert (row.differences[0].tone, row.arrow) == ("good", "↓")


def test_lineage_has_a_line_an_artifact_and_nothing_that_changes_between_equal_runs(run: dict[str, Any]) -> None:
    section = lineage_section(run)
    assert [source.key for source in section.sources] == list(run)
    assert section.sources[0].seed == "0"
    assert ("torch", "2.13.0") in section.libraries
    assert "someone@somewhere" not in str(section)
    assert "2026-01-01" not in str(section)


def test_helpers() -> None:
    assert spread(10, 3) == [0, 3, 6]
    assert spread(2, 5) == [0, 1]
    assert spread(5, 0) == []
    assert same_words("The frog  is Green.", "the frog is green")
    assert not same_words("green", None)
    first, second, bare = (reader(key, {}) for key in ("training/10", "training/2", "training/sft"))
    inputs = {"training/10": first, "training/2": second, "training/sft": bare}
    assert [index for index, _ in rounds_of(inputs, "training")] == [2, 10]
    assert list(named_of(inputs, "training")) == ["sft"]
    keys = ("negatives/1", "negatives/images/1", "negatives/0", "negatives/images/0")
    assert [reader.manifest.key for _, reader in rounds_of({key: reader(key, {}) for key in keys}, "negatives")] == [
        "negatives/0",
        "negatives/1",
    ]


@pytest.mark.parametrize(
    "keys",
    [
        ["samples", "negatives", "pairs", "negatives/images", "rollouts/0", "training/0", "rollouts/1", "training/1",
         "training/sft", "training/dpo", "evaluation"],
        ["samples", "negatives/0", "pairs/0", "negatives/images/0", "rollouts/0", "training/0", "negatives/1",
         "pairs/1", "negatives/images/1", "rollouts/1", "training/1", "evaluation"],
    ],
)  # fmt: skip
def test_inputs_are_shown_as_a_run_makes_them(run: dict[str, Any], keys: list[str]) -> None:
    assert list(in_pipeline_order(dict.fromkeys(sorted(keys), run["samples"]))) == keys
    other = dict.fromkeys(("zzz", "training", "rollouts", "samples"), run["samples"])
    assert list(in_pipeline_order(other)) == ["samples", "rollouts", "training", "zzz"]
