"""What must hold of every attack: the ball, the pixel range, the likelihood, the parameters, the seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mbpo_core.config import NegativesConfig, PolicyConfig
from mbpo_core.errors import ShapeError
from mbpo_core.models.groups import Prompt
from mbpo_core.models.images import open_image, png_bytes
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.scoring import image_logprobs
from mbpo_core.negatives.attack import attack
from mbpo_core.negatives.items import Item, Perturbed
from tests.models.tiny import save_tiny

SETTINGS: dict[str, dict[str, Any]] = {
    "linf": {"epsilon": 8 / 255, "step_size": 2 / 255, "steps": 5},
    "linf_off_grid": {"epsilon": 0.0255, "step_size": 0.007, "steps": 4, "random_start": False},
    "linf_momentum": {"epsilon": 4 / 255, "step_size": 1 / 255, "steps": 5, "momentum": 0.9},
    "l2": {"norm": "l2", "epsilon": 1.5, "step_size": 0.4, "steps": 5},
    "l2_momentum": {"norm": "l2", "epsilon": 1.0, "step_size": 0.3, "steps": 4, "momentum": 0.5, "random_start": False},
}


def _logprobs(policy: Policy, items: list[Item], images: list[Tensor], *, of_target: bool = False) -> Tensor:
    aims = [item.target if of_target and item.target else item.chosen for item in items]
    with torch.no_grad():
        return image_logprobs(policy, [item.prompt for item in items], aims, torch.cat(images).float())


def _clean(policy: Policy, items: list[Item]) -> Tensor:
    return _logprobs(policy, items, [item.images / 255 for item in items])


@pytest.mark.parametrize("name", SETTINGS)
def test_inside_the_ball_and_the_pixel_range_and_likelihood_falls(
    demo_policy: Policy, items: list[Item], name: str
) -> None:
    settings = NegativesConfig(**SETTINGS[name])
    result = attack(demo_policy, items, settings)
    for item, unrounded, saved in zip(items, result.unrounded, result.saved, strict=True):
        assert saved.dtype == torch.uint8
        assert 0 <= unrounded.min() <= unrounded.max() <= 1
        for image in (unrounded.double(), saved.double() / 255):
            delta = (image - item.images.double() / 255).flatten()
            size = delta.abs().max() if settings.norm == "linf" else delta.norm()
            assert size <= settings.epsilon * (1 + 1e-5)
            assert size > 0.5 * settings.epsilon
    assert result.steps == [settings.steps] * len(items)
    before = _clean(demo_policy, items)
    assert (_logprobs(demo_policy, items, result.unrounded) < before).all()
    rounded = _logprobs(demo_policy, items, [image / 255 for image in result.saved])
    assert (rounded < before).all()
    assert (before - rounded).mean() > 0.3
    assert all(parameter.grad is None for parameter in demo_policy.model.parameters())


def test_whole_levels_lose_nothing_by_rounding(demo_policy: Policy, items: list[Item]) -> None:
    result = attack(demo_policy, items, NegativesConfig(**SETTINGS["linf"]))
    assert all(result.exact)
    for item, unrounded, saved in zip(items, result.unrounded, result.saved, strict=True):
        torch.testing.assert_close(unrounded, saved / 255, atol=1e-7, rtol=0)
        assert (saved.int() - item.images.int()).abs().max() == 8
        reloaded = demo_policy.family.native(open_image({"bytes": png_bytes(saved[0])}))
        assert torch.equal(reloaded, saved[0])
    assert result.linf == pytest.approx([8 / 255] * len(items))
    assert not any(attack(demo_policy, items, NegativesConfig(**SETTINGS["linf_off_grid"])).exact)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_epsilon_zero_is_the_identity(demo_policy: Policy, items: list[Item], norm: str) -> None:
    result = attack(demo_policy, items, NegativesConfig(norm=norm, epsilon=0, steps=3))
    assert all(torch.equal(saved, item.images) for saved, item in zip(result.saved, items, strict=True))
    assert all(result.exact)
    assert result.linf == [0.0] * len(items)


def test_equal_seeds_equal_bytes(demo_policy: Policy, items: list[Item]) -> None:
    settings = NegativesConfig(**{**SETTINGS["linf"], "steps": 2})

    def pngs(batch: list[Item]) -> list[bytes]:
        return [png_bytes(saved[0]) for saved in attack(demo_policy, batch, settings).saved]

    assert pngs(items) == pngs(items)
    reseeded = [replace(item, seed=item.seed + 100) for item in items]
    assert all(one != other for one, other in zip(pngs(items), pngs(reseeded), strict=True))


def test_another_batch_size_changes_float_noise_only(demo_policy: Policy, items: list[Item]) -> None:
    settings = NegativesConfig(**SETTINGS["linf"])
    together = attack(demo_policy, items, settings)
    parts: list[Perturbed] = [attack(demo_policy, items[i : i + 3], settings) for i in (0, 3, 6)]
    saved = [image for part in parts for image in part.saved]
    changed = torch.stack([(a != b).float().mean() for a, b in zip(together.saved, saved, strict=True)])
    assert changed.mean() < 0.02, "only signs of vanishing gradients may differ"
    ours, theirs = (_logprobs(demo_policy, items, [i / 255 for i in images]) for images in (together.saved, saved))
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.05)


def test_targeted_attack_raises_the_target(demo_policy: Policy, items: list[Item]) -> None:
    yellow = demo_policy.encode_completion("The banana is yellow.")
    targeted = [replace(item, target=yellow) for item in items]
    result = attack(demo_policy, targeted, NegativesConfig(**SETTINGS["linf"]))
    before = _logprobs(demo_policy, targeted, [item.images / 255 for item in items], of_target=True)
    after = _logprobs(demo_policy, targeted, result.unrounded, of_target=True)
    assert (after > before).all()


@pytest.mark.parametrize("targeted", [False, True])
def test_stop_rule_freezes_each_sample_by_itself(demo_policy: Policy, items: list[Item], targeted: bool) -> None:
    if targeted:
        items = [replace(item, target=demo_policy.encode_completion("The banana is yellow.")) for item in items]
    before = _clean(demo_policy, items)
    threshold = float(before.median()) - 0.2
    settings = NegativesConfig(epsilon=8 / 255, step_size=2 / 255, steps=6, random_start=False, stop_logprob=threshold)
    result = attack(demo_policy, items, settings)
    assert len(set(result.steps)) > 1
    after = _logprobs(demo_policy, items, result.unrounded)
    for steps, start, end, item, image in zip(result.steps, before, after, items, result.unrounded, strict=True):
        assert steps == 6 or end <= threshold
        if start <= threshold:
            assert steps == 0
            torch.testing.assert_close(image, item.images / 255)
    unstopped = attack(demo_policy, items, settings.model_copy(update={"stop_logprob": 0.0}))
    assert unstopped.steps == [6] * len(items)


def test_several_images_a_sample_have_their_own_balls(demo_policy: Policy, items: list[Item], demo_images: Any) -> None:
    images = torch.stack([demo_policy.family.native(image) for image in demo_images[:2]])
    prompt = demo_policy.prepare("What color is the car?", demo_images[:2])
    both = Item(prompt, images, demo_policy.encode_completion("The car is red."), None, 3)
    settings = NegativesConfig(norm="l2", epsilon=1.0, step_size=0.4, steps=3, random_start=False)
    result = attack(demo_policy, [items[0], both], settings)
    assert [len(saved) for saved in result.saved] == [1, 2]
    sizes = (result.unrounded[1] - images / 255).flatten(1).norm(dim=1)
    assert sizes.tolist() == pytest.approx([1.0, 1.0], rel=0.05)


def test_sizes_must_agree(demo_policy: Policy, items: list[Item]) -> None:
    other = replace(items[1], images=torch.zeros(1, 3, 56, 48, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="one native size"):
        attack(demo_policy, [items[0], other], NegativesConfig())


def test_gradient_agrees_with_finite_differences(tmp_path: Path) -> None:
    policy = load_policy(save_tiny(tmp_path), PolicyConfig(device="cpu"))
    policy.model.double()
    policy.dtype = torch.float64
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 48, 48, generator=generator, dtype=torch.float64)
    question = policy.prepare("What color is the banana?", [])
    image_slot = policy.banned_token_ids * 36
    prompts = [Prompt(question.token_ids[:2] + image_slot + question.token_ids[2:], torch.zeros(1, 3, 48, 48))] * 2
    answers = [policy.encode_completion("The banana is yellow."), policy.encode_completion("No")]

    images.requires_grad_()
    (gradient,) = torch.autograd.grad(image_logprobs(policy, prompts, answers, images).sum(), images)
    for _ in range(4):
        way = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        way /= way.norm()
        with torch.no_grad():
            up, down = (
                image_logprobs(policy, prompts, answers, images + h * way).double().sum() for h in (0.02, -0.02)
            )
        slope = (gradient * way).sum()
        assert float((up - down) / 0.04) == pytest.approx(float(slope), rel=0.02, abs=2e-4)


def test_bfloat16_policy_is_attacked_too(demo_policy: Policy, items: list[Item]) -> None:
    policy = load_policy(Path(demo_policy.where), PolicyConfig(dtype="bfloat16", device="cpu"))
    result = attack(policy, items[:4], NegativesConfig(**{**SETTINGS["linf"], "steps": 3}))
    assert all(result.exact)
    saved = [image / 255 for image in result.saved]
    assert (_logprobs(policy, items[:4], saved) < _clean(policy, items[:4])).all()
    torch.testing.assert_close(_clean(policy, items), _clean(demo_policy, items), atol=0.2, rtol=0.1)
    assert all(parameter.grad is None for parameter in policy.model.parameters())
