"""Every metric on hand-made counts."""

from __future__ import annotations

from typing import Any

import pytest

from mbpo_core.evaluation.existence import official_answer
from mbpo_core.evaluation.summary import summarize
from tests.evaluation.rows import caption, existence, prediction


def values(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {name: entry["value"] for name, entry in summarize(rows)["policies"]["base"].items()}


def test_pope_vector_of_the_recipe() -> None:
    """TP 40, FP 10, TN 35, FN 15."""
    rows = existence(
        [
            (40, "Yes, there is a dog.", "Yes, there is a dog.", "correct"),
            (10, "No, there is no dog.", "Yes", "wrong"),
            (35, "No", "No, there is no dog.", "correct"),
            (15, "Yes", "no", "wrong"),
        ]
    )
    found = values(rows)
    expected = {"accuracy": 0.75, "precision": 0.8, "recall": 0.727273, "f1": 0.761905, "yes_ratio": 0.5}
    for prefix in ("existence", "existence_random", "pope", "pope_random"):
        for measure, value in expected.items():
            assert found[f"{prefix}_{measure}"] == pytest.approx(value, abs=1e-6)
        assert found[f"{prefix}_specificity"] == pytest.approx(35 / 45)
    assert found["existence_unparsed"] == 0
    assert "pope_unparsed" not in found
    assert "existence_popular_accuracy" not in found


def test_unreadable_answers_are_wrong_strictly_and_yes_officially() -> None:
    """8 objects there (4 right, 2 unreadable, 2 denied), 4 not there (1 right, 3 unreadable)."""
    rows = existence(
        [
            (4, "Yes", "Yes", "correct"),
            (2, "Yes", "A dog?", "unparsed"),
            (2, "Yes", "No", "wrong"),
            (1, "No", "No", "correct"),
            (3, "No", "Perhaps", "unparsed"),
        ]
    )
    found = values(rows)
    strict = {
        "accuracy": 5 / 12, "precision": 1.0, "recall": 0.5, "f1": 8 / 12, "yes_ratio": 4 / 12, "specificity": 0.25,
        "unparsed": 5 / 12,
    }  # fmt: skip
    official = {"accuracy": 7 / 12, "precision": 6 / 9, "recall": 0.75, "f1": 12 / 17, "yes_ratio": 9 / 12}
    assert {name: found[f"existence_{name}"] for name in strict} == pytest.approx(strict)
    assert {name: found[f"pope_{name}"] for name in official} == pytest.approx(official)


def test_sets_are_apart_and_pooled() -> None:
    right, wrong = (1, "Yes", "Yes", "correct"), (3, "Yes", "No", "wrong")
    rows = existence([right], "random") + existence([wrong], "adversarial")
    for number, row in enumerate(rows):
        row["sample_id"] = str(number)
    found = values(rows)
    assert found["existence_random_accuracy"] == 1
    assert found["existence_adversarial_accuracy"] == 0
    assert found["existence_accuracy"] == 0.25


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No, there is none.", "no"),
        ("It is not there. Yes", "no"),
        ("Yes. No dog", "yes"),
        ("Nothing", "yes"),
        ("NO", "yes"),
    ],
)
def test_official_parser_as_published(text: str, expected: str) -> None:
    assert official_answer(text) == expected


def test_chair_counts_mentions_and_coverage() -> None:
    """Mentions 2 + 3 + 0, two of them not there; shown 2 + 1 + 1, found 2 + 1 + 0; colours said of right objects: 3."""
    rows = [
        caption(0, "The image shows a green dog and a red car.", {"dog": "green", "car": "blue"}),
        caption(1, "A yellow banana, a cat, and a cat", {"banana": "yellow"}),
        caption(2, "Nothing much.", {"bell": "red"}),
    ]
    found = values(rows)
    assert found["chair_i"] == pytest.approx(2 / 5)
    assert found["chair_s"] == pytest.approx(1 / 3)
    assert found["caption_recall"] == pytest.approx(3 / 4)
    assert found["caption_wrong_color"] == pytest.approx(1 / 3)
    assert found["caption_words"] == pytest.approx((10 + 8 + 2) / 3)


