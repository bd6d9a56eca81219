"""Sampling groups of completions for a batch of prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from mbpo_core.config import RolloutsConfig
from mbpo_core.errors import DataError, UnusableImage, VerifierError
from mbpo_core.models.groups import Prompt
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.records import Dropped, Message, Part, RolloutGroup, Sample
from mbpo_core.rollouts.engines.base import Answers, Engine, PolicyEngine
from mbpo_core.rollouts.rewarding import reward
from mbpo_core.seeds import derive_seed
from mbpo_core.verifiers.registry import find, require_answer, rules_of

STAGE = "rollouts"


@dataclass(frozen=True)
class Opened:
    """A batch made ready for the model, in input order: samples with their prompts, and those that cannot be asked.

    Attributes:
        places: of all of them in the batch, by sample_id.
    """

    samples: list[Sample]
    prompts: list[Prompt]
    dropped: list[Dropped]
    places: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Collector:
    """Samples from one policy in one round.

    Attributes:
        policy: renders the prompts.
        policy_digest: names the policy in every group, because log-probs belong to it alone.
        seed: the run's; each prompt's own seed derives from it, the round and the sample's id.
        engine: samples the completions; the policy itself where there is none.
    """

    policy: Policy
    policy_digest: str
    config: RolloutsConfig
    seed: int
    round_index: int
    engine: Engine | None = None

    def open_batch(self, samples: Sequence[Sample]) -> Opened:
        """Decode pictures and render prompts; runs no model, and may run in another thread.

        Raises:
            DataError: a question holds the model's image tokens.
        """
        opened = Opened([], [], [], {sample.sample_id: place for place, sample in enumerate(samples)})
        for sample in samples:
            prompt = self._prompt(sample)
            if isinstance(prompt, Dropped):
                opened.dropped.append(prompt)
            else:
                opened.samples.append(sample)
                opened.prompts.append(prompt)
        return opened

    def collect(self, opened: Opened) -> list[RolloutGroup]:
        """One group a usable sample, in input order.

        Sampling takes the whole distribution at the configured temperature (no nucleus), so that the recorded
        log-probs are exactly those of the sampling distribution: the ratio's denominator in training.
        """
        engine = self.engine or PolicyEngine(self.policy, self.config)
        seeds = [derive_seed(self.seed, STAGE, self.round_index, sample.sample_id) for sample in opened.samples]
        answers = engine.answer(opened.samples, opened.prompts, seeds)
        return [self._group(sample, group) for sample, group in zip(opened.samples, answers, strict=True)]

    def _prompt(self, sample: Sample) -> Prompt | Dropped:
        try:
            require_answer(sample.kind, sample.answer, sample.choices, rules_of(sample.meta))
        except VerifierError as error:
            return _drop(sample, "unverifiable", str(error))
        try:
            prompt = self.policy.prepare(sample.question, [open_image(image) for image in sample.images])
        except UnusableImage as error:
            return _drop(sample, "unreadable_image", str(error))
        except DataError as error:
            where = f"sample {sample.sample_id}"
            raise DataError(error.what, where=where, expected=error.expected, remedy=error.remedy) from error
        needed, limit = len(prompt.token_ids) + self.config.max_new_tokens, self.policy.max_positions
        if needed > limit:
            return _drop(sample, "prompt_too_long", f"{needed} tokens are needed, the model takes {limit}")
        return prompt

    def _group(self, sample: Sample, answers: Answers) -> RolloutGroup:
        completions = [reward(one, sample, self.config) for one in answers.completions]
        images = [Part(type="image")] * len(sample.images)
        return RolloutGroup(
            sample_id=sample.sample_id,
            images=sample.images,
            prompt=[Message(role="user", content=[*images, Part(type="text", text=sample.question)])],
            answer=sample.answer,
            question_kind=sample.kind,
            answer_form=sample.answer_form,
            choices=sample.choices,
            policy_digest=self.policy_digest,
            round_index=self.round_index,
            temperature=self.config.temperature,
            verifier=find(sample.kind).label,
            zero_variance=len({completion.reward for completion in completions}) == 1,
            completions=completions,
            meta=sample.meta,
            engine_gap=answers.gap,
        )


def _drop(sample: Sample, reason: str, detail: str) -> Dropped:
    row = json.dumps(sample.model_dump(mode="json", exclude={"images"}), ensure_ascii=False)
    return Dropped(sample_id=sample.sample_id, stage=STAGE, reason=reason, detail=detail, row=row)
