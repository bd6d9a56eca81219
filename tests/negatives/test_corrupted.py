"""Answers made wrong by rule."""

from __future__ import annotations

import json
from random import Random

import pytest

from mbpo_core.models.policy import Policy
from mbpo_core.negatives.filters import agrees
from mbpo_core.negatives.swaps import Kin, flip, other_choice, swap_words, uncapitalised
from mbpo_core.records import Sample
from tests.negatives.benches import bench_of, mine

ANSWERS = (
    "The banana is yellow.",
    "The car is green.",
    "The banana is red.",
    "A dog sleeps under the table.",
    "A cat sleeps on the table.",
    "A cat sleeps above the table.",
    "blue",
    "Purple",
)


@pytest.mark.parametrize(
    ("answer", "place", "expected"),
    [
        ("The banana is blue.", 3, ["red", "yellow"]),  # the frame "banana is _ ." comes before "is _ ."
        ("The boat is blue.", 3, ["green", "red", "yellow"]),
        ("The banana is Red.", 3, ["yellow"]),
        ("the car is blue", 3, []),  # no full stop, no frame
        ("green", 0, ["blue", "Purple"]),
        ("Purple", 0, ["blue"]),
        ("The banana is red.", 2, []),  # grammar
        ("A dog sleeps under the table.", 1, ["cat"]),
        ("A cat sleeps below the table.", 3, ["above"]),  # "on" is grammar, "above" is a relation
        ("The banana is red.", 4, []),  # the full stop
    ],
)
def test_kin_stand_in_the_same_frame(answer: str, place: int, expected: list[str]) -> None:
    pieces = answer.replace(".", " .").split()
    assert Kin(ANSWERS).of(pieces, place) == expected


@pytest.mark.parametrize(
    ("answer", "question", "count", "possible"),
    [
        ("The banana is red.", "What color is the banana?", 1, {"The banana is yellow."}),
        # Words of the question are left alone even if more may be swapped, unless there are no others.
        ("The banana is red.", "What color is the banana?", 3, {"The banana is yellow."}),
        ("The banana is red.", "Is the banana red?", 2, {"The car is yellow."}),
        ("There are 3 dogs.", "How many dogs?", 1, {"There are 2 dogs.", "There are 4 dogs."}),
        ("There are 0 dogs.", "How many dogs?", 1, {"There are 1 dogs."}),
        ("There are 1 dogs.", "How many dogs?", 1, {"There are 0 dogs.", "There are 2 dogs."}),
        ("It weighs 2.50 kg", "How heavy?", 1, {"It weighs 1.50 kg", "It weighs 3.50 kg"}),
        ("Three cats", "How many?", 1, {"Two cats", "Four cats"}),
        ("Nobody knows.", "Who?", 1, {"Nobody knows."}),
    ],
)
def test_words_are_swapped_for_their_kin(answer: str, question: str, count: int, possible: set[str]) -> None:
    found = set()
    for seed in range(40):
        text, swaps = swap_words(answer, question, Kin(ANSWERS), count, Random(seed))
        found.add(text)
        assert bool(swaps) == (text != answer)
        rebuilt = answer
        for old, new in swaps:
            rebuilt = rebuilt.replace(old, new, 1)
        assert rebuilt == text
    assert found == possible


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes", "No"),
        ("no.", "yes."),
        ("No, the tomato is purple.", "Yes, the tomato is purple."),
        ("No, there is no boot.", "Yes, there is a boot."),
        ("Yes, there is an owl.", "No, there is no owl."),
        ("No, there are no boots.", "Yes, there are boots."),
        ("Nobody is there", "Nobody is there"),
        ("The answer is yes", "The answer is yes"),
        ("", ""),
    ],
)
def test_yes_and_no_are_flipped(answer: str, expected: str) -> None:
    text, swaps = flip(answer)
    assert text == expected
    assert len(swaps) == (text != answer)


@pytest.mark.parametrize(
    ("answer", "possible"),
    [
        ("B", {"A", "C"}),
        ("B.", {"A.", "C."}),
        ("(B) cat", {"(A) dog", "(C) bird"}),
        ("The answer is B", {"The answer is A", "The answer is C"}),
        ("A cat", {"A dog", "A bird"}),  # an article is no letter
        ("It is a catfish", {"It is a catfish"}),
    ],
)
def test_another_option_is_named(answer: str, possible: set[str]) -> None:
    found = {other_choice(answer, ["dog", "cat", "bird"], Random(seed))[0] for seed in range(40)}
    assert found == possible
    assert other_choice("A", ["dog"], Random(0)) == ("A", [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("What is it?", "what is it?"), ("I see", "I see"), ("NASA?", "NASA?"), ("A dog", "a dog"), ("", ""), ("é", "é")],
)
def test_a_sentence_goes_on_in_small_letters(text: str, expected: str) -> None:
    assert uncapitalised(text) == expected


def test_a_row_is_wrong_by_the_words_it_names(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    bench = bench_of(demo_policy, offline_samples, method="corrupted")
    rows, dropped = mine(bench, offline_samples)
    by_id = {sample.sample_id: sample for sample in offline_samples}
    assert len(rows) >= 18
    assert {letter.reason for letter in dropped} <= {"nothing_to_change"}
    for row in rows:
        sample, how = by_id[row.sample_id], json.loads(row.attack)
        assert row.rejected is not None
        assert not agrees(row.rejected, row.chosen, kind=sample.kind, choices=sample.choices)
        ((old, new),) = how["swaps"]
        assert old in row.chosen
        assert new in row.rejected
        assert how["corrupted_words"] == 1
        if " no " not in row.chosen + row.rejected:  # "there is no" turns with the answer
            assert row.chosen.replace(old, new, 1) == row.rejected
        assert (row.rejected_images, row.attacked_answer) == ([], row.clean_answer)
    kinds = {row.question_kind for row in rows}
    assert kinds == {"yes_no", "short_text", "multiple_choice"}


def test_rows_do_not_depend_on_their_window(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    first, _ = mine(bench_of(demo_policy, offline_samples, method="corrupted", corrupted_words=2), offline_samples)
    reordered = list(reversed(offline_samples))
    bench = bench_of(demo_policy, reordered, method="corrupted", corrupted_words=2, batch_size=3)
    again, _ = mine(bench, reordered, 5)
    assert {row.sample_id: (row.rejected, row.attack) for row in again} == {
        row.sample_id: (row.rejected, row.attack) for row in first
    }


def test_nothing_to_swap(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    alone = next(sample for sample in offline_samples if sample.kind == "short_text")
    _, dropped = mine(bench_of(demo_policy, [alone], method="corrupted"), [alone])
    assert [letter.reason for letter in dropped] == ["nothing_to_change"]
