"""Rewards of a sampled answer: truth by its verifier, form by the form the question asks for."""

from __future__ import annotations

from mbpo_core.config import RolloutsConfig
from mbpo_core.generation.generate import Generated
from mbpo_core.objectives.overlong import overlong_penalty
from mbpo_core.records import Completion, Sample
from mbpo_core.verifiers.registry import follows_form, rules_of, verify


def reward(generated: Generated, sample: Sample, config: RolloutsConfig) -> Completion:
    """The completion with its verdict and rewards.

        reward = accuracy_reward * [verdict is correct] + format_reward * [finished, and in the asked form]
                 + accuracy_reward * overlong_penalty(tokens)

    An unparsed answer is not correct. Form is judged without truth: a wrong answer in the right form
    earns format_reward, which is below accuracy_reward, so no form outweighs a right answer. An answer
    that was cut off at the length limit is in no form.

    Raises:
        VerifierError: the sample's kind has no verifier, or its reference answer cannot be read.

    Source: recipe 1.5; the penalty for length recipe 4.3.
    """
    judgement = verify(sample.kind, generated.text, sample.answer, sample.choices, rules_of(sample.meta))
    finished = generated.finish_reason == "stop"
    in_form = finished and follows_form(sample.answer_form, sample.kind, generated.text, sample.choices)
    accuracy_reward = config.accuracy_reward if judgement.verdict == "correct" else 0.0
    format_reward = config.format_reward if in_form else 0.0
    length_reward = 0.0
    if config.overlong_share:
        limit = config.max_new_tokens
        # An answer that was cut off would have been longer.
        length = len(generated.token_ids) if finished else limit + 1
        length_reward = config.accuracy_reward * overlong_penalty(length, limit, config.overlong_share * limit)
    return Completion(
        text=generated.text,
        token_ids=generated.token_ids,
        logprobs=generated.logprobs,
        finish_reason=generated.finish_reason,
        extracted=judgement.extracted,
        verdict=judgement.verdict,
        reason=judgement.reason,
        accuracy_reward=accuracy_reward,
        format_reward=format_reward,
        length_reward=length_reward,
        reward=accuracy_reward + format_reward + length_reward,
    )
