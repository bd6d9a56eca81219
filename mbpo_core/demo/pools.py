"""The demo's samples: offline and online pools to learn from, dev and eval probes to measure with.

Every sample carries a JSON `meta` with the keys

- `probe`: the evaluation set it belongs to (see `probes`), "pool" in the pools;
- `topic`: color, verification, existence, count, position, multiple_choice or caption;
- `subject`: the object asked about, empty where there is none;
- `scene`: list of {object, color, cell} in reading order, the whole truth about the picture;
- `boxes`: list of {label, box} in the same order: the square of pixels [x0, y0, x1, y1] that each object fills;
- `objects`: names of the objects present;
- `prior_answer`: what the language prior says, in the answer's form; null where it says nothing;
- `conflict`: true where that is wrong;
- `setting`: "uniform" or "natural".

Samples of one (setting, split, seed, index) never change; those of others share no picture with them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mbpo_core.demo import composing as c
from mbpo_core.demo.objects import COLORS, NEUTRAL, OBJECTS, subjects
from mbpo_core.demo.probes import probe_item, probe_names
from mbpo_core.demo.questions import Question
from mbpo_core.demo.scenes import Scene, any_color, boxes, render, stream_seed, to_png
from mbpo_core.records import AnswerForm, Image, Sample, Split

Setting = Literal["uniform", "natural"]
PoolSplit = Literal["offline", "online"]

TOPIC_SHARES: dict[PoolSplit, dict[str, float]] = {
    "offline": {
        "color": 0.40, "caption": 0.15, "verification": 0.15, "existence": 0.12,
        "multiple_choice": 0.08, "position": 0.05, "count": 0.05,
    },
    "online": {
        "color": 0.40, "verification": 0.20, "existence": 0.15,
        "multiple_choice": 0.15, "position": 0.05, "count": 0.05,
    },
}  # fmt: skip
"""What the pools ask about; online questions are closed-ended."""

_FORMS: dict[PoolSplit, tuple[AnswerForm, ...]] = {
    "offline": ("sentence", "sentence", "word"),
    "online": ("sentence", "word", "word"),
}
_PARTNER_SHARE = 1 / 3  # of the pools' existence questions


class DemoCounts(BaseModel):
    """How many questions of each sort `demo_samples` makes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    offline: int = Field(default=600, ge=0, le=1_000_000, description="Questions of the offline pool.")
    online: int = Field(default=600, ge=0, le=1_000_000, description="Questions of the online pool.")
    eval_probe: int = Field(default=1000, ge=0, le=100_000, description="Questions of each large eval probe.")
    eval_small_probe: int = Field(
        default=400, ge=0, le=100_000, description="Questions of each small eval probe (count, position, ...)."
    )
    dev_probe: int = Field(default=200, ge=0, le=100_000, description="Questions of each large dev probe.")
    dev_small_probe: int = Field(default=100, ge=0, le=100_000, description="Questions of each small dev probe.")
    neutral_share: float = Field(
        default=0.4, ge=0, le=1, description="Share of pool questions whose subject is a neutral object."
    )
    conflict_share: float = Field(
        default=0.03, ge=0, le=1, description="Natural setting: share of prior subjects that contradict the prior."
    )


def demo_samples(setting: Setting, seed: int, counts: DemoCounts) -> Iterator[Sample]:
    """Samples of all four splits: offline, online, dev, eval.

    Args:
        setting: "uniform" (pool objects in any colour, so that true answers mostly contradict the prior) or
            "natural" (the pool's labels follow the prior but for `counts.conflict_share`). Probes are the same.
        seed: run seed; each has its own scenes in every split.
        counts: how many of each.

    Yields:
        Samples with one PNG each; see the module's docstring for `meta`.
    """
    for pool, count in (("offline", counts.offline), ("online", counts.online)):
        split: PoolSplit = "offline" if pool == "offline" else "online"
        for index in range(count):
            rng = random.Random(stream_seed(setting, split, seed, index))
            scene, question = _pool_item(setting, split, rng, counts)
            yield _sample(f"demo-{setting}-{split}-{seed}-{index:05d}", split, setting, "pool", scene, question)
    held_out: tuple[Literal["dev", "eval"], ...] = ("dev", "eval")
    for probe_split in held_out:
        large, small = (
            (counts.dev_probe, counts.dev_small_probe)
            if probe_split == "dev"
            else (counts.eval_probe, counts.eval_small_probe)
        )
        for probe, is_large in probe_names():
            for index in range(large if is_large else small):
                rng = random.Random(stream_seed("probe", probe_split, probe, seed, index))
                scene, question = probe_item(probe, probe_split, rng)
                name = f"demo-{probe_split}-{probe}-{seed}-{index:05d}"
                yield _sample(name, probe_split, setting, probe, scene, question)


def _pool_item(setting: Setting, split: PoolSplit, rng: random.Random, counts: DemoCounts) -> tuple[Scene, Question]:
    follow = 1 / len(COLORS) if setting == "uniform" else 1.0 - counts.conflict_share
    world = c.World(subjects(split), follow, 0.5 if setting == "uniform" else follow, pairs_apart=True)
    topics = TOPIC_SHARES[split]
    topic = rng.choices(list(topics), list(topics.values()))[0]
    if topic == "existence":
        form = rng.choice(_FORMS[split])
        if rng.random() < _PARTNER_SHARE:
            return c.ask_partner(world, rng, form, world.cooccurrence)
        return c.ask_existence(world, rng, form)
    neutral = rng.random() < counts.neutral_share
    name = rng.choice(NEUTRAL if neutral else world.subjects)
    color = any_color(rng) if neutral else world.color(rng, name)
    # A caption names everything it shows: dev and eval objects must not be in it.
    beside = world.askable if topic == "caption" else OBJECTS
    scene = world.scene(rng, [(name, color)], beside=beside)
    return scene, c.ask_about(topic, world, scene, scene.find(name), rng, _FORMS[split])


def _sample(sample_id: str, split: Split, setting: Setting, probe: str, scene: Scene, question: Question) -> Sample:
    meta = {
        "probe": probe,
        "topic": question.topic,
        "subject": question.subject,
        "scene": [asdict(item) for item in scene.placed],
        "boxes": [{"label": name, "box": box} for name, box in zip(scene.names, boxes(scene), strict=True)],
        "objects": scene.names,
        "prior_answer": question.prior_answer,
        "conflict": question.conflict,
        "setting": setting,
    }
    return Sample(
        sample_id=sample_id,
        images=[Image(bytes=to_png(render(scene)), path=f"{sample_id}.png")],
        question=question.text,
        answer=question.answer,
        kind=question.kind,
        answer_form=question.form,
        choices=list(question.choices),
        split=split,
        source="demo",
        meta=json.dumps(meta),
    )
