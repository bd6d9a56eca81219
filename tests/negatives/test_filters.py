"""Filters on text, by example."""

from __future__ import annotations

import pytest

from mbpo_core.negatives import filters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The banana is Yellow.", "banana is yellow"),
        ("  A  green\tcar! ", "green car"),
        ("The", "the"),
        ("It’s 3.5 cm", "it's 3 5 cm"),
        ("", ""),
    ],
)
def test_normalize(text: str, expected: str) -> None:
    assert filters.normalize(text) == expected


@pytest.mark.parametrize(
    ("kind", "text", "chosen", "choices", "same"),
    [
        ("open", "the image shows a red car", "The image shows red car.", [], True),
        ("open", "The image shows a blue car.", "The image shows a red car.", [], False),
        ("yes_no", "No, the banana is yellow.", "No, the banana is green.", [], True),
        ("yes_no", "Yes.", "No, it is green.", [], False),
        ("yes_no", "I know nothing.", "No", [], False),
        ("numeric", "25", "5", [], False),
        ("numeric", "There are 3 objects.", "3", [], True),
        ("multiple_choice", "B", "A", ["red", "green"], False),
        ("multiple_choice", "A) red", "A", ["red", "green"], True),
        ("short_text", "The banana is yellow.", "The banana is green.", [], False),
        ("short_text", "The banana is green.", "green", [], True),
        ("box", "[1, 2]", "[1, 2]", [], True),
    ],
)
def test_same_answer(kind: str, text: str, chosen: str, choices: list[str], same: bool) -> None:
    reason = filters.same_answer(text, chosen, kind=kind, choices=choices)
    assert reason == ("same_answer" if same else None)


def test_an_alias_of_the_answer_is_no_rejected_response() -> None:
    meta = '{"aliases": ["couch"]}'
    assert filters.same_answer("A couch.", "sofa", kind="short_text", meta=meta) == "same_answer"
    assert filters.same_answer("A couch.", "sofa", kind="short_text") is None


def test_reference_answer_that_its_verifier_cannot_read_is_compared_by_words() -> None:
    assert filters.agrees("perhaps so", "Perhaps so.", kind="yes_no")
    assert not filters.agrees("yes", "Perhaps so.", kind="yes_no")


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I cannot see the image.",
        "Sorry, no idea.",
        "As an AI language model, I have no eyes.",
        "I can’t determine the color of the car.",
        "It is impossible to tell what color it is.",
        "The image is too dark to see anything.",
        "The picture appears to be very blurry.",
        "The photo seems distorted.",
        "The image is of low quality.",
        "No image was provided.",
        "There is not enough information to answer.",
        "That cannot be determined from the image.",
        "unanswerable",
    ],
)
def test_refusals(text: str) -> None:
    assert filters.refusal(text) == "refusal"


@pytest.mark.parametrize(
    "text",
    [
        "No, there is no microphone.",
        "The image shows a dark green car.",
        "The picture on the wall is blue.",
        "No",
        "The sorry-looking dog is brown.",
        "The man cannot reach the shelf.",
        "The image shows a noisy street.",
        "",
    ],
)
def test_answers_are_no_refusals(text: str) -> None:
    assert filters.refusal(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("yes", None),
        ("yellow yellow yellow", None),
        ("yellow yellow yellow yellow", "repetition"),
        ("a red car and a red car and a red car and", "repetition"),
        ("a red car and a blue car and a green dog", None),
    ],
)
def test_repetition(text: str, reason: str | None) -> None:
    assert filters.repetition(text, min_distinct=0.6) == reason


def test_repetition_counts_the_bound_in() -> None:
    assert filters.repetition("a a a a", min_distinct=0.5) is None  # 1 of 2 3-grams is distinct
    assert filters.repetition("a a a a", min_distinct=0.51) == "repetition"


@pytest.mark.parametrize(
    ("rejected", "chosen", "reason"), [(4, 8, None), (3, 8, "length"), (16, 8, None), (17, 8, "length")]
)
def test_length(rejected: int, chosen: int, reason: str | None) -> None:
    assert filters.length(rejected, chosen, lowest=0.5, highest=2.0) == reason
