"""From questions to Prediction rows: greedy answers with the image and without it, judged by the verifiers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbpo_core.config import EvaluationConfig
from mbpo_core.errors import DataError, UnusableImage, VerifierError
from mbpo_core.evaluation.balance import Balance, Look, greedy, look, prepare_look
from mbpo_core.evaluation.judging import judge, says
from mbpo_core.evaluation.outcomes import parse_meta
from mbpo_core.evaluation.questions import probe_of
from mbpo_core.records import CLOSED_KINDS, Dropped
from mbpo_core.stage import Row

if TYPE_CHECKING:
    from mbpo_core.models.groups import Prompt
    from mbpo_core.models.policy import Policy


@dataclass(frozen=True)
class Opened:
    """A batch made ready for the model, in order: questions with their prompts, and those that cannot be asked."""

    samples: list[Row]
    prompts: list[Prompt]
    dropped: list[Dropped]
    looks: list[Look | None]


def open_questions(
    policy: Policy, samples: Iterable[Row], config: EvaluationConfig, balance: Balance | None = None
) -> Opened:
    """Decode pictures and render prompts; runs no model, and may run in another thread.

    Args:
        policy: renders.
        samples: Sample rows.
        config: how the questions that are looked at are asked again.
        balance: which these are; None for none.

    Raises:
        DataError: a question holds the model's image tokens.
    """
    opened = Opened([], [], [], [])
    for sample in samples:
        prepared = _prepare(policy, sample, config.max_new_tokens)
        if isinstance(prepared, Dropped):
            opened.dropped.append(prepared)
        else:
            opened.samples.append(sample)
            opened.prompts.append(prepared)
            opened.looks.append(prepare_look(policy, sample, balance or Balance(), config))
    return opened


def answer_questions(
    policy: Policy, label: str, opened: Opened, config: EvaluationConfig, *, keep_images: bool
) -> list[Row]:
    """Ask one batch of questions, greedily; closed ones also without the image.

    Args:
        policy: answers.
        label: the policy's name in the table.
        opened: Sample rows with their prompts, answered together.
        config: how answers are decoded and how the policy is blinded.
        keep_images: write the images into the rows. The stage does so for the base only: all policies are
            asked about the same images, and a row is found again by sample_id.

    Returns:
        Prediction rows in order.
    """
    asked, prompts = opened.samples, opened.prompts
    answers = greedy(policy, prompts, config)
    closed = [index for index, sample in enumerate(asked) if sample["kind"] in CLOSED_KINDS]
    blind = _blind(policy, [prompts[index] for index in closed], config)
    blind_texts = dict(zip(closed, blind, strict=True))
    looked = look(policy, asked, prompts, answers, opened.looks, config)
    return [
        _prediction(label, sample, answers[index].text, blind_texts.get(index), keep_images=keep_images) | looked[index]
        for index, sample in enumerate(asked)
    ]


def _prepare(policy: Policy, sample: Row, max_new_tokens: int) -> Prompt | Dropped:
    """The prompt, or why the question cannot be asked.

    Raises:
        DataError: the question holds the model's image tokens.
    """
    from mbpo_core.models.images import open_image
    from mbpo_core.verifiers.registry import require_answer, rules_of

    try:
        if sample["kind"] in CLOSED_KINDS:
            require_answer(sample["kind"], sample["answer"], sample["choices"], rules_of(sample["meta"]))
    except VerifierError as error:
        return _drop(sample, "unverifiable", error)
    try:
        prompt = policy.prepare(sample["question"], [open_image(image) for image in sample["images"]])
    except UnusableImage as error:
        return _drop(sample, "unreadable_image", error)
    except DataError as error:
        where = f"sample {sample['sample_id']}"
        raise DataError(error.what, where=where, expected=error.expected, remedy=error.remedy) from error
    needed, limit = len(prompt.token_ids) + max_new_tokens, policy.max_positions
    if needed > limit:
        return _drop(sample, "prompt_too_long", f"{needed} tokens are needed, the model takes {limit}")
    return prompt


def _drop(sample: Row, reason: str, why: object) -> Dropped:
    plain = {key: value for key, value in sample.items() if key != "images"}
    return Dropped(
        sample_id=sample["sample_id"],
        stage="evaluation",
        reason=reason,
        detail=str(why),
        row=json.dumps(plain, default=str),
    )


def _blind(policy: Policy, prompts: Sequence[Prompt], config: EvaluationConfig) -> list[str]:
    """Answers without the image; where nothing of it is left, equal texts of the batch are answered once."""
    if config.blind not in ("mask", "drop"):
        return [said.text for said in greedy(policy, prompts, config, config.blind)]
    distinct = {tuple(prompt.token_ids): prompt for prompt in prompts}
    answers = dict(zip(distinct, greedy(policy, list(distinct.values()), config, config.blind), strict=True))
    return [answers[tuple(prompt.token_ids)].text for prompt in prompts]


def _prediction(label: str, sample: Row, text: str, blind_text: str | None, *, keep_images: bool) -> Row:
    verdict, extracted = judge(sample, text)
    meta = parse_meta(sample["meta"])
    prior = meta.get("prior_answer")
    if sample["kind"] in CLOSED_KINDS and isinstance(prior, str):
        meta["says_prior"] = says(sample, text, prior)
    return {
        "policy": label,
        "sample_id": sample["sample_id"],
        "images": sample["images"] if keep_images else [],
        "question": sample["question"],
        "answer": sample["answer"],
        "question_kind": sample["kind"],
        "probe": probe_of(sample),
        "text": text,
        "extracted": extracted,
        "verdict": verdict,
        "blind_text": blind_text,
        "blind_verdict": None if blind_text is None else judge(sample, blind_text)[0],
        "meta": json.dumps(meta),
    }
