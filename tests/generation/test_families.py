"""The decode loop over every family: against the model's own generation, shared against copied keys, scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from mbpo_core.generation.generate import answer_and_score, generate
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.packing import Packing
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs
from tests.models.oracle import own_logits


def _prompts(policy: Policy, pictures: list[Image.Image]) -> list[Prompt]:
    return [
        policy.prepare("What color is the banana?", pictures[:1]),
        policy.prepare("Yes?", [pictures[1], pictures[0]]),
        policy.prepare("the dog, the cat", pictures[2:3]),
        policy.prepare("1 2 3", []),
    ]


def test_greedy_equals_the_models_own_argmax(family_policy: Policy, pictures: list[Image.Image]) -> None:
    prompts = _prompts(family_policy, pictures)
    answers = generate(family_policy, prompts, max_new_tokens=6, min_new_tokens=5)
    for prompt, (answer,) in zip(prompts, answers, strict=True):
        tokens = list(prompt.token_ids)
        for step, token in enumerate(answer.token_ids):
            logits = own_logits(family_policy, [(tokens, prompt.images)])[0, -1].clone()
            logits[family_policy.banned_token_ids] = -torch.inf
            if step < 5:
                logits[family_policy.eos_token_ids] = -torch.inf
            assert token == int(logits.argmax())
            tokens.append(token)


def test_shared_keys_equal_copied_ones(family_policy: Policy, pictures: list[Image.Image]) -> None:
    prompts = _prompts(family_policy, pictures)
    settings: dict[str, Any] = {"completions": 4, "temperature": 1.0, "max_new_tokens": 9, "seeds": [1, 2, 3, 4]}
    shared = generate(family_policy, prompts, **settings)
    assert family_policy.packing.mode == "auto"
    copied = generate(replace(family_policy, packing=Packing("plain")), prompts, **settings)
    scored = group_logprobs(
        family_policy, [PromptGroup(p, [c.token_ids for c in group]) for p, group in zip(prompts, shared, strict=True)]
    )
    for many, others, rows in zip(shared, copied, scored, strict=True):
        for one, other, row in zip(many, others, rows, strict=True):
            assert one.token_ids == other.token_ids
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
            assert one.logprobs == pytest.approx(row.tolist(), abs=1e-5)


def test_scores_beside_an_answer_equal_scoring(family_policy: Policy, pictures: list[Image.Image]) -> None:
    prompts = _prompts(family_policy, pictures)
    completions = [family_policy.encode_completion(text) for text in ("The banana is yellow.", "Yes", "A B", "No 1 2")]
    both = answer_and_score(family_policy, prompts, completions, max_new_tokens=5)
    answers = generate(family_policy, prompts, max_new_tokens=5)
    groups = [PromptGroup(prompt, [tokens]) for prompt, tokens in zip(prompts, completions, strict=True)]
    for (answer, row), (alone,), (expected,) in zip(both, answers, group_logprobs(family_policy, groups), strict=True):
        assert answer.token_ids == alone.token_ids
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=0)
