"""Log-probs against a plain forward pass; blinding against a dense mask; gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import DataError, ShapeError
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.scoring import group_logprobs, image_logprobs
from tests.models.tiny import save_tiny

QUESTIONS = ["What color is the banana?", "Yes?", "the dog, the cat, the banana: what color?"]
ANSWERS = [["The banana is yellow.", "Yes"], ["No"], ["A", "the dog", "1 2 3 1 2 3", "B"]]


def _groups(policy: Policy, images: list[Image.Image]) -> list[PromptGroup]:
    return [
        PromptGroup(policy.prepare(question, [image]), [policy.encode_completion(answer) for answer in answers])
        for question, image, answers in zip(QUESTIONS, images, ANSWERS, strict=False)
    ]


def _slow_logprobs(policy: Policy, prompt: Prompt, completion: list[int], *, hide_image: bool = False) -> Tensor:
    """One row, no padding, no sharing, dense 4-D mask, logits everywhere, softmax in float64."""
    ids = torch.tensor([prompt.token_ids + completion])
    length = ids.shape[1]
    is_image = torch.isin(ids[0], torch.tensor(policy.banned_token_ids))
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    if hide_image:
        allowed &= ~(~is_image[:, None] & is_image[None, :])
    bias = torch.zeros(1, 1, length, length).masked_fill(~allowed, torch.finfo(torch.float32).min)
    with torch.no_grad():
        logits = policy.model(
            input_ids=ids,
            pixel_values=torch.stack([image.pixel_values for image in prompt.images]),
            attention_mask=bias,
            position_ids=torch.arange(length)[None],
        ).logits[0].double()  # fmt: skip
    logits[:, policy.banned_token_ids] = -torch.inf
    start = len(prompt.token_ids) - 1
    picked = logits.log_softmax(-1)[start : length - 1]
    return picked.gather(-1, torch.tensor(completion)[:, None])[:, 0]


def test_equals_one_plain_row_at_a_time(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(tiny_policy, demo_images)
    scored = group_logprobs(tiny_policy, groups)
    assert [len(row) for row in scored] == [2, 1, 4]
    for group, rows in zip(groups, scored, strict=True):
        for completion, row in zip(group.completions, rows, strict=True):
            assert row.dtype == torch.float32
            assert not row.requires_grad
            torch.testing.assert_close(
                row.double(), _slow_logprobs(tiny_policy, group.prompt, completion), atol=1e-5, rtol=0
            )


def test_masked_image_equals_a_dense_mask(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(tiny_policy, demo_images)
    for group, rows in zip(groups, group_logprobs(tiny_policy, groups, blind="mask"), strict=True):
        for completion, row in zip(group.completions, rows, strict=True):
            expected = _slow_logprobs(tiny_policy, group.prompt, completion, hide_image=True)
            torch.testing.assert_close(row.double(), expected, atol=1e-5, rtol=0)


def test_demo_checkpoint_blinded_equals_a_dense_mask(demo_policy: Policy, demo_images: list[Image.Image]) -> None:
    group = _groups(demo_policy, demo_images)[0]
    (rows,) = group_logprobs(demo_policy, [group], blind="mask")
    for completion, row in zip(group.completions, rows, strict=True):
        expected = _slow_logprobs(demo_policy, group.prompt, completion, hide_image=True)
        torch.testing.assert_close(row.double(), expected, atol=1e-5, rtol=0)


def test_other_blind_variants(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(tiny_policy, demo_images)
    for blind, colour in (("mean", None), ("black", 0.0)):
        shown = torch.zeros(1, 3, 48, 48)
        if colour is not None:
            shown = tiny_policy.family.normalise(torch.full((1, 3, 48, 48), colour))
        images = (tiny_policy.family.image_input(shown[0]),)
        expected = group_logprobs(
            tiny_policy, [PromptGroup(Prompt(g.prompt.token_ids, images), g.completions) for g in groups]
        )
        _assert_equal(group_logprobs(tiny_policy, groups, blind=blind), expected)
    without = [[t for t in g.prompt.token_ids if t not in tiny_policy.banned_token_ids] for g in groups]
    text_only = [PromptGroup(Prompt(ids), g.completions) for ids, g in zip(without, groups, strict=True)]
    _assert_equal(group_logprobs(tiny_policy, groups, blind="drop"), group_logprobs(tiny_policy, text_only))
    noise = [tiny_policy.family.image_input(torch.randn(3, 48, 48)) for _ in groups]
    other = [PromptGroup(Prompt(g.prompt.token_ids, (n,)), g.completions) for g, n in zip(groups, noise, strict=True)]
    for blind in ("mask", "mean", "black", "drop"):
        _assert_equal(group_logprobs(tiny_policy, groups, blind=blind), group_logprobs(tiny_policy, other, blind=blind))


def test_shuffled_images_change_the_logprobs(demo_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(demo_policy, demo_images)
    shuffled = _groups(demo_policy, demo_images[1:4])
    for rows, others in zip(group_logprobs(demo_policy, groups), group_logprobs(demo_policy, shuffled), strict=True):
        assert (rows[0] - others[0]).abs().max() > 1e-3


def test_padding_and_chunks_do_not_matter(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(tiny_policy, demo_images)
    together = group_logprobs(tiny_policy, groups)
    _assert_equal(group_logprobs(tiny_policy, groups, rows=1), together)
    _assert_equal(group_logprobs(tiny_policy, groups, rows=3), together)


def test_padding_comes_from_lengths_not_from_the_pad_id(tmp_path: Path, demo_images: list[Image.Image]) -> None:
    plain = load_policy(save_tiny(tmp_path / "plain"), PolicyConfig(device="cpu"))
    same = load_policy(save_tiny(tmp_path / "pad_is_eos", pad_is_eos=True), PolicyConfig(device="cpu"))
    assert same.pad_token_id == same.eos_token_ids[0] != plain.pad_token_id
    _assert_equal(group_logprobs(same, _groups(same, demo_images)), group_logprobs(plain, _groups(plain, demo_images)))


def test_temperature_divides_the_logits(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    group = _groups(tiny_policy, demo_images)[1]
    sharp, flat = (group_logprobs(tiny_policy, [group], temperature=t)[0][0] for t in (1e-3, 1e3))
    allowed = tiny_policy.model.config.text_config.vocab_size - len(tiny_policy.banned_token_ids)
    assert torch.allclose(flat, -torch.tensor(float(allowed)).log(), atol=0.02)
    assert sharp.min() < -10
    with pytest.raises(ShapeError):
        group_logprobs(tiny_policy, [group], temperature=0.0)


def test_gradients_are_finite_and_reach_what_is_unfrozen(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(tiny_policy, demo_images)
    trainable = set(tiny_policy.unfreeze("vision"))
    loss = -sum(row.mean() for rows in group_logprobs(tiny_policy, groups, grad=True) for row in rows)
    loss.backward()  # type: ignore[union-attr]
    for name, parameter in tiny_policy.model.named_parameters():
        if name in trainable:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name


def test_banned_and_empty_completions_are_refused(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    prompt = _groups(tiny_policy, demo_images)[0].prompt
    with pytest.raises(DataError, match="special image tokens"):
        group_logprobs(tiny_policy, [PromptGroup(prompt, [[tiny_policy.banned_token_ids[0]]])])
    with pytest.raises(DataError, match="no tokens"):
        group_logprobs(tiny_policy, [PromptGroup(prompt, [[]])])


def test_differentiable_scorer_equals_scoring(tiny_policy: Policy, demo_images: list[Image.Image]) -> None:
    groups = _groups(tiny_policy, demo_images)
    native = torch.stack([tiny_policy.family.native(image) for image in demo_images[:3]])
    firsts = [group.completions[0] for group in groups]
    means = image_logprobs(tiny_policy, [g.prompt for g in groups], firsts, (native / 255).split(1)).means
    expected = torch.stack([rows[0].mean() for rows in group_logprobs(tiny_policy, groups)])
    torch.testing.assert_close(means, expected, atol=1e-5, rtol=0)
    with pytest.raises(ShapeError, match="images came for prompts that have"):
        image_logprobs(tiny_policy, [g.prompt for g in groups], firsts, (native[:2] / 255).split(1))


def _assert_equal(ours: list[list[Tensor]], theirs: list[list[Tensor]], atol: float = 1e-5) -> None:
    assert [len(rows) for rows in ours] == [len(rows) for rows in theirs]
    for rows, others in zip(ours, theirs, strict=True):
        for row, other in zip(rows, others, strict=True):
            torch.testing.assert_close(row, other, atol=atol, rtol=0)
