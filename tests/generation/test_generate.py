"""The decode loop against transformers' own, against teacher forcing, and against itself in other batches."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from mbpo_core.errors import ShapeError
from mbpo_core.generation.generate import Generated, generate
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.records import Blind

QUESTIONS = [
    "What color is the banana?",
    "Describe the image.",
    "Is there a car in the image? Answer with one word.",
    "Where?",
    "How many objects are there?",
]


@pytest.fixture
def prompts(demo_policy: Policy, demo_images: list[Image.Image]) -> list[Prompt]:
    return [demo_policy.prepare(question, [image]) for question, image in zip(QUESTIONS, demo_images, strict=False)]


def _flat(results: list[list[Generated]]) -> list[Generated]:
    return [completion for group in results for completion in group]


def test_greedy_equals_transformers_token_by_token(demo_policy: Policy, demo_images: list[Image.Image]) -> None:
    chats = [
        demo_policy.processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
            add_generation_prompt=True,
        )
        for question in QUESTIONS
    ]
    inputs = demo_policy.processor(images=demo_images[:5], text=chats, padding=True, return_tensors="pt")
    theirs = demo_policy.model.generate(
        **inputs, max_new_tokens=20, do_sample=False, suppress_tokens=demo_policy.banned_token_ids
    )[:, inputs["input_ids"].shape[1] :]
    prompts = [demo_policy.prepare(question, [image]) for question, image in zip(QUESTIONS, demo_images, strict=False)]
    ours = _flat(generate(demo_policy, prompts, max_new_tokens=20))
    for row, generated in zip(theirs.tolist(), ours, strict=True):
        assert row[: len(generated.token_ids)] == generated.token_ids
        assert set(row[len(generated.token_ids) :]) <= {demo_policy.tokenizer.pad_token_id}
    assert len({len(generated.token_ids) for generated in ours}) > 2, "the rows should stop at different steps"


@pytest.mark.parametrize("blind", [None, "mask", "mean", "drop"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_recorded_logprobs_equal_teacher_forcing(
    demo_policy: Policy, prompts: list[Prompt], blind: Blind | None, temperature: float
) -> None:
    results = generate(
        demo_policy, prompts, completions=3, temperature=temperature, max_new_tokens=12, seeds=range(5), blind=blind
    )
    groups = [PromptGroup(p, [c.token_ids for c in group]) for p, group in zip(prompts, results, strict=True)]
    scored = group_logprobs(demo_policy, groups, blind=blind, temperature=temperature or 1.0)
    for group, rows in zip(results, scored, strict=True):
        for completion, row in zip(group, rows, strict=True):
            # 1e-5 on logits; a temperature below 1 stretches them, and the rounding with them.
            assert row.tolist() == pytest.approx(completion.logprobs, abs=1e-5 / (temperature or 1.0))


def test_blind_decoding_equals_a_dense_mask(demo_policy: Policy, prompts: list[Prompt]) -> None:
    ours = _flat(generate(demo_policy, prompts, max_new_tokens=8, blind="mask"))
    for prompt, generated in zip(prompts, ours, strict=True):
        assert generated.token_ids == _slow_blind_greedy(demo_policy, prompt, len(generated.token_ids))


def _slow_blind_greedy(policy: Policy, prompt: Prompt, steps: int) -> list[int]:
    """Full rows without cache under a dense mask that hides the image from every text position."""
    ids = torch.tensor([prompt.token_ids])
    for _ in range(steps):
        length = ids.shape[1]
        is_image = torch.isin(ids[0], torch.tensor(policy.banned_token_ids))
        allowed = torch.ones(length, length, dtype=torch.bool).tril() & ~(~is_image[:, None] & is_image[None, :])
        bias = torch.zeros(1, 1, length, length).masked_fill(~allowed, torch.finfo(torch.float32).min)
        with torch.no_grad():
            logits = policy.model(
                input_ids=ids,
                pixel_values=torch.stack([image.pixel_values for image in prompt.images]),
                attention_mask=bias,
                position_ids=torch.arange(length)[None],
            ).logits
        logits[..., policy.banned_token_ids] = -torch.inf
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return ids[0, len(prompt.token_ids) :].tolist()


def test_results_do_not_depend_on_the_batch(demo_policy: Policy, prompts: list[Prompt]) -> None:
    settings = {"completions": 4, "temperature": 1.5, "max_new_tokens": 10}
    together = generate(demo_policy, prompts, seeds=[10, 11, 12, 13, 14], **settings)  # type: ignore[arg-type]
    for index, prompt in enumerate(prompts):
        (alone,) = generate(demo_policy, [prompt], seeds=[10 + index], **settings)  # type: ignore[arg-type]
        assert [c.token_ids for c in alone] == [c.token_ids for c in together[index]]
        for one, other in zip(alone, together[index], strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    longer = generate(demo_policy, prompts, seeds=[10, 11, 12, 13, 14], **{**settings, "max_new_tokens": 20})  # type: ignore[arg-type]
    for short, long in zip(_flat(together), _flat(longer), strict=True):
        assert long.token_ids[:10] == short.token_ids


def test_seeds_decide_the_samples(demo_policy: Policy, prompts: list[Prompt]) -> None:
    def texts(seeds: list[int]) -> list[str]:
        sampled = generate(demo_policy, prompts[:2], completions=4, temperature=2.0, max_new_tokens=8, seeds=seeds)
        return [completion.text for completion in _flat(sampled)]

    assert texts([1, 2]) == texts([1, 2])
    assert texts([1, 2])[:4] == texts([1, 3])[:4]
    assert texts([1, 2])[4:] != texts([1, 3])[4:]
    assert len(set(texts([1, 2]))) > 3


def test_finish_reasons_and_text(demo_policy: Policy, prompts: list[Prompt]) -> None:
    eos = demo_policy.eos_token_ids[0]
    for limit in (3, 20):
        for completion in _flat(generate(demo_policy, prompts, max_new_tokens=limit)):
            stopped = completion.token_ids[-1] == eos
            assert completion.finish_reason == ("stop" if stopped else "length")
            assert stopped or len(completion.token_ids) == limit
            assert eos not in completion.token_ids[:-1]
            assert completion.text == demo_policy.decode(completion.token_ids)
            assert len(completion.logprobs) == len(completion.token_ids)
            if stopped:
                assert demo_policy.encode_completion(completion.text) == completion.token_ids


def test_first_token_frequencies_follow_the_distribution(demo_policy: Policy, prompts: list[Prompt]) -> None:
    draws = 4000
    (sampled,) = generate(demo_policy, prompts[:1], completions=draws, temperature=3.0, max_new_tokens=1, seeds=[5])
    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in sampled]), minlength=1000)
    assert counts[demo_policy.banned_token_ids].sum() == 0
    vocabulary = [t for t in range(len(demo_policy.tokenizer)) if t not in demo_policy.banned_token_ids]
    (rows,) = group_logprobs(demo_policy, [PromptGroup(prompts[0], [[t] for t in vocabulary])], temperature=3.0)
    expected = torch.stack([row[0] for row in rows]).exp() * draws
    assert expected.sum() == pytest.approx(draws, rel=1e-4)
    observed = counts[vocabulary].float()
    large = expected >= 8
    chi_square = ((observed - expected)[large] ** 2 / expected[large]).sum()
    degrees = int(large.sum())
    assert degrees > 10
    assert chi_square < degrees + 4 * (2 * degrees) ** 0.5


def test_banned_ids_are_never_drawn(
    demo_policy: Policy, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    (likely,) = generate(demo_policy, prompts[:1], max_new_tokens=1)
    monkeypatch.setitem(demo_policy.__dict__, "banned_token_ids", [4, likely[0].token_ids[0]])
    (sampled,) = generate(demo_policy, prompts[:1], completions=200, temperature=1.0, max_new_tokens=1, seeds=[0])
    assert all(c.token_ids[0] not in demo_policy.banned_token_ids for c in sampled)


def test_arguments_are_checked(demo_policy: Policy, prompts: list[Prompt]) -> None:
    assert generate(demo_policy, [], max_new_tokens=4) == []
    for bad in (
        {"temperature": 1.0},
        {"temperature": 1.0, "seeds": [1]},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"completions": 0},
    ):
        with pytest.raises(ShapeError):
            generate(demo_policy, prompts, **{"max_new_tokens": 4, **bad})  # type: ignore[arg-type]
    with pytest.raises(ShapeError):
        generate(demo_policy, prompts, max_new_tokens=0)
