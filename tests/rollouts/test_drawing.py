"""Prompts of each round, and rewards, which need no model."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mbpo_core.config import RolloutsConfig
from mbpo_core.errors import VerifierError
from mbpo_core.generation.generate import Generated
from mbpo_core.records import Sample
from mbpo_core.rollouts.drawing import draw
from mbpo_core.rollouts.rewarding import reward

IDS = [f"s{i}" for i in range(10)]


def test_rounds_go_through_all_prompts_before_any_comes_again() -> None:
    rounds = [draw(IDS, 4, r, 0) for r in range(5)]
    asked = [position for round_ in rounds for position in round_]
    assert sorted(asked[:10]) == sorted(asked[10:]) == list(range(10))
    assert asked[:10] == asked[10:]  # the order is one and the same
    assert all(len(set(round_)) == 4 for round_ in rounds)  # also where a round runs over the end
    assert asked[:10] != list(range(10))


def test_a_round_never_asks_a_prompt_twice() -> None:
    for prompts in (1, 3, 9, 10, 11, 1000):
        for r in range(12):
            drawn = draw(IDS, prompts, r, 7)
            assert len(drawn) == len(set(drawn)) == min(prompts, 10)


def test_the_order_depends_on_seed_and_ids_only() -> None:
    shuffled = random.Random(0).sample(IDS, 10)
    assert [IDS[i] for i in draw(IDS, 10, 0, 5)] == [shuffled[i] for i in draw(shuffled, 10, 0, 5)]
    assert draw(IDS, 10, 0, 5) != draw(IDS, 10, 0, 6)


def sample(**changes: Any) -> Sample:
    fields = {"sample_id": "a", "images": [], "question": "?", "split": "online", "source": "test"}
    return Sample(**{**fields, "answer": "green", "kind": "short_text", "answer_form": "word", **changes})


def answered(text: str, finish_reason: Any = "stop") -> Generated:
    return Generated([5, 1], [-0.1, -0.2], finish_reason, text)


@pytest.mark.parametrize(
    ("text", "finish", "verdict", "accuracy", "form"),
    [
        ("green", "stop", "correct", 1.0, 0.2),
        ("The banana is green.", "stop", "correct", 1.0, 0.0),  # true, but not one word
        ("yellow", "stop", "wrong", 0.0, 0.2),  # in form, but not true
        ("It may be anything from red to blue and beyond", "stop", "unparsed", 0.0, 0.0),
        ("green", "length", "correct", 1.0, 0.0),  # cut off: in no form
        ("", "stop", "unparsed", 0.0, 0.0),
    ],
)
def test_truth_and_form_are_rewarded_apart(text: str, finish: str, verdict: str, accuracy: float, form: float) -> None:
    result = reward(answered(text, finish), sample(), RolloutsConfig())
    assert (result.verdict, result.accuracy_reward, result.format_reward) == (verdict, accuracy, form)
    assert result.reward == accuracy + form
    assert (result.token_ids, result.logprobs, result.finish_reason) == ([5, 1], [-0.1, -0.2], finish)
    assert result.reason


def test_a_long_answer_loses_by_its_length() -> None:
    config = RolloutsConfig(overlong_share=0.5, max_new_tokens=4, accuracy_reward=2.0)
    lost = [
        reward(Generated([5] * count, [-0.1] * count, finish, "green"), sample(), config)
        for count, finish in ((2, "stop"), (3, "stop"), (4, "stop"), (4, "length"))
    ]
    assert [one.length_reward for one in lost] == [0.0, -1.0, -2.0, -2.0]
    assert all(one.reward == one.accuracy_reward + one.format_reward + one.length_reward for one in lost)
    assert reward(answered("green", "length"), sample(), RolloutsConfig()).length_reward == 0.0


def test_form_never_outweighs_truth() -> None:
    with pytest.raises(ValueError, match="format_reward must be below accuracy_reward"):
        RolloutsConfig(accuracy_reward=0.2, format_reward=0.2)
    config = RolloutsConfig(accuracy_reward=2.0, format_reward=1.9)
    true_out_of_form = reward(answered("It is green."), sample(), config)
    false_in_form = reward(answered("red"), sample(), config)
    assert true_out_of_form.reward > false_in_form.reward > 0


def test_letters_numbers_and_sentences() -> None:
    config = RolloutsConfig()
    letter = sample(answer="B", kind="multiple_choice", answer_form="letter", choices=["red", "green"])
    assert [reward(answered(t), letter, config).reward for t in ("B", "B) green", "green", "A", "C")] == [
        1.2,
        1.0,
        1.0,
        0.2,
        0.0,
    ]
    number = sample(answer="3", kind="numeric", answer_form="number")
    assert [reward(answered(t), number, config).reward for t in ("3", "three", "There are 3.", "4", "1 2 3")] == [
        1.2,
        1.0,
        1.0,
        0.2,
        0.0,
    ]
    sentence = sample(answer="No, it is green.", kind="yes_no", answer_form="sentence")
    assert [reward(answered(t), sentence, config).reward for t in ("No, it is blue.", "No", "Yes, it is.", "know")] == [
        1.2,
        1.0,
        0.2,
        0.0,
    ]


def test_an_unreadable_reference_is_an_error_not_a_zero() -> None:
    with pytest.raises(VerifierError, match="numeric cannot read the reference answer 'many'"):
        reward(answered("3"), sample(answer="many", kind="numeric"), RolloutsConfig())
