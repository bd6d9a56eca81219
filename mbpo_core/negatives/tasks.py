"""Samples made ready for mining: decoded, rendered, tokenised, or dropped with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mbpo_core.errors import DataError, UnusableImage
from mbpo_core.models.groups import Prompt
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.records import Dropped, Sample, message_text

STAGE = "negatives"


@dataclass(frozen=True)
class Task:
    """A readable sample.

    Attributes:
        prompt: the question with the clean images.
        images: (n, 3, H, W) uint8, the clean images at native size.
        chosen: token ids of the reference answer.
        rejected: a rejected response that came with it, from the data or from a pair; None where none did.
    """

    sample: Sample
    prompt: Prompt
    images: Tensor
    chosen: list[int]
    rejected: str | None = None

    def asking(self, question: str) -> Task:
        """The same with another question; its prompt is not rendered anew."""
        return replace(self, sample=self.sample.model_copy(update={"question": question}))


def open_tasks(policy: Policy, samples: Iterable[Sample], max_new_tokens: int) -> list[Task | Dropped]:
    """`open_task` of every sample; nothing here needs the model, so it may run ahead of it in another thread."""
    return [open_task(policy, sample, max_new_tokens) for sample in samples]


def open_task(policy: Policy, sample: Sample, max_new_tokens: int) -> Task | Dropped:
    """Decode and render one sample; a picture that cannot be read or a prompt that is too long is a reason.

    Raises:
        DataError: if question or answer hold the model's image tokens.
    """
    if not sample.images:
        return drop(sample, "unreadable_image", "the sample has no image to perturb")
    try:
        pictures = [open_image(image) for image in sample.images]
        prompt = policy.prepare(sample.question, pictures)
        chosen = policy.encode_completion(sample.answer)
    except UnusableImage as error:
        return drop(sample, "unreadable_image", str(error))
    except DataError as error:
        where = f"sample {sample.sample_id}"
        raise DataError(error.what, where=where, expected=error.expected, remedy=error.remedy) from error
    needed = len(prompt.token_ids) + max(len(chosen), max_new_tokens)
    if needed > policy.max_positions:
        return drop(sample, "prompt_too_long", f"{needed} tokens are needed, the model takes {policy.max_positions}")
    images = [policy.family.native(picture) for picture in pictures]
    if len(sizes := {tuple(image.shape[1:]) for image in images}) > 1:
        return drop(sample, "unreadable_image", f"its images have native sizes {sorted(sizes)}; they must be of one")
    return Task(sample, prompt, torch.stack(images), chosen, sample.rejected)


def sample_of_pair(pair: Mapping[str, Any], sample: Mapping[str, Any]) -> Sample:
    """A preference pair as the sample it came from, its rejected response included.

    Args:
        pair: a row of `PreferencePair`.
        sample: what the pair does not carry of its sample: answer_form, choices, source.
    """
    return Sample(
        sample_id=pair["sample_id"],
        images=pair["images"],
        question=message_text(pair["prompt"]),
        answer=message_text(pair["chosen"]),
        rejected=message_text(pair["rejected"]) if pair["rejected"] else None,
        kind=pair["question_kind"],
        answer_form=sample["answer_form"],
        choices=sample["choices"],
        split="offline",
        source=sample["source"],
        meta=pair["meta"],
    )


def drop(sample: Sample, reason: str, detail: str, **outcome: Any) -> Dropped:
    """The dead letter of a sample; what mining found out about it joins the row's JSON."""
    row = {**sample.model_dump(mode="json", exclude={"images"}), **outcome}
    return Dropped(sample_id=sample.sample_id, stage=STAGE, reason=reason, detail=detail, row=json.dumps(row))
