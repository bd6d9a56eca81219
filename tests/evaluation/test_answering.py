"""Which questions are asked, how answers are judged, and what is dropped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mbpo_core.config import EvaluationConfig
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.errors import DataError
from mbpo_core.evaluation.answering import answer_questions, open_questions
from mbpo_core.evaluation.judging import judge
from mbpo_core.evaluation.questions import choose_questions, probe_of
from mbpo_core.models.images import open_image

if TYPE_CHECKING:
    from mbpo_core.models.policy import Policy

CONFIG = EvaluationConfig(max_new_tokens=24)


def sample(number: int, probe: str = "", **columns: Any) -> dict[str, Any]:
    meta = {"probe": probe} if probe else {}
    row = {
        "sample_id": f"s{number}", "images": [], "question": "?", "answer": "green", "kind": "short_text",
        "answer_form": "word", "choices": [], "split": "eval", "source": "test", "meta": json.dumps(meta),
    }  # fmt: skip
    return row | columns


def test_probe_is_the_kind_where_meta_names_none() -> None:
    assert probe_of(sample(0, "neutral")) == "neutral"
    assert probe_of(sample(0)) == "short_text"
    assert probe_of(sample(0, meta="[1]")) == "short_text"


def test_choice_is_by_id_and_not_by_order() -> None:
    rows = [sample(number, "a" if number % 3 else "b") for number in range(30)]
    chosen = choose_questions(rows, 4)
    ids = [row["sample_id"] for row in rows]
    assert len(chosen) == 8
    assert chosen != set(ids[: len(chosen)])
    assert choose_questions(rows[::-1], 4) == chosen
    assert choose_questions(iter(rows), 3) < chosen
    assert choose_questions(rows, 100) == set(ids)


@pytest.mark.parametrize(
    ("columns", "text", "verdict"),
    [
        ({}, "Green.", "correct"),
        ({}, "It is red.", "wrong"),
        ({"kind": "yes_no", "answer": "No"}, "maybe", "unparsed"),
        ({"kind": "counting", "answer": "1"}, "There is a dog.", "correct"),
        ({"kind": "box", "answer": "[0, 0, 4, 4]"}, "[0, 0, 4, 3]", "correct"),
        ({"kind": "math", "answer": "1/2"}, "\\boxed{0.5}", "correct"),
        ({"meta": '{"aliases": ["lime"]}'}, "It is lime.", "correct"),
        ({"kind": "open", "answer": "A green dog."}, "a green  dog", "correct"),
        ({"kind": "open", "answer": "A green dog."}, "A dog.", "wrong"),
    ],
)
def test_closed_kinds_by_verifier_and_open_ones_word_for_word(columns: dict[str, Any], text: str, verdict: str) -> None:
    assert judge(sample(0, **columns), text)[0] == verdict


def test_aliases_are_the_reference_answers_and_not_the_priors() -> None:
    row = sample(0, meta='{"aliases": ["lime"]}')
    assert judge(row, "lime", "yellow")[0] == "wrong"
    assert judge(row, "yellow", "yellow")[0] == "correct"


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    """One question of each eval probe."""
    counts = DemoCounts(offline=0, online=0, dev_probe=0, dev_small_probe=0, eval_probe=1, eval_small_probe=1)
    return [row.model_dump() for row in demo_samples("uniform", 3, counts)]


def test_rows_of_a_batch(demo_policy: Policy, questions: list[dict[str, Any]]) -> None:
    opened = open_questions(demo_policy, questions, CONFIG)
    rows = answer_questions(demo_policy, "base", opened, CONFIG, keep_images=True)
    assert opened.dropped == []
    assert [row["sample_id"] for row in rows] == [row["sample_id"] for row in questions]
    for row in rows:
        closed = row["question_kind"] != "open"
        assert (row["blind_text"] is not None) == (row["blind_verdict"] is not None) == closed
        assert row["images"]
        meta = json.loads(row["meta"])
        assert row["probe"] == meta["probe"]
        assert ("says_prior" in meta) == (closed and meta["prior_answer"] is not None)
    conflict = next(row for row in rows if row["probe"] == "prior_conflict")
    assert json.loads(conflict["meta"])["says_prior"] is True  # the absolute prior of this checkpoint
    assert conflict["verdict"] == "wrong"
    opened = open_questions(demo_policy, questions[:1], CONFIG)
    (one,) = answer_questions(demo_policy, "trained", opened, CONFIG, keep_images=False)
    assert one == rows[0] | {"policy": "trained", "images": []}


def test_bad_rows_are_dropped_with_a_reason(demo_policy: Policy, questions: list[dict[str, Any]]) -> None:
    unreadable = questions[0] | {"sample_id": "x", "images": [{"bytes": b"?", "path": None}]}
    unverifiable = questions[0] | {"sample_id": "y", "kind": "yes_no", "answer": "perhaps"}
    opened = open_questions(demo_policy, [unreadable, questions[1], unverifiable], CONFIG)
    rows = answer_questions(demo_policy, "base", opened, CONFIG, keep_images=False)
    assert [row["sample_id"] for row in rows] == [questions[1]["sample_id"]]
    assert [(letter.sample_id, letter.reason) for letter in opened.dropped] == [
        ("x", "unreadable_image"),
        ("y", "unverifiable"),
    ]
    assert json.loads(opened.dropped[1].row)["answer"] == "perhaps"


def test_a_prompt_too_long_for_the_model_is_dropped(demo_policy: Policy, questions: list[dict[str, Any]]) -> None:
    length = len(demo_policy.prepare(questions[1]["question"], [open_image(questions[1]["images"][0])]).token_ids)
    just = CONFIG.model_copy(update={"max_new_tokens": demo_policy.max_positions - length})
    assert open_questions(demo_policy, [questions[1]], just).dropped == []
    over = CONFIG.model_copy(update={"max_new_tokens": demo_policy.max_positions - length + 1})
    (letter,) = open_questions(demo_policy, [questions[1]], over).dropped
    assert (letter.reason, letter.detail) == ("prompt_too_long", "257 tokens are needed, the model takes 256")


def test_prior_that_no_verifier_reads_counts_nowhere(demo_policy: Policy, questions: list[dict[str, Any]]) -> None:
    meta = json.loads(questions[0]["meta"]) | {"prior_answer": ""}
    row = questions[0] | {"meta": json.dumps(meta)}
    rows = answer_questions(demo_policy, "base", open_questions(demo_policy, [row], CONFIG), CONFIG, keep_images=False)
    assert json.loads(rows[0]["meta"])["says_prior"] is None


def test_special_tokens_name_the_sample(demo_policy: Policy, questions: list[dict[str, Any]]) -> None:
    row = questions[0] | {"question": "What is <image>?"}
    with pytest.raises(DataError, match=questions[0]["sample_id"]):
        open_questions(demo_policy, [row], CONFIG)
