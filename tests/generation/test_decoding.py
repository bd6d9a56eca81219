"""What completions of one prompt share while they are decoded, and that sharing changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from transformers.cache_utils import DynamicLayer

from mbpo_core.errors import DataError
from mbpo_core.generation.cache import GrowingLayer
from mbpo_core.generation.decoding import prefill
from mbpo_core.generation.generate import Generated, answer_and_score, generate
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.packing import Packing
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs

QUESTIONS = ["What color is the banana?", "Describe the image.", "Where?"]


@pytest.fixture
def prompts(demo_policy: Policy, demo_images: list[Image.Image]) -> list[Prompt]:
    return [demo_policy.prepare(question, [image]) for question, image in zip(QUESTIONS, demo_images, strict=False)]


@pytest.fixture
def tokens_read(demo_policy: Policy) -> Iterator[list[tuple[int, ...]]]:
    """(rows, tokens a row) of every pass through the language model."""
    seen: list[tuple[int, ...]] = []

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(tuple(kwargs["inputs_embeds"].shape[:2]))

    hook = demo_policy.model.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    hook.remove()


def _flat(results: list[list[Generated]]) -> list[Generated]:
    return [completion for group in results for completion in group]


def _plain(policy: Policy) -> Policy:
    return replace(policy, packing=Packing("plain"))


@pytest.mark.parametrize("blind", [None, "mask"])
def test_shared_keys_equal_a_copy_for_every_completion(demo_policy: Policy, prompts: list[Prompt], blind: Any) -> None:
    settings: dict[str, Any] = {"completions": 5, "temperature": 1.5, "max_new_tokens": 14, "seeds": [3, 4, 5]}
    shared = _flat(generate(demo_policy, prompts, blind=blind, **settings))
    copied = _flat(generate(_plain(demo_policy), prompts, blind=blind, **settings))
    assert [one.token_ids for one in shared] == [one.token_ids for one in copied]
    assert len({len(one.token_ids) for one in shared}) > 2, "completions should stop at different steps"
    for one, other in zip(shared, copied, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_a_prompt_is_read_once_and_finished_completions_leave(
    demo_policy: Policy, prompts: list[Prompt], tokens_read: list[tuple[int, ...]]
) -> None:
    demo_policy.packing.checked = True
    results = generate(demo_policy, prompts, completions=6, temperature=1.5, max_new_tokens=14, seeds=[3, 4, 5])
    width = max(len(prompt.token_ids) for prompt in prompts)
    assert tokens_read[0] == (3, width)
    for step, (rows, queries) in enumerate(tokens_read[1:], start=1):
        unfinished = [sum(len(one.token_ids) > step for one in group) for group in results]
        assert rows == sum(count > 0 for count in unfinished)
        assert queries == max(unfinished)


def test_no_completion_ends_before_it_may(demo_policy: Policy, prompts: list[Prompt]) -> None:
    free = _flat(generate(demo_policy, prompts, max_new_tokens=12))
    assert min(len(one.token_ids) for one in free) < 9
    forced = generate(
        demo_policy, prompts, completions=2, temperature=1.0, max_new_tokens=12, min_new_tokens=8, seeds=[0, 1, 2]
    )
    assert all(len(one.token_ids) >= 9 for one in _flat(forced))
    # The recorded distribution is the one that was sampled from: without the ids that end a completion.
    one = forced[0][0]
    ends = demo_policy.eos_token_ids
    alternatives = [[*one.token_ids[:1], end] for end in ends]
    (rows,) = group_logprobs(demo_policy, [PromptGroup(prompts[0], [one.token_ids[:2], *alternatives])])
    left = 1 - sum(float(row[1].exp()) for row in rows[1:])
    assert one.logprobs[1] == pytest.approx(float(rows[0][1]) - float(torch.tensor(left).log()), abs=1e-4)


def test_answers_and_scores_come_from_one_prefill(
    demo_policy: Policy, prompts: list[Prompt], tokens_read: list[tuple[int, ...]]
) -> None:
    texts = ["The banana is yellow.", "Yes", "on the left of the red car"]
    completions = [demo_policy.encode_completion(text) for text in texts]
    for blind in (None, "mask", "black"):
        tokens_read.clear()
        both = answer_and_score(demo_policy, prompts, completions, max_new_tokens=10, blind=blind)
        assert [rows for rows, length in tokens_read if length > 1] == [3], "one pass reads prompts and completions"
        answers = _flat(generate(demo_policy, prompts, max_new_tokens=10, blind=blind))
        groups = [PromptGroup(prompt, [tokens]) for prompt, tokens in zip(prompts, completions, strict=True)]
        scores = [row for (row,) in group_logprobs(demo_policy, groups, blind=blind)]
        for (answer, logprobs), alone, expected in zip(both, answers, scores, strict=True):
            assert answer.token_ids == alone.token_ids
            assert answer.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
            torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=0)
    with pytest.raises(DataError, match="special image tokens"):
        answer_and_score(demo_policy, prompts[:1], [demo_policy.banned_token_ids], max_new_tokens=1)
    assert answer_and_score(demo_policy, [], [], max_new_tokens=1) == []


def test_equal_pictures_are_encoded_once(demo_policy: Policy, demo_images: list[Image.Image]) -> None:
    seen: list[int] = []
    hook = demo_policy.model.model.vision_tower.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len((*args, *kwargs.values())[0])), with_kwargs=True
    )
    asked = [demo_policy.prepare(question, [demo_images[0].copy()]) for question in QUESTIONS]
    prefill(demo_policy, asked, 4, None)
    hook.remove()
    assert seen == [1]


def test_growing_buffers_equal_concatenation() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = GrowingLayer(), DynamicLayer()
    rows = 3
    for number, added in enumerate((5, 1, 1, 2, 7, 1)):
        keys, values = (torch.randn(rows, 2, added, 4, generator=generator) for _ in range(2))
        for mine, other in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(mine, other)
        if number == 1:
            ours.batch_repeat_interleave(2), theirs.batch_repeat_interleave(2)
            rows = 6
        if number == 2:
            ours.batch_select_indices(torch.tensor([0, 3, 4])), theirs.batch_select_indices(torch.tensor([0, 3, 4]))
            rows = 3
        if number == 3:
            ours.crop(-4), theirs.crop(-4)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
