"""What each section counts, against counts made by hand."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mbpo_core import records
from mbpo_core.reports.changes import changes_section
from mbpo_core.reports.curves import curves_section
from mbpo_core.reports.funnel import funnel_section
from mbpo_core.reports.gallery import Traits, controls, object_of
from mbpo_core.reports.likelihoods import attack_curves, quantile
from mbpo_core.reports.lineage import lineage_section
from mbpo_core.reports.mined import cut_off, pairs_section
from mbpo_core.reports.negatives import negatives_section
from mbpo_core.reports.results import results_section
from mbpo_core.reports.rollouts import entropies, rollouts_section
from mbpo_core.reports.sources import in_pipeline_order, named_of, rounds_of, same_words, spread
from tests.reports.fake_run import MemoryReader, fake_run, mined, reader


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


def test_attack_is_told_by_what_mining_counted(run: dict[str, Any]) -> None:
    """The page counts no flips of its own: rows alone would leave out the samples that gave no negative."""
    negatives = changed(run["negatives"], logprob_clean=[-1.0], logprob_attacked=[-3.0], logprob_rounded=[-2.0])
    negatives.tables["part"] = negatives.tables["part"][:1]
    counts = {
        "attacked": 1600, "kept": 1, "clean_correct": 1000, "flipped_unrounded": 800, "flips_kept_by_rounding": 720,
        "flipped": 750, "to_prior": 75, "to_other": 600, "to_nonsense": 60, "to_refusal": 15, "prior_told": 150,
        "to_blind": 300,
    }  # fmt: skip
    negatives.files = {"mining.json": {"all": counts, "by_kind": {"numeric": counts}}}
    section = negatives_section([(0, negatives)])
    assert section is not None
    assert (section.title, section.rounds) == ("What the attack did", [])
    assert [value for fact in section.facts for value in fact.values] == [
        "1,000 of 1,600 (62.5 %)",
        "800 of 1,000 (80.0 %)",
        "720 of 800 (90.0 %)",
        "750 of 1,000 (75.0 %)",
        "75 of 750 (10.0 %)",
        "600 of 750 (80.0 %)",
        "60 of 750 (8.0 %)",
        "15 of 750 (2.0 %)",
        "75 of 150 (50.0 %)",
        "300 of 750 (40.0 %)",
        "1 of 1 (100.0 %)",
        "−1.00 → −3.00 → −2.00",
        "16/255",
    ]
    assert section.by_kind == [["numeric", "1,600", "1,000 of 1,600 (62.5 %)", "750 of 1,000 (75.0 %)"]]
    assert section.method == "adversarial; norm linf, epsilon 16/255, steps 10, random_start"
    older = {name: value for name, value in counts.items() if not name.startswith(("to_", "prior", "flips_"))}
    negatives.files = {"mining.json": {"all": older, "by_kind": {}}}
    told = negatives_section([(0, negatives)])
    assert told is not None
    assert [fact.what for fact in told.facts][:3] == [
        "Right on the clean image", "of these, flipped by the attack", "Flipped on the saved image",
    ]  # fmt: skip


def test_every_attacked_sample_counts_whatever_became_of_it() -> None:
    """30 samples, 25 negatives, 5 that stayed right and 3 more that were dropped for length: 33 attacked."""
    rows = [records.Negative.model_validate(row) for row in fake_run(30)["negatives"].rows()]
    section = negatives_section([(0, mined("negatives", rows, {"same_answer": 5, "length": 3}))])
    assert section is not None
    assert section.facts[0].values[0].split(" of ")[1].startswith(f"{len(rows) + 8} (")


def test_attack_curves_are_quantiles_over_negatives() -> None:
    """At step 0: 0, -1, -2; the second ended after one step and keeps -4; at the end -3, -4, -6."""

    def row(end: float, *curve: float, target: str = "none") -> dict[str, Any]:
        return {"attack": json.dumps({"target": target, "curve": curve}), "logprob_attacked": end}

    rows = [row(-3, 0, -1), row(-4, -1), row(-6, -2, -5), row(9, 7, 8, target="blind_answer"), {"attack": "{}"}]
    curves = attack_curves(rows, targeted=False)
    assert curves == [[0, -1, -3], [-1, -4], [-2, -5, -6]]
    assert quantile(curves, 0.5) == [(0, -1.0), (1, -4.0), (2, -4.0)]
    assert quantile(curves, 0.25)[2] == (2, -5.0)
    assert attack_curves(rows, targeted=True) == [[7, 8]]


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
    section = pairs_section([(0, run["pairs"])], [(0, run["negatives"])], 6)
    assert section is not None
    scored = [row["sample_id"] for row in run["pairs"].rows("scored")]
    kept = [row["sample_id"] for row in run["pairs"].rows()]
    shown = [card.sample_id for card in section.cards]
    assert shown == [name for name in scored if name in shown]  # in the order of the data
    assert [card.sample_id for card in section.cards if not card.dropped] == [kept[i] for i in (0, 3, 7, 11)]
    assert (len(shown), section.shown, section.total, section.scored) == (6, 4, 15, 25)
    assert {card.dropped for card in section.cards} <= {
        "", "outside the share kept by gain", "the image adds too little to the chosen answer",
    }  # fmt: skip
    first, negative = section.cards[0], next(iter(run["negatives"].rows()))
    assert first.blind_answer == negative["blind_answer"]
    assert [caption for caption, _ in first.pictures] == ["clean", "adversarial", "difference ×16"]
    assert all(picture is not None for _, picture in first.pictures)
    assert first.gain_chosen == next(run["pairs"].rows())["gain_chosen"]
    assert first.traits.numbers["lead"] == pytest.approx(first.gain_chosen - (first.gain_rejected or 0))


def test_flip_of_a_pair_is_one_of_four(run: dict[str, Any]) -> None:
    negatives = changed(
        run["negatives"],
        clean_correct=[True, True, True, False],
        flipped=[True, False, False, False],
        flipped_unrounded=[True, True, False, False],
    )
    section = pairs_section([(0, run["pairs"])], [(0, negatives)], 500)
    assert section is not None
    told = {card.sample_id: card.flip for card in section.cards}
    first = [row["sample_id"] for row in negatives.rows()][:4]
    assert [told[name] for name in first] == ["flipped", "undone by rounding", "stayed right", "wrong before"]


def test_gains_have_a_chart_a_kind_with_its_cut_off(run: dict[str, Any]) -> None:
    section = pairs_section([(0, run["pairs"])], [], 0)
    assert section is not None
    kinds = sorted({row["question_kind"] for row in run["pairs"].rows("scored")})
    titles = [chart.title for chart in section.gains]
    assert titles[0] == "Gain of the pairs that were kept (15)"
    assert [title.split(":")[0] for title in titles[1:]] == [f"Gain of chosen, {k.replace('_', ' ')}" for k in kinds]
    counts = [title.rpartition(": ")[2].split(" of ") for title in titles[1:]]
    assert sum(int(kept) for kept, _ in counts) == 15
    assert sum(int(total.split()[0]) for _, total in counts) == 25
    by_kind = {kind: [r["gain_chosen"] for r in run["pairs"].rows() if r["question_kind"] == kind] for kind in kinds}
    kind = next(kind for kind in kinds if by_kind[kind])
    assert section.gains[1 + kinds.index(kind)].note == f"cut-off {min(by_kind[kind]):.2f}, dashed"


def test_cut_off_is_the_least_gain_kept_only_where_gain_ranks() -> None:
    top = {"select": "top", "share": 0.5, "min_gain": 0.1}
    assert cut_off([0.4, 0.3], top) == 0.3
    assert cut_off([0.4, 0.3], top | {"share": 1.0}) == 0.1
    assert cut_off([0.4, 0.3], top | {"select": "random"}) == 0.1
    assert cut_off([], top) is None


def test_controls_offer_what_tells_cards_apart() -> None:
    def card(kind: str, gain: float | None) -> Any:
        return SimpleNamespace(traits=Traits({"kind": kind, "round": "1"}, {"gain": gain, "reward": None}))

    form = controls(
        [card("b", 1.0), card("a", None), card("b", 2.0)],
        {"kind": "kind", "round": "round"},
        {"gain": "gain", "reward": "reward"},
        least=("reward", "reward at least"),
    )
    assert [(one.name, one.options) for one in form.filters] == [("kind", [("a", 1), ("b", 2)])]
    assert form.sorts == [("gain", "gain")]
    assert form.least is None
    assert object_of({"objects": ["frog", "dog"]}) == "frog"
    assert object_of({"objects": ["frog"], "subject": "dog"}) == "dog"
    assert object_of({"objects": 3, "subject": {}}) == ""


def test_rounds_follow_each_other_on_one_axis(run: dict[str, Any]) -> None:
    def steps(first: int, index: int) -> MemoryReader:
        rows = [row | {"step": first + i} for i, row in enumerate(run["training/0"].tables["part"][:3])]
        return replace(run[f"training/{index}"], tables={"part": rows})

    for second in (0, 3):  # a round may count its steps on, or from the start again
        section = curves_section({"training/0": steps(0, 0), "training/1": steps(second, 1)})
        assert section is not None
        assert section.lines == [("MBPO", "6 optimizer steps, 48 pairs and 48 online groups, 5,400 tokens")]
        assert section.starts == [3]
        assert 'class="s-mark"' in section.charts[1].svg
        assert ">5<" in section.charts[1].svg


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


def test_entropy_is_minus_the_mean_logprob_of_sampled_tokens(run: dict[str, Any]) -> None:
    """Tokens -1, -2, -3 of one round: 2 nats a token. Nothing sampled has none."""
    group = run["rollouts/0"].tables["part"][0]
    completions = [
        completion | {"logprobs": some}
        for completion, some in zip(group["completions"], ([-1.0], [-2.0, -3.0], []), strict=False)
    ]
    told = replace(run["rollouts/0"], tables={"part": [group | {"completions": completions}]})
    none = replace(told, tables={"part": [group | {"completions": []}]})
    assert entropies([(0, told), (1, none)]) == [2.0, None]
    section = curves_section(run)
    assert section is not None
    assert "Entropy of rollouts" in [chart.title for chart in section.charts]


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
    assert (section.sources[1].device, section.sources[1].seconds) == ("cpu", 1.0)
    assert section.total == (len(run), len(run), 0.0)
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
