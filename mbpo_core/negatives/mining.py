"""From samples to negatives: perturb, decode on the saved image, filter. Knows nothing of stores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from mbpo_core.config import NegativesConfig
from mbpo_core.generation.generate import Generated, generate
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.images import open_image, png_bytes
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.negatives import filters
from mbpo_core.negatives.choosing import Candidate, Rejected, choose
from mbpo_core.negatives.items import Item, Perturbed
from mbpo_core.negatives.perturb import describe, perturb
from mbpo_core.negatives.tasks import STAGE, Task, drop, open_task
from mbpo_core.records import Blind, Dropped, Image, Negative, Sample
from mbpo_core.seeds import derive_seed

BLIND: Blind = "mask"


@dataclass(frozen=True)
class Version:
    """The model's view of one version of the image (clean, perturbed, saved)."""

    prompt: Prompt
    answer: Generated  # greedy
    logprob: float  # mean log p(chosen), nats per token


@dataclass(frozen=True)
class Mined:
    """All that is known of a task before its rejected response is chosen."""

    task: Task
    item: Item
    blind: Generated
    clean: Version
    perturbed: Version
    saved: Version
    pngs: list[bytes]
    linf: float
    steps: int

    def flips(self) -> dict[str, bool]:
        """Whether the model was right on the clean image, and no longer is on the perturbed one."""
        right = _right(self.task.sample, self.clean.answer)
        return {
            "clean_correct": right,
            "flipped": right and not _right(self.task.sample, self.saved.answer),
            "flipped_unrounded": right and not _right(self.task.sample, self.perturbed.answer),
        }


class Miner:
    """Mines batches with one policy, one set of settings and the run's seed.

    Every random number derives from (seed, sample_id), so a row does not depend on its batch except through
    float noise in the gradient.
    """

    def __init__(self, policy: Policy, settings: NegativesConfig, seed: int) -> None:
        self.policy = policy
        self.settings = settings
        self.seed = seed

    def mine(self, samples: Sequence[Sample]) -> tuple[list[Negative], list[Dropped]]:
        """Negatives of the samples in order, and the samples that gave none, with reasons.

        Raises:
            DataError: if a question or an answer holds the model's image tokens.
        """
        opened = [open_task(self.policy, sample, self.settings.max_new_tokens) for sample in samples]
        tasks = [task for task in opened if isinstance(task, Task)]
        dropped = [letter for letter in opened if isinstance(letter, Dropped)]
        # Images of one batch must have one size; families with a fixed size always do.
        mined = [m for _, same in groupby(tasks, key=lambda t: t.images.shape[1:]) for m in self._probe(list(same))]
        candidates = [Candidate(m.task, m.saved.prompt, m.saved.answer) for m in mined]
        negatives: list[Negative] = []
        for m, outcome in zip(mined, choose(self.policy, candidates, self.settings, self.seed), strict=True):
            if isinstance(outcome, Rejected):
                negatives.append(self._row(m, outcome))
            else:
                # Flips count over all samples; those without a negative are mostly the ones that held out.
                dropped.append(drop(m.task.sample, outcome.reason, outcome.detail, **m.flips()))
        return negatives, dropped

    def _probe(self, tasks: list[Task]) -> list[Mined]:
        """Perturb images of one native size, save them, and ask the model about every version."""
        prompts = [task.prompt for task in tasks]
        blind = self._greedy(prompts, BLIND)
        items = [self._item(task, answer) for task, answer in zip(tasks, blind, strict=True)]
        result = perturb(self.policy, items, self.settings)
        pngs = [[png_bytes(image) for image in images] for images in result.saved]
        # What is judged is the stored file: it goes through PNG and the processor like any other picture.
        reloaded = [
            self.policy.prepare(task.sample.question, [open_image({"bytes": data}) for data in files])
            for task, files in zip(tasks, pngs, strict=True)
        ]
        clean, saved = self._ask(tasks, prompts), self._ask(tasks, reloaded)
        before = self._ask_unrounded(tasks, result, saved)
        columns = (tasks, items, blind, clean, before, saved, pngs, result.linf, result.steps)
        return [Mined(*values) for values in zip(*columns, strict=True)]

    def _ask_unrounded(self, tasks: list[Task], result: Perturbed, saved: list[Version]) -> list[Version]:
        """The perturbed image before rounding; the saved version itself where rounding changed nothing."""
        rounded = [index for index, exact in enumerate(result.exact) if not exact]
        prompts = [
            Prompt(tasks[index].prompt.token_ids, self.policy.pixel_values(result.unrounded[index]))
            for index in rounded
        ]
        versions = dict(zip(rounded, self._ask([tasks[index] for index in rounded], prompts), strict=True))
        return [versions.get(index, version) for index, version in enumerate(saved)]

    def _ask(self, tasks: list[Task], prompts: list[Prompt]) -> list[Version]:
        groups = [PromptGroup(prompt, [task.chosen]) for prompt, task in zip(prompts, tasks, strict=True)]
        scores = group_logprobs(self.policy, groups)
        answers = self._greedy(prompts)
        return [
            Version(prompt, answer, score.mean().item())
            for prompt, answer, (score,) in zip(prompts, answers, scores, strict=True)
        ]

    def _greedy(self, prompts: list[Prompt], blind: Blind | None = None) -> list[Generated]:
        answers = generate(self.policy, prompts, max_new_tokens=self.settings.max_new_tokens, blind=blind)
        return [answer for (answer,) in answers]

    def _item(self, task: Task, blind: Generated) -> Item:
        # Where the blind model is right already, raising its answer would raise the chosen one: lower that instead.
        targeted = self.settings.target == "targeted" and not _right(task.sample, blind)
        target = blind.token_ids if targeted else None
        seed = derive_seed(self.seed, STAGE, task.sample.sample_id)
        return Item(task.prompt, task.images, task.chosen, target, seed)

    def _row(self, mined: Mined, rejected: Rejected) -> Negative:
        sample = mined.task.sample
        described = describe(mined.item, self.settings, mined.steps)
        return Negative(
            sample_id=sample.sample_id,
            images=sample.images,
            rejected_images=[Image(bytes=data) for data in mined.pngs],
            question=sample.question,
            question_kind=sample.kind,
            answer_form=sample.answer_form,
            kind=self.settings.method,
            chosen=sample.answer,
            rejected=rejected.text,
            clean_answer=mined.clean.answer.text,
            attacked_answer=mined.saved.answer.text,
            blind_answer=mined.blind.text,
            **mined.flips(),
            logprob_clean=mined.clean.logprob,
            logprob_attacked=mined.perturbed.logprob,
            logprob_rounded=mined.saved.logprob,
            epsilon=described.get("epsilon", 0.0),
            perturbation_linf=mined.linf,
            attack=json.dumps(described),
            decode=rejected.decode,
            meta=sample.meta,
        )


def _right(sample: Sample, answer: Generated) -> bool:
    return filters.agrees(answer.text, sample.answer, kind=sample.kind, choices=sample.choices)
