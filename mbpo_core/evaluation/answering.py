"""From questions to Prediction rows: greedy answers with the image and without it, judged by the verifiers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbpo_core.config import EvaluationConfig
from mbpo_core.errors import DataError, UnusableImage, VerifierError
from mbpo_core.evaluation.outcomes import parse_meta
from mbpo_core.evaluation.vocabulary import split_words
from mbpo_core.records import CLOSED_KINDS, Blind, Dropped
from mbpo_core.seeds import derive_seed
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


def probe_of(sample: Row) -> str:
    """The evaluation set a sample belongs to: `probe` of its meta, else its kind."""
    return str(parse_meta(sample["meta"]).get("probe") or sample["kind"])


def choose_questions(samples: Iterable[Row], per_probe: int) -> set[str]:
    """Ids of at most `per_probe` samples a probe.

    The choice is by a hash of the id: it does not favour what comes first, and every run, seed and policy gets the
    same questions.

    Args:
        samples: rows with sample_id, kind and meta; streamed.
        per_probe: most questions a probe, >= 1.
    """
    by_probe: dict[str, list[tuple[int, str]]] = {}
    for sample in samples:
        sample_id = sample["sample_id"]
        best = by_probe.setdefault(probe_of(sample), [])
        best.append((derive_seed(0, "evaluation", "question", sample_id), sample_id))
        if len(best) >= 2 * per_probe:
            best[:] = sorted(best)[:per_probe]
    return {sample_id for best in by_probe.values() for _, sample_id in sorted(best)[:per_probe]}


def open_questions(policy: Policy, samples: Iterable[Row]) -> Opened:
    """Decode pictures and render prompts; runs no model, and may run in another thread.

    Raises:
        DataError: a question holds the model's image tokens.
    """
    opened = Opened([], [], [])
    for sample in samples:
        prepared = _prepare(policy, sample)
        if isinstance(prepared, Dropped):
            opened.dropped.append(prepared)
        else:
            opened.samples.append(sample)
            opened.prompts.append(prepared)
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
        keep_images: write the images into the rows. The stage does so for its first policy only: all policies are
            asked about the same images, and a row is found again by sample_id.

    Returns:
        Prediction rows in order.
    """
    asked, prompts = opened.samples, opened.prompts
    texts = _greedy(policy, prompts, config)
    closed = [index for index, sample in enumerate(asked) if sample["kind"] in CLOSED_KINDS]
    blind = _blind(policy, [prompts[index] for index in closed], config)
    blind_texts = dict(zip(closed, blind, strict=True))
    return [
        _prediction(label, sample, texts[index], blind_texts.get(index), keep_images=keep_images)
        for index, sample in enumerate(asked)
    ]


def judge(sample: Row, text: str, answer: str | None = None) -> tuple[str, str | None]:
    """(verdict, extracted answer) of a text: by the kind's verifier, or word for word where there is none.

    Args:
        sample: a Sample row.
        text: what the policy said.
        answer: what to compare with instead of the reference answer.
    """
    from mbpo_core.verifiers.registry import verify

    gold = sample["answer"] if answer is None else answer
    if sample["kind"] not in CLOSED_KINDS:
        return ("correct" if split_words(text) == split_words(gold) else "wrong"), None
    judgement = verify(sample["kind"], text, gold, sample["choices"], sample["answer_form"])
    return judgement.verdict, judgement.extracted


def _prepare(policy: Policy, sample: Row) -> Prompt | Dropped:
    """The prompt, or why the question cannot be asked.

    Raises:
        DataError: the question holds the model's image tokens.
    """
    from mbpo_core.models.images import open_image
    from mbpo_core.verifiers.registry import require_answer

    try:
        if sample["kind"] in CLOSED_KINDS:
            require_answer(sample["kind"], sample["answer"], sample["choices"])
    except VerifierError as error:
        return _drop(sample, "unverifiable", error)
    try:
        return policy.prepare(sample["question"], [open_image(image) for image in sample["images"]])
    except UnusableImage as error:
        return _drop(sample, "unreadable_image", error)
    except DataError as error:
        raise DataError(error.what, where=f"sample {sample['sample_id']}", remedy=error.remedy) from error


def _drop(sample: Row, reason: str, error: Exception) -> Dropped:
    plain = {key: value for key, value in sample.items() if key != "images"}
    return Dropped(
        sample_id=sample["sample_id"],
        stage="evaluation",
        reason=reason,
        detail=str(error),
        row=json.dumps(plain, default=str),
    )


def _greedy(
    policy: Policy, prompts: Sequence[Prompt], config: EvaluationConfig, blind: Blind | None = None
) -> list[str]:
    from mbpo_core.generation.generate import generate

    generated = generate(policy, prompts, max_new_tokens=config.max_new_tokens, blind=blind)
    return [completions[0].text for completions in generated]


def _blind(policy: Policy, prompts: Sequence[Prompt], config: EvaluationConfig) -> list[str]:
    """Answers without the image; where nothing of it is left, equal texts of the batch are answered once."""
    if config.blind not in ("mask", "drop"):
        return _greedy(policy, prompts, config, config.blind)
    distinct = {tuple(prompt.token_ids): prompt for prompt in prompts}
    texts = dict(zip(distinct, _greedy(policy, list(distinct.values()), config, config.blind), strict=True))
    return [texts[tuple(prompt.token_ids)] for prompt in prompts]


def _prediction(label: str, sample: Row, text: str, blind_text: str | None, *, keep_images: bool) -> Row:
    verdict, extracted = judge(sample, text)
    meta = parse_meta(sample["meta"])
    prior = meta.get("prior_answer")
    if sample["kind"] in CLOSED_KINDS and isinstance(prior, str):
        meta["says_prior"] = _says(sample, text, prior)
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


def _says(sample: Row, text: str, prior: str) -> bool | None:
    """Whether the text gives the prior's answer; None where that answer itself cannot be read."""
    try:
        return judge(sample, text, prior)[0] == "correct"
    except VerifierError:
        return None


def questions_of(reader: Any, config: EvaluationConfig) -> Any:
    """A view of the samples that are asked.

    Args:
        reader: the samples artifact.
        config: split and questions a probe.

    Raises:
        DataError: the split holds no sample.
    """
    held_out = reader.where("split", [config.split])
    if not held_out.count():
        raise DataError(
            f"no sample is in the {config.split} split",
            where="samples",
            expected="held-out questions",
            remedy="Set samples.split_column, or lower offline_share + online_share + dev_share.",
        )
    if not config.per_probe:
        return held_out
    rows = held_out.rows(columns=["sample_id", "kind", "meta"])
    return held_out.where("sample_id", sorted(choose_questions(rows, config.per_probe)))
