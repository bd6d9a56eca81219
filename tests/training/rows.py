"""Pairs and rollouts for training tests: demo questions, canned completions, true sampling log-probs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mbpo_core.config import PolicyConfig, TrainingConfig
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.models.resolve import resolve_model
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.records import Sample
from mbpo_core.stage import Row
from mbpo_core.training.job import Job, JobRows
from mbpo_core.training.rows import ListTable

POLICY = PolicyConfig(model="demo:absolute", device="cpu")
DIGEST = "base"
SECOND = {"second_reference": str(resolve_model(PolicyConfig(model="demo:soft")))}
"""What objective mrpo needs."""


def conversation(question: str) -> list[Row]:
    """A user turn with its image, as rows hold it."""
    content = [{"type": "image", "text": None}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def pair_rows(samples: list[Sample], count: int, *, rejected_images: bool = False) -> list[Row]:
    """Each sample's answer against the answer of the next sample that has another; if asked, with its picture too."""
    rows = []
    for index, sample in enumerate(samples[:count]):
        others = (samples[(index + shift) % len(samples)] for shift in range(1, len(samples)))
        other = next(one for one in others if one.answer != sample.answer)
        rows.append(pair_row(sample, rejected=other.answer, rejected_image=other if rejected_images else None))
    return rows


def pair_row(sample: Sample, *, rejected: str, rejected_image: Sample | None = None, chosen: str = "") -> Row:
    """A pair on a sample, its rejected image being another sample's picture."""
    row: Row = {
        "sample_id": sample.sample_id,
        "images": [sample.images[0].model_dump()],
        "prompt": conversation(sample.question),
        "chosen": [_answer(chosen or sample.answer)],
        "rejected": [_answer(rejected)],
    }
    if rejected_image is not None:
        assert rejected_image.images[0].bytes != sample.images[0].bytes
        row["rejected_images"] = [rejected_image.images[0].model_dump()]
    return row


def rollout_rows(policy: Policy, samples: list[Sample], count: int, *, size: int = 4, flat: int = 0) -> list[Row]:
    """Groups of canned answers, scored by the policy at temperature 0.8; the first `flat` have equal rewards."""
    rows = []
    for number, sample in enumerate(samples[:count]):
        wrong = next(s.answer for s in samples if s.answer != sample.answer)
        texts = [sample.answer, wrong, *([sample.answer] * size)][:size]
        tokens = [policy.encode_completion(text) for text in texts]
        prompt = policy.prepare(sample.question, [open_image(sample.images[0])])
        logprobs = group_logprobs(policy, [PromptGroup(prompt, tokens)], temperature=0.8)[0]
        rewards = [1.2 if text == sample.answer and number >= flat else 0.2 for text in texts]
        rows.append(
            {
                "sample_id": f"online-{sample.sample_id}",
                "images": [sample.images[0].model_dump()],
                "prompt": conversation(sample.question),
                "temperature": 0.8,
                "policy_digest": DIGEST,
                "completions": [
                    {"token_ids": ids, "logprobs": values.tolist(), "reward": reward}
                    for ids, values, reward in zip(tokens, logprobs, rewards, strict=True)
                ],
            }
        )
    return rows


def job(work: Path, *, rounds: int = 1, round_index: int = 0, **settings: Any) -> Job:
    """A small job on the demo checkpoint; settings override the training section.

    A second reference is scored where `second_reference` names a folder.
    """
    defaults: dict[str, Any] = {
        "learning_rate": 1e-4,
        "pairs_per_step": 2,
        "groups_per_step": 2,
        "micro_groups": 2,
        "checkpoint_every": 1,
        "stop_rule": False,
    }
    folder = str(resolve_model(POLICY))
    return Job(
        config=TrainingConfig(**{**defaults, **settings}),
        policy_config=POLICY,
        policy=folder,
        policy_digest=DIGEST,
        reference=folder,
        reference_digest=DIGEST,
        second_reference=settings.get("second_reference", ""),
        second_reference_digest="second" if settings.get("second_reference") else "",
        seed=3,
        rounds=rounds,
        round_index=round_index,
        work=str(work),
    )


def job_rows(
    policy: Policy,
    samples: list[Sample],
    *,
    pairs: int = 4,
    rollouts: int = 4,
    flat: int = 1,
    rejected_images: bool = False,
) -> JobRows:
    """Pairs and rollouts together."""
    online = rollout_rows(policy, samples[::-1], rollouts, flat=flat)
    return JobRows(ListTable(pair_rows(samples, pairs, rejected_images=rejected_images)), ListTable(online))


def _answer(text: str) -> Row:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}
