"""From samples to negatives: perturb, decode on the saved image, filter. Knows nothing of stores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.generation.generate import Generated
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.asking import Asker, Saved, Version, right
from mbpo_core.negatives.choosing import Candidate, Rejected, choose
from mbpo_core.negatives.items import Item, Perturbed
from mbpo_core.negatives.perturb import describe, perturb
from mbpo_core.negatives.tasks import STAGE, Task, drop
from mbpo_core.records import Dropped, Image, Negative
from mbpo_core.seeds import derive_seed


@dataclass(frozen=True)
class Mined:
    """All that is known of a task before its rejected response is chosen."""

    task: Task
    item: Item
    blind: Generated
    clean: Version
    result: Perturbed
    perturbed: Version
    saved: Saved

    def flips(self) -> dict[str, bool]:
        """Whether the model was right on the clean image, and no longer is on the perturbed one."""
        sample = self.task.sample
        before = right(sample, self.clean.answer)
        return {
            "clean_correct": before,
            "flipped": before and not right(sample, self.saved.version.answer),
            "flipped_unrounded": before and not right(sample, self.perturbed.answer),
        }


class Miner:
    """Mines windows of samples with one policy, one set of settings and the run's seed.

    A window is attacked, asked and decoded in batches of neighbouring lengths. Every random number derives from
    (seed, sample_id), so a row does not depend on its neighbours except through float noise in the gradient.
    """

    def __init__(self, policy: Policy, settings: NegativesConfig, seed: int) -> None:
        self.policy = policy
        self.settings = settings
        self.seed = seed
        self.asker = Asker(policy, settings)

    def mine(self, opened: Sequence[Task | Dropped]) -> tuple[list[Negative], list[Dropped]]:
        """Negatives of a window of opened samples in order, and the samples that gave none, with reasons."""
        dropped = [letter for letter in opened if isinstance(letter, Dropped)]
        mined = self._probe([task for task in opened if isinstance(task, Task)])
        candidates = [Candidate(m.task, m.saved.version.prompt, m.saved.version.answer) for m in mined]
        negatives: list[Negative] = []
        for m, outcome in zip(mined, choose(self.policy, candidates, self.settings, self.seed), strict=True):
            if isinstance(outcome, Rejected):
                negatives.append(self._row(m, outcome))
            else:
                # Flips count over all samples; those without a negative are mostly the ones that held out.
                known = {**m.flips(), "attack": self._described(m)}
                dropped.append(drop(m.task.sample, outcome.reason, outcome.detail, **known))
        return negatives, dropped

    def _probe(self, tasks: list[Task]) -> list[Mined]:
        """Perturb the images, save them, and ask the model about every version."""
        blind = self.asker.blind(tasks)
        clean = self.asker.versions(tasks, [task.prompt for task in tasks])
        items = [self._item(*known) for known in zip(tasks, blind, clean, strict=True)]

        def confirm(places: Sequence[int], images: Sequence[Tensor]) -> list[Saved | None]:
            asked = [tasks[place] for place in places]
            told = zip(asked, self.asker.saved(asked, images), strict=True)
            return [None if right(task.sample, saved.version.answer) else saved for task, saved in told]

        results = perturb(self.policy, items, self.settings, confirm if self.settings.stop_on_flip else None)
        saved = self._save(tasks, results)
        before = self.asker.unrounded(tasks, results, saved)
        columns = (tasks, items, blind, clean, results, before, saved)
        return [Mined(*values) for values in zip(*columns, strict=True)]

    def _save(self, tasks: Sequence[Task], results: Sequence[Perturbed]) -> list[Saved]:
        """Store the results; what a confirmed flip has stored and asked already is not done again."""
        missing = [place for place, result in enumerate(results) if result.proof is None]
        stored = self.asker.saved([tasks[place] for place in missing], [results[place].saved for place in missing])
        added = dict(zip(missing, stored, strict=True))
        return [added.get(place, result.proof) for place, result in enumerate(results)]

    def _item(self, task: Task, blind: Generated, clean: Version) -> Item:
        # Where the blind model is right already, raising its answer would raise the chosen one: lower that instead.
        targeted = self.settings.target == "targeted" and not right(task.sample, blind)
        target = blind.token_ids if targeted else None
        seed = derive_seed(self.seed, STAGE, task.sample.sample_id)
        return Item(task.prompt, task.images, task.chosen, target, seed, right(task.sample, clean.answer))

    def _described(self, mined: Mined) -> dict[str, Any]:
        return describe(mined.item, self.settings, mined.result)

    def _row(self, mined: Mined, rejected: Rejected) -> Negative:
        sample = mined.task.sample
        described = self._described(mined)
        return Negative(
            sample_id=sample.sample_id,
            images=sample.images,
            rejected_images=[Image(bytes=data) for data in mined.saved.pngs],
            question=sample.question,
            question_kind=sample.kind,
            answer_form=sample.answer_form,
            kind=self.settings.method,
            chosen=sample.answer,
            rejected=rejected.text,
            clean_answer=mined.clean.answer.text,
            attacked_answer=mined.saved.version.answer.text,
            blind_answer=mined.blind.text,
            **mined.flips(),
            logprob_clean=mined.clean.logprob,
            logprob_attacked=mined.perturbed.logprob,
            logprob_rounded=mined.saved.version.logprob,
            epsilon=described.get("epsilon", 0.0),
            perturbation_linf=mined.result.linf,
            attack=json.dumps(described),
            decode=rejected.decode,
            meta=sample.meta,
        )
