"""The gate: who is promoted, who is not, and why; what is written down; what a crash leaves."""

from __future__ import annotations

import uuid
from typing import Any
from zlib import crc32

import pytest

from mbpo_core.errors import ConfigError, StoreError
from mbpo_core.evaluation.metrics import metrics_for
from mbpo_core.explain import explain
from mbpo_core.promotion import check_metrics, compare, decide
from mbpo_core.stage import PolicyRef
from mbpo_core.store import Store
from mbpo_core.store.gc import collect
from mbpo_core.store.lineage import stale
from mbpo_core.store.promotions import Decision, decisions, promoted, publish, record
from tests.promotion.making import answers, checkpoint, config, evaluate


@pytest.fixture
def store() -> Store:
    return Store(f"memory://{uuid.uuid4().hex}")


def offer(store: Store, name: str, rows: list[dict[str, Any]], *metrics: str, **more: Any) -> Decision | None:
    """A checkpoint comes with its answers, and the gate does what it does."""
    policy = checkpoint(store, name)
    decision = decide(
        store, config(*metrics, **more), evaluate(store, policy, rows, seed=crc32(repr(rows).encode())), policy
    )
    if decision is not None:
        record(store, "r", decision)
        publish(store, "r")
    return decision


def pointers(store: Store) -> dict[str, str]:
    return {key: ref.content for key, ref in store.run("r").pointers().items()}


def test_the_first_evaluation_promotes(store: Store) -> None:
    decision = offer(store, "a", answers(50, 50))
    assert decision
    assert (decision.promotes, decision.reason, decision.against) == (True, "nothing was promoted before", None)
    assert [entry.candidate for entry in decision.comparisons] == [0.5]
    assert pointers(store) == {
        "promoted": decision.candidate.content,
        "promoted/evaluation": decision.evaluation.content,
    }


def test_significantly_worse_is_refused_and_the_old_one_stays(store: Store) -> None:
    first = offer(store, "a", answers(90, 10))
    before = pointers(store)
    decision = offer(store, "b", answers(60, 40))
    assert first
    assert decision
    assert (decision.promotes, decision.reason) == (False, "significantly worse in accuracy")
    assert decision.against == first.candidate
    (entry,) = decision.comparisons
    assert entry.difference == pytest.approx(-0.3)
    assert entry.p == pytest.approx(2 / 2**30), "30 questions lost and none won"
    assert entry.low is not None
    assert entry.high is not None
    assert entry.low < -0.3 < entry.high < 0
    assert pointers(store) == before
    assert promoted(store, "r") == first


@pytest.mark.parametrize("right", [87, 90, 97], ids=["a little worse", "as good", "better"])
def test_not_significantly_worse_takes_the_place(store: Store, right: int) -> None:
    offer(store, "a", answers(90, 10))
    decision = offer(store, "b", answers(right, 100 - right))
    assert decision
    assert decision.promotes
    assert pointers(store)["promoted"] == decision.candidate.content


def test_the_comparison_is_paired(store: Store) -> None:
    """Six lost and one won of 100: told apart by pairing, and not without it."""
    old = answers(90, 10)
    new = answers(84, 6) + answers(1, 9, first=90)
    decision = offer(store, "a", old) and offer(store, "b", new, promotion={"metrics": ["accuracy"], "confidence": 0.9})
    assert decision
    assert decision.reason == "significantly worse in accuracy"
    half_width_unpaired = 1.64 * (0.9 * 0.1 / 100 + 0.85 * 0.15 / 100) ** 0.5
    assert half_width_unpaired > 0.05


def test_lower_is_better_where_the_metric_says_so(store: Store) -> None:
    said = {"blind_text": "green", "blind_verdict": "wrong"}  # every wrong answer is the blind one
    other = said | {"blind_text": "red"}
    offer(store, "a", answers(50, 50, **other), "wrong_like_blind")
    decision = offer(store, "b", answers(50, 50, **said), "wrong_like_blind")
    assert decision
    assert decision.reason == "significantly worse in wrong_like_blind"
    back = compare(
        answers(50, 50, **other), answers(50, 50, **said), ["wrong_like_blind"], confidence=0.95, bootstrap=200, seed=0
    )
    assert [(entry.better, entry.verdict) for entry in back] == [("lower", "passes")]


def test_one_metric_is_enough_to_refuse(store: Store) -> None:
    probes = [answers(40, 10, probe="neutral"), answers(40, 10, first=50, probe="prior_conflict")]
    offer(store, "a", [*probes[0], *probes[1]], "neutral_accuracy", "prior_conflict_accuracy")
    worse = answers(10, 40, first=50, probe="prior_conflict")
    decision = offer(store, "b", [*probes[0], *worse], "neutral_accuracy", "prior_conflict_accuracy")
    assert decision
    assert [entry.verdict for entry in decision.comparisons] == ["passes", "worse"]
    assert not decision.promotes


def test_only_questions_that_both_answered_count(store: Store) -> None:
    """The new questions are hard, and the old ones are answered as before."""
    offer(store, "a", answers(90, 10))
    decision = offer(store, "b", [*answers(90, 10), *answers(0, 300, first=100)])
    assert decision
    assert (decision.promotes, decision.questions) == (True, 100)
    # The same id with another answer asked for is another question.
    changed = offer(store, "c", answers(90, 10, answer="blue"))
    assert changed
    assert (changed.promotes, changed.questions) == (False, 0)
    assert "only 0 of the 400 questions" in changed.reason


