"""What the policy says to a version of a sample's images, and what it thinks of the chosen answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.generation.generate import Generated, answer_and_score, generate
from mbpo_core.models.groups import Prompt
from mbpo_core.models.images import open_image, png_bytes
from mbpo_core.models.policy import Policy
from mbpo_core.negatives import filters
from mbpo_core.negatives.batching import by_length
from mbpo_core.negatives.items import Perturbed
from mbpo_core.negatives.tasks import Task
from mbpo_core.records import Blind, Sample

BLIND: Blind = "mask"


@dataclass(frozen=True)
class Version:
    """The model's view of one version of the images (clean, perturbed, saved)."""

    prompt: Prompt
    answer: Generated  # greedy
    logprob: float  # mean log p(chosen), nats per token


@dataclass(frozen=True)
class Saved:
    """The stored version: the files, and the model's view of what is in them."""

    pngs: list[bytes]
    version: Version


@dataclass(frozen=True)
class Asker:
    """Asks in batches of neighbouring lengths; every prompt is read once for answer and likelihood."""

    policy: Policy
    settings: NegativesConfig

    def blind(self, tasks: Sequence[Task]) -> list[Generated]:
        """Greedy answers without the images."""
        answers = by_length(
            [task.prompt for task in tasks],
            lambda prompt: len(prompt.token_ids),
            self.settings.batch_size,
            lambda few: generate(self.policy, few, max_new_tokens=self.settings.max_new_tokens, blind=BLIND),
        )
        return [answer for (answer,) in answers]

    def versions(self, tasks: Sequence[Task], prompts: Sequence[Prompt]) -> list[Version]:
        """Greedy answers to prompts that show the tasks' images in some version."""

        def ask(few: list[tuple[Task, Prompt]]) -> list[Version]:
            asked = [prompt for _, prompt in few]
            chosen = [task.chosen for task, _ in few]
            told = answer_and_score(self.policy, asked, chosen, max_new_tokens=self.settings.max_new_tokens)
            means = [scores.mean() for _, scores in told]
            return [
                Version(prompt, answer, mean.item())
                for prompt, (answer, _), mean in zip(asked, told, means, strict=True)
            ]

        pairs = list(zip(tasks, prompts, strict=True))
        return by_length(pairs, lambda pair: len(pair[1].token_ids), self.settings.batch_size, ask)

    def saved(self, tasks: Sequence[Task], images: Sequence[Iterable[Tensor]]) -> list[Saved]:
        """Store each task's (3, H, W) uint8 images as PNG, read them as any other picture, and ask."""
        pngs = [[png_bytes(image) for image in several] for several in images]
        prompts = [
            self.policy.prepare(task.sample.question, [open_image({"bytes": data}) for data in files])
            for task, files in zip(tasks, pngs, strict=True)
        ]
        versions = self.versions(tasks, prompts)
        return [Saved(files, version) for files, version in zip(pngs, versions, strict=True)]

    def unrounded(self, tasks: Sequence[Task], results: Sequence[Perturbed], saved: Sequence[Saved]) -> list[Version]:
        """The perturbed images before rounding; the saved version itself where rounding changed nothing."""
        changed = [place for place, result in enumerate(results) if result.inexact is not None]
        prompts = [
            Prompt(tasks[place].prompt.token_ids, tuple(self.policy.family.image_inputs(results[place].unrounded)))
            for place in changed
        ]
        asked = dict(zip(changed, self.versions([tasks[place] for place in changed], prompts), strict=True))
        return [asked.get(place, stored.version) for place, stored in enumerate(saved)]


def right(sample: Sample, answer: Generated) -> bool:
    """Whether an answer agrees with the sample's."""
    return filters.agrees(answer.text, sample.answer, kind=sample.kind, choices=sample.choices, meta=sample.meta)
