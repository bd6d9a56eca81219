"""From samples to negatives: make, save, ask about what was saved, filter. Knows nothing of stores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mbpo_core.models.images import png_bytes
from mbpo_core.negatives.asking import Saved, Version, right
from mbpo_core.negatives.attack import attack
from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.choosing import Candidate, Rejected, choose
from mbpo_core.negatives.generators import generator
from mbpo_core.negatives.items import Made, Perturbed, Unmade
from mbpo_core.negatives.tasks import Task, drop
from mbpo_core.records import Dropped, Image, Negative


@dataclass(frozen=True)
class Mined:
    """All that is known of a sample before its rejected response is chosen.

    Attributes:
        made: what the generator made.
        saved: the rejected images as stored, and the model's view of them; the clean ones where there are none.
        unrounded: the model's view before rounding to 8 bits.
    """

    known: Known
    made: Made
    saved: Saved
    unrounded: Version

    def flips(self) -> dict[str, bool]:
        """Whether the model was right on the clean image, and no longer is on the rejected one."""
        sample = self.known.task.sample
        before = right(sample, self.known.clean.answer)
        return {
            "clean_correct": before,
            "flipped": before and not right(sample, self.saved.version.answer),
            "flipped_unrounded": before and not right(sample, self.unrounded.answer),
        }

    def said(self) -> dict[str, str]:
        """What the model says to the saved images, and without one."""
        return {"attacked_answer": self.saved.version.answer.text, "blind_answer": self.known.blind.text}


def adversarial(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade]:
    """Projected gradient descent on the image; see `attack`."""
    from mbpo_core.negatives.regions import find_regions

    settings, items = bench.settings, [known.item(bench.settings) for known in several]
    found = find_regions(bench, [known.task for known in several]) if settings.attack_region else None
    if found is not None:
        items = [replace(item, region=region.masks[:, None]) for item, region in zip(items, found, strict=True)]

    def confirm(places: Sequence[int], images: Sequence[Tensor]) -> list[Saved | None]:
        asked = [several[place].task for place in places]
        told = zip(asked, bench.asker.saved(asked, images), strict=True)
        return [None if right(task.sample, saved.version.answer) else saved for task, saved in told]

    results = attack(bench.policy, items, settings, confirm if settings.stop_on_flip else None)
    how = [
        {
            "target": "blind_answer" if item.target else "none",
            "steps_taken": result.steps,
            "stopped": result.stopped,
            "flip_checks": result.checks,
            "curve": [round(value, 3) for value in result.curve],
        }
        for item, result in zip(items, results, strict=True)
    ]
    if found is None:
        return [Made.of(result, how=taken) for result, taken in zip(results, how, strict=True)]
    return [
        Made.of(result, how=taken | region.how, masks=region.masks, keywords=region.keywords, detector=region.detector)
        for result, taken, region in zip(results, how, found, strict=True)
    ]


class Miner:
    """Mines windows of samples; a window is attacked, asked and decoded in batches of neighbouring lengths."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.settings = bench.settings
        self._make = generator(bench.settings.method)

    def mine(self, opened: Sequence[Task | Dropped]) -> tuple[list[Negative], list[Dropped]]:
        """Negatives of a window of opened samples in order, and the samples that gave none, with reasons."""
        dropped = [letter for letter in opened if isinstance(letter, Dropped)]
        several = self.bench.know([task for task in opened if isinstance(task, Task)])
        known: list[Known] = []
        made: list[Made] = []
        for one, result in zip(several, self._make(self.bench, several), strict=True):
            if isinstance(result, Unmade):
                dropped.append(drop(one.task.sample, result.reason, result.detail))
            else:
                known.append(result.instead or one)
                made.append(result)
        mined = self._look(known, made)
        negatives: list[Negative] = []
        for one_mined, outcome in zip(mined, self._responses(mined), strict=True):
            if isinstance(outcome, Dropped):
                dropped.append(outcome)
            else:
                negatives.append(self._row(one_mined, outcome))
        return negatives, dropped

    def _look(self, known: Sequence[Known], made: Sequence[Made]) -> list[Mined]:
        """Store the rejected images and ask the model about them, before and after rounding."""
        asker, tasks = self.bench.asker, [one.task for one in known]
        # What a confirmed flip has stored and asked already is not done again.
        proofs: list[Saved | None] = [m.perturbed.proof if m.perturbed else None for m in made]
        missing = [place for place, m in enumerate(made) if m.pictures and proofs[place] is None]
        fresh = [_asked(tasks[place], made[place]) for place in missing]
        stored = dict(zip(missing, asker.saved(fresh, [made[place].pictures for place in missing]), strict=True))
        saved = [stored.get(place) or proof or Saved([], known[place].clean) for place, proof in enumerate(proofs)]
        changed = [place for place, m in enumerate(made) if m.perturbed and m.perturbed.inexact is not None]
        results = [_perturbed(made[place]) for place in changed]
        before = asker.unrounded([tasks[p] for p in changed], results, [saved[p] for p in changed])
        exact = dict(zip(changed, before, strict=True))
        columns = zip(known, made, saved, strict=True)
        return [Mined(k, m, s, exact.get(place, s.version)) for place, (k, m, s) in enumerate(columns)]

    def _responses(self, mined: Sequence[Mined]) -> list[Rejected | Dropped]:
        """The rejected response of each, or why there is none."""
        candidates = [Candidate(m.known.task, m.saved.version.prompt, m.saved.version.answer, m.made) for m in mined]
        outcomes = choose(self.bench.policy, candidates, self.settings, self.bench.seed)
        return [
            outcome
            if isinstance(outcome, Rejected)
            # Flips count over all samples; those without a negative are mostly the ones that held out.
            else drop(m.known.task.sample, outcome.reason, outcome.detail, **m.flips(), **m.said(), attack=self._how(m))
            for m, outcome in zip(mined, outcomes, strict=True)
        ]

    def _how(self, mined: Mined) -> dict[str, Any]:
        """All that it takes to make a row again."""
        settings = {"method": self.settings.method, "seed": mined.known.seed, **self.settings.read()}
        return settings | mined.made.how

    def _row(self, mined: Mined, rejected: Rejected) -> Negative:
        sample, made = mined.known.task.sample, mined.made
        read = self.settings.read()
        images = sample.images if made.images is None else [Image(bytes=png_bytes(image)) for image in made.images]
        return Negative(
            sample_id=sample.sample_id,
            images=images,
            rejected_images=[Image(bytes=data) for data in mined.saved.pngs if made.wrong],
            question=made.question or sample.question,
            question_kind=sample.kind,
            answer_form=sample.answer_form,
            kind=self.settings.method,
            chosen=sample.answer,
            rejected=rejected.text,
            clean_answer=mined.known.clean.answer.text,
            **mined.said(),
            **mined.flips(),
            logprob_clean=mined.known.clean.logprob,
            logprob_attacked=mined.unrounded.logprob,
            logprob_rounded=mined.saved.version.logprob,
            epsilon=read.get("epsilon", 0.0),
            perturbation_linf=made.perturbed.linf if made.perturbed else 0.0,
            masks=[] if made.masks is None else [Image(bytes=png_bytes(_grey(mask))) for mask in made.masks],
            keywords=list(made.keywords),
            detector=made.detector,
            attack=json.dumps(self._how(mined)),
            decode=rejected.decode,
            meta=sample.meta,
        )


def _asked(task: Task, made: Made) -> Task:
    """The task as it is asked about the rejected images."""
    return task if made.question is None else task.asking(made.question)


def _perturbed(made: Made) -> Perturbed:
    assert made.perturbed is not None
    return made.perturbed


def _grey(mask: Tensor) -> Tensor:
    """(H, W) bool as a (3, H, W) uint8 picture, white inside."""
    return mask.to(torch.uint8)[None].expand(3, -1, -1) * 255
