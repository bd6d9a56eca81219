"""What the policy makes of both responses, with the image and blind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbpo_core.errors import DataError, UnusableImage
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.objectives.gain import information_gain, token_gains
from mbpo_core.records import Blind, Dropped, Message, Negative, Part, PreferencePair

STAGE = "pairs"


@dataclass(frozen=True)
class Opened:
    """A batch made ready for the model, in input order.

    Attributes:
        negatives: the rows that can become pairs.
        groups: one a row, chosen first.
        dropped: the rows that cannot.
    """

    negatives: list[Negative]
    groups: list[PromptGroup]
    dropped: list[Dropped]


def open_batch(policy: Policy, negatives: Sequence[Negative]) -> Opened:
    """Decode pictures, render prompts and tokenise; runs no model, and may run in another thread.

    Raises:
        DataError: a text holds the model's image tokens, or prompt and response are too long for it.
    """
    opened = Opened([], [], [])
    for negative in negatives:
        group = _group(policy, negative)
        if isinstance(group, Dropped):
            opened.dropped.append(group)
        else:
            opened.groups.append(group)
            opened.negatives.append(negative)
    return opened


def score(policy: Policy, opened: Opened, blind: Blind) -> list[PreferencePair]:
    """Preference pairs with their gains, in input order.

    Each pair is one group of two completions of the clean image's prompt, chosen first, scored
    twice: with the image and blind. Every token counts, the closing EOS included. Where only the image is
    dispreferred the group has one.

    Args:
        policy: the frozen reference.
        opened: rows scored together.
        blind: how the model is kept from seeing the image.

    Source: recipe 1.3, equation (1), for chosen and rejected.
    """
    seeing = _on_cpu(group_logprobs(policy, opened.groups))
    blinded = _on_cpu(group_logprobs(policy, opened.groups, blind=blind))
    return [_pair(n, s, b, blind) for n, s, b in zip(opened.negatives, seeing, blinded, strict=True)]


def drop(row: Negative | PreferencePair, reason: str, detail: str) -> Dropped:
    """The dead letter of a row."""
    text = json.dumps(row.model_dump(mode="json", exclude={"images", "rejected_images"}), ensure_ascii=False)
    return Dropped(sample_id=row.sample_id, stage=STAGE, reason=reason, detail=detail, row=text)


def _group(policy: Policy, negative: Negative) -> PromptGroup | Dropped:
    texts = [negative.chosen]
    if negative.rejected is not None and negative.rejected.strip():
        texts.append(negative.rejected)
    elif negative.rejected is not None or not negative.rejected_images:
        return drop(negative, "no_rejected", f"the {negative.kind} negative has no rejected response")
    where = f"sample {negative.sample_id}"
    try:
        prompt = policy.prepare(negative.question, [open_image(image) for image in negative.images])
        completions = [policy.encode_completion(text) for text in texts]
    except UnusableImage as error:
        return drop(negative, "unreadable_image", str(error))
    except DataError as error:
        raise DataError(error.what, where=where, expected=error.expected, remedy=error.remedy) from error
    _check_length(policy, prompt, completions, where)
    return PromptGroup(prompt, completions, sample_id=negative.sample_id)


def _check_length(policy: Policy, prompt: Prompt, completions: Sequence[Sequence[int]], where: str) -> None:
    """The miner drops such rows; they get here only if another policy made the negatives."""
    needed = len(prompt.token_ids) + max(map(len, completions))
    if needed > policy.max_positions:
        raise DataError(
            f"prompt and response have {needed} tokens, the model takes {policy.max_positions}",
            where=where,
            remedy="Mine the negatives with the same model.",
        )


def _on_cpu(scored: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Log-probs of each pair's sides in float64; the whole batch leaves the accelerator at once."""
    flat = [logprobs for both in scored for logprobs in both]
    if not flat:
        return []
    pieces = iter(torch.split(torch.cat(flat).cpu().double(), [len(logprobs) for logprobs in flat]))
    return [[next(pieces) for _ in both] for both in scored]


def _pair(negative: Negative, seeing: Sequence[Tensor], blinded: Sequence[Tensor], blind: Blind) -> PreferencePair:
    chosen, blind_chosen = seeing[0], blinded[0]
    rejected = list(zip(seeing, blinded, strict=True))[1:]
    images = [Part(type="image")] * len(negative.images)
    return PreferencePair(
        sample_id=negative.sample_id,
        images=negative.images,
        rejected_images=negative.rejected_images,
        prompt=[Message(role="user", content=[*images, Part(type="text", text=negative.question)])],
        chosen=[_answer(negative.chosen)],
        rejected=[_answer(negative.rejected)] if negative.rejected is not None else [],
        question_kind=negative.question_kind,
        negative_kind=negative.kind,
        blind=blind,
        gain_chosen=float(information_gain(chosen, blind_chosen)),
        gain_rejected=_first(float(information_gain(*both)) for both in rejected),
        token_gains_chosen=token_gains(chosen, blind_chosen).tolist(),
        token_gains_rejected=[gain for both in rejected for gain in token_gains(*both).tolist()],
        logprob_chosen=float(chosen.mean()),
        logprob_rejected=_first(float(seen.mean()) for seen, _ in rejected),
        blind_logprob_chosen=float(blind_chosen.mean()),
        blind_logprob_rejected=_first(float(unseen.mean()) for _, unseen in rejected),
        meta=negative.meta,
    )


def _first(values: Iterable[float]) -> float | None:
    return next(iter(values), None)


def _answer(text: str) -> Message:
    return Message(role="assistant", content=[Part(type="text", text=text)])
