"""Questions about a scene, each with its true answer, the form it asks for, and what the language prior would say."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mbpo_core.demo.objects import CANONICAL, COLORS, PARTNERS, with_article
from mbpo_core.demo.scenes import Placed, Scene
from mbpo_core.records import AnswerForm, Kind

ONE_WORD = " Answer with one word."
YES_OR_NO = " Answer yes or no."
NUMBER = " Answer with a number."
LETTER = "\nAnswer with the letter."
LETTERS = "ABCD"
OPTIONS = len(LETTERS)


@dataclass(frozen=True)
class Question:
    """A question and its answers.

    Attributes:
        text: as put to the model; it names the form of the answer.
        answer: the truth, in that form.
        topic: colour, verification, existence, count, position, multiple_choice or caption (spelled `color`).
        subject: the object asked about; empty for count, object choice and caption.
        prior_answer: what the language prior says, in the same form; None where it says nothing.
    """

    text: str
    answer: str
    kind: Kind
    form: AnswerForm
    topic: str
    subject: str = ""
    choices: tuple[str, ...] = ()
    prior_answer: str | None = None

    @property
    def conflict(self) -> bool:
        """The prior exists and is wrong."""
        return self.prior_answer is not None and self.prior_answer != self.answer


def color_question(item: Placed, form: AnswerForm) -> Question:
    """What color is it? As a sentence or a word."""

    def say(color: str) -> str:
        return color if form == "word" else f"The {item.object} is {color}."

    text = f"What color is the {item.object}?" + (ONE_WORD if form == "word" else "")
    canonical = CANONICAL.get(item.object)
    prior = say(canonical) if canonical else None
    return Question(text, say(item.color), "short_text", form, "color", item.object, prior_answer=prior)


def verification_question(item: Placed, asked: str, form: AnswerForm) -> Question:
    """Is it `asked`? Yes or No, or a sentence that also names the colour."""

    def say(color: str) -> str:
        yes = "Yes" if color == asked else "No"
        return yes if form == "word" else f"{yes}, the {item.object} is {color}."

    text = f"Is the {item.object} {asked}?" + (YES_OR_NO if form == "word" else "")
    canonical = CANONICAL.get(item.object)
    prior = say(canonical) if canonical else None
    return Question(text, say(item.color), "yes_no", form, "verification", item.object, prior_answer=prior)


def existence_question(scene: Scene, name: str, form: AnswerForm) -> Question:
    """Is it there? The prior says yes about the partner of an object that is."""

    def say(present: bool) -> str:
        if form == "word":
            return "Yes" if present else "No"
        return f"Yes, there is {with_article(name)}." if present else f"No, there is no {name}."

    text = f"Is there {with_article(name)} in the image?" + (YES_OR_NO if form == "word" else "")
    expected = any(PARTNERS.get(other) == name for other in scene.names)
    return Question(
        text,
        say(name in scene.names),
        "yes_no",
        form,
        "existence",
        name,
        prior_answer=say(True) if expected else None,
    )


def count_question(scene: Scene, form: AnswerForm) -> Question:
    """How many objects? As a digit or a sentence with the digit."""
    count = len(scene.placed)
    sentence = "There is 1 object." if count == 1 else f"There are {count} objects."
    text = "How many objects are in the image?" + (NUMBER if form == "number" else "")
    return Question(text, str(count) if form == "number" else sentence, "numeric", form, "count")


def position_question(item: Placed, axis: str) -> Question:
    """Where is it? `axis`: "cell" for a sentence, "side" (left or right) or "height" (top or bottom) for a word."""
    height, side = item.cell.split()
    if axis == "side":
        text, answer = f"Is the {item.object} on the left or on the right?{ONE_WORD}", side
    elif axis == "height":
        text, answer = f"Is the {item.object} at the top or at the bottom?{ONE_WORD}", height
    else:
        text, answer = f"Where is the {item.object}?", f"The {item.object} is at the {item.cell}."
    form: AnswerForm = "sentence" if axis == "cell" else "word"
    return Question(text, answer, "short_text", form, "position", item.object)


def color_choice_question(item: Placed, rng: random.Random) -> Question:
    """What color is it? Four colours to choose from; the canonical one is always among them."""
    canonical = CANONICAL.get(item.object)
    wanted = list(dict.fromkeys(color for color in (item.color, canonical) if color))
    others = [color for color in COLORS if color not in wanted]
    choices = wanted + rng.sample(others, OPTIONS - len(wanted))
    rng.shuffle(choices)
    prior = LETTERS[choices.index(canonical)] if canonical else None
    text = f"What color is the {item.object}?{_listed(choices)}{LETTER}"
    answer = LETTERS[choices.index(item.color)]
    return Question(
        text, answer, "multiple_choice", "letter", "multiple_choice", item.object, tuple(choices), prior_answer=prior
    )


def object_choice_question(scene: Scene, shown: str, absent: Sequence[str], rng: random.Random) -> Question:
    """Which object is in the image? `shown` among three drawn from `absent`."""
    choices = [shown, *rng.sample(list(absent), OPTIONS - 1)]
    rng.shuffle(choices)
    text = f"Which object is in the image?{_listed(choices)}{LETTER}"
    answer = LETTERS[choices.index(shown)]
    return Question(text, answer, "multiple_choice", "letter", "multiple_choice", shown, tuple(choices))


def caption_question(scene: Scene) -> Question:
    """Describe the image: every object with its colour, in reading order."""

    def say(colors: Sequence[str]) -> str:
        things = [with_article(f"{color} {item.object}") for color, item in zip(colors, scene.placed, strict=True)]
        listed = things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
        return f"The image shows {listed}."

    prior = None
    if any(item.object in CANONICAL for item in scene.placed):
        prior = say([CANONICAL.get(item.object, item.color) for item in scene.placed])
    text = "Describe the image."
    return Question(text, say([item.color for item in scene.placed]), "open", "free", "caption", prior_answer=prior)


def _listed(choices: Sequence[str]) -> str:
    return "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
