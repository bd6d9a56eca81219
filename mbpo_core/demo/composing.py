"""Scenes and questions for pools and probes: who may be asked about, who may stand beside, in which colours."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mbpo_core.demo import questions as q
from mbpo_core.demo.objects import CANONICAL, NEUTRAL, OBJECTS, PARTNERS, POOL_OBJECTS, POPULAR, UNSEEN_PAIRS
from mbpo_core.demo.questions import Question
from mbpo_core.demo.scenes import CELLS, COOCCURRENCE, Placed, Scene, any_color, place, prior_color
from mbpo_core.records import AnswerForm

_BYSTANDERS = (0, 1, 1, 2)
_APART = [set(pair) for pair in UNSEEN_PAIRS]


@dataclass(frozen=True)
class World:
    """The rules that the scenes of one pool or probe follow.

    Attributes:
        subjects: prior objects that may be asked about; neutral objects always may.
        pool_canonical_share: probability that a pool object wears its canonical colour. Prior objects that are
            neither pool objects nor given a colour explicitly always wear theirs.
        cooccurrence: probability that a trigger's partner stands beside it.
        pairs_apart: UNSEEN_PAIRS are kept apart: of two bystanders or of a bystander and what is asked about, the
            later one stays away.
    """

    subjects: tuple[str, ...]
    pool_canonical_share: float = 1.0
    cooccurrence: float = COOCCURRENCE
    pairs_apart: bool = False

    @property
    def askable(self) -> tuple[str, ...]:
        """Objects that questions may name."""
        return (*self.subjects, *NEUTRAL)

    def color(self, rng: random.Random, name: str) -> str:
        """A colour for the object by these rules."""
        return prior_color(rng, name, self.pool_canonical_share if name in POOL_OBJECTS else 1.0)

    def scene(
        self,
        rng: random.Random,
        first: Sequence[tuple[str, str]],
        *,
        beside: Sequence[str] = OBJECTS,
        partners: bool = True,
    ) -> Scene:
        """The given (object, colour) things and 0-2 bystanders drawn from `beside`, with partners of triggers."""
        things = list(first)
        candidates = [name for name in beside if name not in dict(things)]
        names = rng.sample(candidates, min(rng.choice(_BYSTANDERS), len(CELLS) - len(things)))
        for name in names:
            if not (self.pairs_apart and any({name, other} in _APART for other, _ in things)):
                things.append((name, self.color(rng, name)))
        present = dict(things)
        for trigger, partner in PARTNERS.items():
            room = len(present) < len(CELLS) and partner in beside
            if partners and trigger in present and partner not in present and room and rng.random() < self.cooccurrence:
                present[partner] = any_color(rng)
        return place(rng, list(present.items()))


def conflicting_color(rng: random.Random, name: str) -> str:
    """Any colour but the object's canonical one."""
    return any_color(rng, but=CANONICAL[name])


def ask_verification(item: Placed, rng: random.Random, form: AnswerForm) -> Question:
    """Ask for the worn colour or another; of an off-colour prior object the other is the canonical one.

    So truth and prior always disagree about an off-colour object, and "Yes" is right half of the time.
    """
    asked = item.color
    if rng.random() < 0.5:
        canonical = CANONICAL.get(item.object, item.color)
        asked = canonical if canonical != item.color else any_color(rng, but=item.color)
    return q.verification_question(item, asked, form)


def ask_existence(
    world: World, rng: random.Random, form: AnswerForm, *, popular: bool = False
) -> tuple[Scene, Question]:
    """Half yes, half no; the absent object is none that a present trigger makes likely.

    Args:
        popular: take the absent object from those that base training showed most, as POPE's popular split does.
    """
    name = rng.choice(world.askable)
    scene = world.scene(rng, [(name, world.color(rng, name))])
    if rng.random() < 0.5:
        return scene, q.existence_question(scene, name, form)
    expected = {PARTNERS.get(other) for other in scene.names}
    candidates = [other for other in (POPULAR if popular else world.askable) if other not in {*scene.names, *expected}]
    if not candidates:  # all three popular objects are shown or expected: rare, ask about any other
        candidates = [other for other in world.askable if other not in {*scene.names, *expected}]
    return scene, q.existence_question(scene, rng.choice(candidates), form)


def ask_partner(world: World, rng: random.Random, form: AnswerForm, present_share: float) -> tuple[Scene, Question]:
    """Ask for the partner of a present trigger; the prior always says yes."""
    trigger = rng.choice(list(PARTNERS))
    partner = PARTNERS[trigger]
    things = [(trigger, any_color(rng))]
    if rng.random() < present_share:
        things.append((partner, any_color(rng)))
    beside = [name for name in OBJECTS if name != partner and name not in PARTNERS]
    scene = world.scene(rng, things, beside=beside, partners=False)
    return scene, q.existence_question(scene, partner, form)


def ask_about(
    topic: str, world: World, scene: Scene, item: Placed, rng: random.Random, forms: Sequence[AnswerForm]
) -> Question:
    """A question on `item`, or on the whole scene for count and caption.

    Args:
        topic: color, verification, position, multiple_choice, count or caption.
        forms: "sentence" or "word", drawn uniformly; repeat one to make it likelier.
    """
    form = rng.choice(forms)
    if topic == "color":
        return q.color_question(item, form)
    if topic == "verification":
        return ask_verification(item, rng, form)
    if topic == "position":
        return q.position_question(item, "cell" if form == "sentence" else rng.choice(("side", "height")))
    if topic == "count":
        return q.count_question(scene, "sentence" if form == "sentence" else "number")
    if topic == "caption":
        return q.caption_question(scene)
    absent = [name for name in world.askable if name not in scene.names]
    if rng.random() < 0.25:
        return q.object_choice_question(scene, item.object, absent, rng)
    return q.color_choice_question(item, rng)