def test_too_few_common_questions_are_refused(store: Store) -> None:
    offer(store, "a", answers(90, 10))
    few = offer(store, "b", [*answers(90, 0)[:49], *answers(60, 0, first=200)])
    assert few
    assert "only 49 of the 100 questions" in few.reason
    enough = offer(store, "c", [*answers(90, 0)[:50], *answers(60, 0, first=200)])
    assert enough
    assert enough.promotes


def test_a_metric_without_a_number_is_refused(store: Store) -> None:
    decision = offer(store, "a", answers(90, 10), "accuracy", "chair_i")
    assert decision
    assert (decision.promotes, decision.reason) == (False, "the evaluation has no number for chair_i")
    assert [entry.verdict for entry in decision.comparisons] == ["passes", "unknown"]


def test_nothing_to_decide(store: Store) -> None:
    policy = checkpoint(store, "a")
    evaluation = evaluate(store, policy, answers(9, 1))
    assert decide(store, config(promotion={"metrics": []}), evaluation, policy) is None
    assert decide(store, config(), evaluation, checkpoint(store, "trained since")) is None, "not evaluated yet"
    assert decide(store, config(), evaluation, PolicyRef(folder="base", digest="base")) is None, "no checkpoint"
    assert offer(store, "a", answers(9, 1)) is not None
    assert offer(store, "a", answers(9, 1)) is None, "this evaluation is the promoted one"
    assert len(decisions(store, "r")) == 1


def test_the_promoted_checkpoint_on_other_questions_brings_its_evaluation_up_to_date(store: Store) -> None:
    offer(store, "a", answers(90, 10))
    decision = offer(store, "a", answers(50, 50, first=500))
    assert decision
    assert (decision.promotes, decision.reason) == (True, "the promoted checkpoint, evaluated anew")
    assert pointers(store)["promoted/evaluation"] == decision.evaluation.content
    again = offer(store, "b", answers(50, 50, first=500))
    assert again
    assert (again.promotes, again.questions) == (True, 100)


def test_a_refusal_that_stands_is_written_down_once(store: Store) -> None:
    offer(store, "a", answers(90, 10))
    for _ in range(3):
        offer(store, "b", answers(60, 40))
    assert [told.promotes for told in decisions(store, "r")] == [True, False]


def test_a_process_that_died_before_the_pointers_moved(store: Store) -> None:
    policy = checkpoint(store, "a")
    evaluation = evaluate(store, policy, answers(9, 1))
    decision = decide(store, config(), evaluation, policy)
    assert decision
    record(store, "r", decision)
    assert pointers(store) == {}
    assert decide(store, config(), evaluation, policy) is None
    publish(store, "r")
    assert pointers(store) == {"promoted": policy.artifact and policy.artifact.content} | {
        "promoted/evaluation": evaluation.content
    }


def test_a_promoted_checkpoint_that_is_gone_stops_nothing(store: Store) -> None:
    first = offer(store, "a", answers(90, 10))
    assert first
    store.files.remove(store.base("training", first.candidate.digest))
    decision = offer(store, "b", answers(60, 40))
    assert decision
    assert decision.reason == "nothing was promoted before"


def test_an_unreadable_promoted_evaluation_refuses(store: Store) -> None:
    first = offer(store, "a", answers(90, 10))
    assert first
    store.files.remove(store.base("evaluation", first.evaluation.digest))
    decision = offer(store, "b", answers(90, 10))
    assert decision
    assert not decision.promotes
    assert "the promoted evaluation cannot be read" in decision.reason


def test_damaged_decisions_are_named(store: Store) -> None:
    offer(store, "a", answers(9, 1))
    store.files.write("promotions/r.json", b"{")
    with pytest.raises(StoreError, match=r"promotions/r\.json"):
        decisions(store, "r")


def test_what_is_promoted_is_kept_and_never_stale(store: Store) -> None:
    offer(store, "a", answers(90, 10))
    refused = offer(store, "b", answers(60, 40))
    assert refused
    store.run("r").point("training/0", refused.candidate)
    store.run("r").point("evaluation", refused.evaluation)
    assert collect(store, unused_age_s=0) == []
    assert stale(store, "r") == []
    store.run("r").point("training/0", checkpoint(store, "newer").artifact)  # type: ignore[arg-type]
    assert {entry.key: entry.because for entry in stale(store, "r")} == {"evaluation": ["training/0"]}
    told = explain(store, "r")
    assert [plan.key for plan in told.plans] == ["training/0", "evaluation"]


def test_metrics_are_known_before_anything_runs() -> None:
    check_metrics(metric.name for metric in metrics_for([("yes_no", "neutral")]) if metric.better)
    check_metrics(["my_probe_accuracy", "accuracy_multiple_choice", "chair_i"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("acuracy", ["acuracy (unknown; like it: accuracy"]),
        ("prior_conflikt_accuracy", ["like it: prior_conflict_accuracy"]),
        ("chair", ["like it: chair_"]),
        ("loss", ["loss (unknown)"]),
        ("_accuracy", ["unknown"]),
        ("caption_words", ["neither way is better"]),
        ("existence_yes_ratio", ["neither way is better"]),
    ],
)
def test_unknown_metrics_are_refused_with_near_ones(name: str, words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"promotion\.metrics") as refused:
        check_metrics(["accuracy", name])
    for word in words:
        assert word in str(refused.value)
