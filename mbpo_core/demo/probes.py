"""Probes: held-out question sets that each ask one thing of a model, for the dev and eval splits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from mbpo_core.demo import composing as c
from mbpo_core.demo.objects import CANONICAL, MATES, NEUTRAL, OBJECTS, POOL_OBJECTS, subjects
from mbpo_core.demo.questions import Question
from mbpo_core.demo.scenes import Scene, any_color, place
from mbpo_core.records import AnswerForm

LARGE_PROBES: tuple[str, ...] = (
    "prior_conflict", "prior_conflict_seen", "prior_consistent", "neutral",
    "existence_random", "existence_popular", "existence_adversarial", "caption",
)  # fmt: skip
"""Probes that the demo's table reports."""

SHIFTED_PROBES: tuple[str, ...] = ("shifted_conflict", "shifted_consistent", "shifted_neutral")
"""Colour questions about scenes that neither base nor pools have seen the like of: objects of other sizes in another
grid, beside one that the pools never show beside them."""

SMALL_PROBES: tuple[str, ...] = ("count", "position", "multiple_choice", "verification", *SHIFTED_PROBES)
"""Probes that watch the other skills, and scenes of another make."""

_BOTH: tuple[AnswerForm, ...] = ("sentence", "word")


def probe_item(probe: str, split: Literal["dev", "eval"], rng: random.Random) -> tuple[Scene, Question]:
    """One scene and question of a probe.

    Prior objects asked about are the split's own (dev: DEV_OBJECTS, eval: EVAL_OBJECTS), except in
    `prior_conflict_seen`, which asks about the pool objects; every bystander wears its canonical colour.

    Raises:
        KeyError: for a probe that is in neither LARGE_PROBES nor SMALL_PROBES.
    """
    world = c.World(POOL_OBJECTS if probe == "prior_conflict_seen" else subjects(split))
    if probe in ("existence_random", "existence_popular"):
        return c.ask_existence(world, rng, rng.choice(_BOTH), popular=probe == "existence_popular")
    if probe == "existence_adversarial":
        return c.ask_partner(world, rng, rng.choice(_BOTH), present_share=0.5)
    if probe in SHIFTED_PROBES:
        return _shifted(probe, world, rng)
    topic = probe if probe in (*SMALL_PROBES, "caption") else "color"
    name, color = _subject(probe, world, rng)
    # A caption names everything it shows: leave out the prior objects that this split does not ask about.
    beside = world.askable if topic == "caption" else OBJECTS
    scene = world.scene(rng, [(name, color)], beside=beside)
    return scene, c.ask_about(topic, world, scene, scene.find(name), rng, _BOTH)


def _shifted(probe: str, world: c.World, rng: random.Random) -> tuple[Scene, Question]:
    """One large object, or a small one beside its mate, where it has one."""
    name, color = _subject(probe, world, rng)
    layout = rng.choice(("ninths", "whole"))
    things = [(name, color)]
    if layout == "ninths" and (other := MATES.get(name)):
        things.append((other, world.color(rng, other)))
    scene = place(rng, things, layout)
    return scene, c.ask_about("color", world, scene, scene.find(name), rng, _BOTH)


def probe_names() -> Iterator[tuple[str, bool]]:
    """(probe, is large) in the order in which samples are made."""
    yield from ((name, True) for name in LARGE_PROBES)
    yield from ((name, False) for name in SMALL_PROBES)


def _subject(probe: str, world: c.World, rng: random.Random) -> tuple[str, str]:
    """The object asked about and its colour: conflict, consistent or neutral as the probe says, else mixed."""
    mixed = {
        "caption": ("conflict", "consistent"),
        "count": ("consistent", "neutral"),
        "position": ("consistent", "neutral"),
        "multiple_choice": ("conflict", "consistent", "neutral"),
        "verification": ("conflict", "consistent", "neutral"),
        "prior_conflict": ("conflict",),
        "prior_conflict_seen": ("conflict",),
        "prior_consistent": ("consistent",),
        "neutral": ("neutral",),
        "shifted_conflict": ("conflict",),
        "shifted_consistent": ("consistent",),
        "shifted_neutral": ("neutral",),
    }[probe]
    case = rng.choice(mixed)
    if case == "neutral":
        return rng.choice(NEUTRAL), any_color(rng)
    name = rng.choice(world.subjects)
    return name, c.conflicting_color(rng, name) if case == "conflict" else CANONICAL[name]
