"""What base training sees: for each scene, a handful of questions in every form that any pool or probe uses."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from mbpo_core.demo import questions as q
from mbpo_core.demo.objects import CANONICAL, COLORS, OBJECTS, PARTNERS
from mbpo_core.demo.questions import Question
from mbpo_core.demo.scenes import CELLS, Placed, Scene, base_scene, stream_seed
from mbpo_core.records import AnswerForm

_FORMS: tuple[AnswerForm, ...] = ("sentence", "word")
_AXES = ("cell", "side", "height")


def base_examples(
    stream: str, seed: int, canonical_share: float
) -> Iterator[tuple[Scene, list[Question], list[Question]]]:
    """Endless (scene, questions, text-only questions) of base training; item i depends on (stream, seed, i) only.

    Args:
        stream: name of the training stage. "drill" asks more about what is learned last, and three text-only
            questions instead of one, so that the prior does not erode meanwhile.
    """
    index, drill = 0, stream == "drill"
    while True:
        rng = random.Random(stream_seed("base", stream, seed, index))
        scene = base_scene(rng, canonical_share)
        yield scene, base_questions(scene, rng, drill=drill), text_questions(rng, 3 if drill else 1)
        index += 1


def base_questions(scene: Scene, rng: random.Random, *, drill: bool = False) -> list[Question]:
    """About twelve questions: color in its four forms, existence (as often yes as no), position, count, caption.

    Args:
        drill: ask more of the two skills that are learned last, position and multiple choice.
    """
    absent = [name for name in OBJECTS if name not in scene.names]
    asked = [q.color_question(_subject(scene, rng), _form(rng)) for _ in range(2)]
    for _ in range(2):
        item = _subject(scene, rng)
        asked.append(q.verification_question(item, _asked_color(item, rng), _form(rng)))
    asked += [q.color_choice_question(_subject(scene, rng), rng) for _ in range(2)]
    absent_names = _absent_names(scene, absent, rng)
    for name in absent_names if rng.random() < 0.5 else absent_names[:1]:
        asked.append(q.existence_question(scene, name, _form(rng)))
        asked.append(q.existence_question(scene, rng.choice(scene.names), _form(rng)))
    for _ in range(4 if drill else 1):
        asked.append(q.position_question(rng.choice(scene.placed), rng.choice(_AXES)))
    if drill or rng.random() < 0.4:
        asked.append(q.object_choice_question(scene, rng.choice(scene.names), absent, rng))
    if rng.random() < 0.3:
        asked.append(q.count_question(scene, "number" if rng.random() < 0.5 else "sentence"))
    if rng.random() < 0.5:
        asked.append(q.caption_question(scene))
    return asked


def text_questions(rng: random.Random, count: int) -> list[Question]:
    """What a language model knows from text: the prior objects' canonical colours, in the four forms."""
    asked = []
    for _ in range(count):
        name = rng.choice(list(CANONICAL))
        item = Placed(name, CANONICAL[name], CELLS[0])  # the cell is never asked for
        topic = rng.choice(("color", "verification", "verification", "multiple_choice"))
        if topic == "color":
            asked.append(q.color_question(item, _form(rng)))
        elif topic == "verification":
            asked.append(q.verification_question(item, _asked_color(item, rng), _form(rng)))
        else:
            asked.append(q.color_choice_question(item, rng))
    return asked


def tokenizer_texts() -> Iterator[str]:
    """Texts that hold every question, answer and word of the demo; the tokenizer is trained on them.

    Listed rather than drawn, so that the vocabulary does not move with the mixture of questions.
    """
    rng = random.Random(0)
    for name, color in itertools.product(OBJECTS, COLORS):
        scene = Scene((Placed(name, color, CELLS[0]), Placed("key" if name != "key" else "car", color, CELLS[3])), 0)
        item, absent = scene.placed[0], [other for other in OBJECTS if other not in scene.names]
        asked = [q.color_choice_question(item, rng), q.object_choice_question(scene, name, absent, rng)]
        asked += [q.color_question(item, form) for form in _FORMS]
        asked += [q.verification_question(item, other, form) for form in _FORMS for other in COLORS]
        asked += [q.existence_question(scene, other, form) for form in _FORMS for other in (name, absent[0])]
        asked += [q.position_question(thing, axis) for thing in scene.placed for axis in _AXES]
        asked += [q.caption_question(Scene(scene.placed[:count], 0)) for count in (1, 2)]
        asked += [q.count_question(Scene(scene.placed * 2, 0), form) for form in ("sentence", "number")]
        for question in asked:
            yield f"USER: \n{question.text} ASSISTANT: {question.answer}"
        yield from (f" {number}" for number in range(10))


def _form(rng: random.Random) -> AnswerForm:
    return rng.choice(_FORMS)


def _asked_color(item: Placed, rng: random.Random) -> str:
    """The worn colour half of the time, otherwise another."""
    return item.color if rng.random() < 0.5 else rng.choice([color for color in COLORS if color != item.color])


def _subject(scene: Scene, rng: random.Random) -> Placed:
    """An object to ask the colour of; neutral ones thrice as often, since only they teach to look."""
    return rng.choices(scene.placed, [1 if item.object in CANONICAL else 3 for item in scene.placed])[0]


def _absent_names(scene: Scene, absent: list[str], rng: random.Random) -> list[str]:
    """Two absent objects in random order; a missing partner is always the first, since its absence is rare."""
    missing = [PARTNERS[name] for name in scene.names if PARTNERS.get(name) in absent]
    prior = [name for name in absent if name in CANONICAL]
    neutral = [name for name in absent if name not in CANONICAL]
    if missing:
        return [missing[0], rng.choice(prior)]
    names = [rng.choice(neutral), rng.choice(prior)]
    rng.shuffle(names)
    return names