def test_chair_without_an_object_named_has_no_value() -> None:
    entry = summarize([caption(0, "Nothing.", {"dog": "red"})])["policies"]["base"]["chair_i"]
    assert entry == {"value": None, "low": None, "high": None, "n": 0}


def test_prior_probes_and_share_that_says_the_prior() -> None:
    rows = [
        prediction(0, "correct", probe="prior_conflict", meta={"says_prior": False}),
        prediction(1, "wrong", probe="prior_conflict", meta={"says_prior": True}),
        prediction(2, "wrong", probe="prior_conflict", meta={"says_prior": True}),
        prediction(3, "unparsed", probe="prior_conflict", meta={"says_prior": False}),
        prediction(4, "correct", probe="prior_conflict_seen", meta={"says_prior": False}),
        prediction(5, "correct", probe="prior_consistent", meta={"says_prior": True}),
        prediction(6, "wrong", probe="neutral"),
    ]
    found = values(rows)
    assert found["prior_conflict_accuracy"] == 0.25
    assert found["prior_conflict_says_prior"] == 0.5
    assert found["prior_conflict_seen_accuracy"] == 1
    assert found["prior_conflict_seen_says_prior"] == 0
    assert found["prior_consistent_accuracy"] == 1
    assert found["neutral_accuracy"] == 0
    assert found["accuracy"] == pytest.approx(3 / 7)


def test_blind_gap_over_closed_questions() -> None:
    """Right with the image 3 of 4, blind 1 of 4; (3/4 - 1/4) / (1 - 1/4) = 2/3. The wrong one equals the blind one."""
    rows = [
        prediction(0, "correct", blind_text="red", blind_verdict="wrong"),
        prediction(1, "correct", blind_text="red", blind_verdict="unparsed"),
        prediction(2, "correct", blind_text="green", blind_verdict="correct"),
        prediction(3, "wrong", text="It is red.", blind_text="it is red", blind_verdict="wrong"),
        caption(4, "A dog.", {"dog": "red"}),
    ]
    found = values(rows)
    assert found["blind_gap"] == pytest.approx(0.5)
    assert found["blind_gap_normalised"] == pytest.approx(2 / 3)
    assert found["blind_accuracy"] == pytest.approx(0.25)
    assert found["wrong_like_blind"] == 1
    assert found["accuracy"] == pytest.approx(0.75)


def test_data_without_probes_gets_accuracy_overall_and_by_kind_only() -> None:
    rows = [
        prediction(0, "correct", probe="yes_no", question_kind="yes_no", answer="yes", meta={}),
        prediction(1, "wrong", probe="numeric", question_kind="numeric", meta={}),
        prediction(2, "correct", probe="numeric", question_kind="numeric", meta={}),
        prediction(3, "wrong", probe="open", question_kind="open", meta={}),
    ]
    found = values(rows)
    assert found == pytest.approx(
        {"accuracy": 2 / 3, "accuracy_yes_no": 1.0, "accuracy_numeric": 0.5, "accuracy_open": 0.0}
    )


def test_open_questions_alone_still_have_an_accuracy() -> None:
    rows = [prediction(0, "correct", probe="open", question_kind="open")]
    assert values(rows) == {"accuracy": 1.0, "accuracy_open": 1.0}


def test_other_probes_are_listed_by_name_and_never_replace_a_metric() -> None:
    rows = [
        prediction(0, "correct", probe="count"),
        prediction(1, "wrong", probe="neutral"),
        prediction(2, probe="[b]"),
    ]
    found = values(rows)
    assert found["count_accuracy"] == 1
    assert found["neutral_accuracy"] == 0
    assert found["[b]_accuracy"] == 1


@pytest.mark.parametrize("meta", ["[]", "null", "nonsense", "{}"])
def test_meta_of_any_form_is_read(meta: str) -> None:
    row = prediction(0) | {"meta": meta}
    assert values([row])["accuracy"] == 1
