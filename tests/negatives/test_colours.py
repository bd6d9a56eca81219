"""What an answer says about a colour, and what it would say of another one."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from mbpo_core.negatives.colours import Recast, colours_in, recast, told_colour
from mbpo_core.records import Sample

PALETTE = ("blue", "orange", "red", "yellow")


def asked(question: str, answer: str, kind: str = "short_text", choices: tuple[str, ...] = ()) -> Sample:
    plain: dict[str, Any] = {"kind": kind, "choices": list(choices), "split": "offline", "source": "test"}
    return Sample(sample_id="s", images=[], question=question, answer=answer, **plain)


def recasts(sample: Sample, palette: tuple[str, ...] = PALETTE) -> set[Recast]:
    """All that forty seeds draw."""
    return {found for seed in range(40) if (found := recast(sample, palette, Random(seed)))}


def test_words_are_found_whole_and_once() -> None:
    assert colours_in("A Red car, red and reddish, and an ORANGE one; bluebell") == ["red", "orange"]


@pytest.mark.parametrize(
    ("sample", "colour"),
    [
        (asked("What color is it?", "The car is red."), "red"),
        (asked("What color is it?", "Red and blue."), ""),
        (asked("Is it red?", "Yes", "yes_no"), "red"),
        (asked("Is it red?", "No", "yes_no"), ""),
        (asked("Is there not a red shape?", "Yes", "yes_no"), ""),
        (asked("Is it red?", "No, it is blue.", "yes_no"), "blue"),
        (asked("Which?", "B", "multiple_choice", ("red", "blue")), "blue"),
        (asked("Which?", "red", "multiple_choice", ("red", "blue")), "red"),
        (asked("Which?", "C", "multiple_choice", ("red", "blue")), ""),
        (asked("How many?", "3", "numeric"), ""),
    ],
)
def test_the_told_colour(sample: Sample, colour: str) -> None:
    assert told_colour(sample.kind, sample.question, sample.answer, sample.choices) == colour


def test_a_sentence_gets_every_other_colour_of_the_palette() -> None:
    found = recasts(asked("What color is the car?", "A red car, Red indeed."))
    assert found == {
        Recast("red", "blue", "A blue car, Blue indeed."),
        Recast("red", "orange", "An orange car, Orange indeed."),
        Recast("red", "yellow", "A yellow car, Yellow indeed."),
    }
    assert recasts(asked("Describe it.", "It shows an orange.", "open")) >= {Recast("orange", "red", "It shows a red.")}


def test_yes_and_no_turn_into_each_other() -> None:
    assert recasts(asked("Is the car red?", "Yes", "yes_no")) == {
        Recast("red", new, "No") for new in ("blue", "orange", "yellow")
    }
    assert recasts(asked("Is the car red?", "yes, it is red.", "yes_no")) == {
        Recast("red", new, f"no, it is {new}.") for new in ("blue", "orange", "yellow")
    }
    found = recasts(asked("Is the car red?", "No, it is blue.", "yes_no"))
    assert found == {Recast("blue", "red", "Yes, it is red.")}
    assert recasts(asked("Is the car red?", "No", "yes_no")) == {Recast("", "red", "Yes")}


@pytest.mark.parametrize("form", ["Answer yes or no.", "(yes/no)", 'Say "yes" or "no".', "Yes, no?"])
def test_the_form_of_the_answer_is_no_denial(form: str) -> None:
    assert recasts(asked(f"Is the car red? {form}", "No", "yes_no")) == {Recast("", "red", "Yes")}
    assert told_colour("yes_no", f"Is the car red or not? {form}", "Yes", ()) == "red"


def test_options_stay_among_the_options() -> None:
    letters = asked("Which?\nA. red\nB. green\nC. blue", "A", "multiple_choice", ("red", "green", "blue"))
    assert recasts(letters) == {Recast("red", "blue", "C")}, "green cannot be painted"
    texts = asked("Which?", "red", "multiple_choice", ("red", "a dark blue", "none"))
    assert recasts(texts) == {Recast("red", "blue", "a dark blue")}


@pytest.mark.parametrize(
    "sample",
    [
        asked("Is it red or blue?", "It is red."),
        asked("What is it?", "A car."),
        asked("What color?", "Red and blue."),
        asked("Is it red or blue?", "Yes", "yes_no"),
        asked("Is there a car?", "Yes", "yes_no"),
        asked("Is it pink?", "No", "yes_no"),
        asked("Is there not a red shape?", "Yes", "yes_no"),
        asked("Isn't the car red?", "Yes", "yes_no"),
        asked("Is no red car shown?", "No", "yes_no"),
        asked("Is it red?", "Yes, it is blue.", "yes_no"),
        asked("How many?", "3", "numeric"),
        asked("Which?", "B", "multiple_choice", ("red", "car")),
    ],
)
def test_other_answers_are_left_alone(sample: Sample) -> None:
    assert not recasts(sample)


def test_of_a_description_one_thing_gets_another_colour() -> None:
    text = "The image shows a red car, an orange key and a red dog."
    found = recasts(asked("Describe it.", text, "open"))
    assert {one.answer for one in found if one.about == (18, 25)} == {
        f"The image shows {new} car, an orange key and a red dog." for new in ("a blue", "an orange", "a yellow")
    }, "the car's colour alone, its article with it"
    assert {text[slice(*one.about)] for one in found if one.about} == {"red car", "orange key", "red dog"}
    assert all(one.old == text[slice(*(one.about or ()))].split()[0] for one in found)
    assert all(one.about for one in found)


@pytest.mark.parametrize(
    ("text", "things"),
    [
        ("The car is red and the key is blue.", {"car is red", "key is blue"}),
        ("Red apples; green, ripe pears.", {"Red apples"}),
        ("Red and blue.", set()),
    ],
)
def test_the_thing_that_a_colour_stands_with(text: str, things: set[str]) -> None:
    found = recasts(asked("Describe it.", text, "open"))
    assert {text[slice(*one.about)] for one in found if one.about} == things


def test_descriptions_can_be_left_alone() -> None:
    sample = asked("Describe it.", "A red car and a blue key.", "open")
    assert recast(sample, PALETTE, Random(0))
    assert recast(sample, PALETTE, Random(0), descriptions=False) is None
    assert (
        recast(asked("Is the red car beside the blue key?", "A red and a blue one.", "open"), PALETTE, Random(0))
        is None
    )


def test_one_colour_is_no_palette() -> None:
    assert not recasts(asked("What color?", "Red."), ("red",))
