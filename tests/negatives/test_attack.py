"""What must hold of every attack: the ball, the pixel range, the likelihood, the parameters, the seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from mbpo_core.config import NegativesConfig, PolicyConfig
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
        return image_logprobs(policy, [item.prompt for item in items], aims, [image.float() for image in images]).means


def _clean(policy: Policy, items: list[Item]) -> Tensor:
    return _logprobs(policy, items, [item.images / 255 for item in items])


def _saved(policy: Policy, items: list[Item], results: list[Perturbed]) -> Tensor:
    return _logprobs(policy, items, [result.saved / 255 for result in results])


@pytest.mark.parametrize("name", SETTINGS)
def test_inside_the_ball_and_the_pixel_range_and_likelihood_falls(
    demo_policy: Policy, items: list[Item], name: str
) -> None:
    settings = NegativesConfig(**SETTINGS[name])
    results = attack(demo_policy, items, settings)
    for item, result in zip(items, results, strict=True):
        assert result.saved.dtype == torch.uint8
        assert 0 <= result.unrounded.min() <= result.unrounded.max() <= 1
        for image in (result.unrounded.double(), result.saved.double() / 255):
            delta = (image - item.images.double() / 255).flatten()
            size = delta.abs().max() if settings.norm == "linf" else delta.norm()
            assert size <= settings.epsilon * (1 + 1e-5)
            assert size > 0.5 * settings.epsilon
        assert (result.steps, result.stopped, result.checks) == (settings.steps, "steps", 0)
    before = _clean(demo_policy, items)
    assert (_logprobs(demo_policy, items, [result.unrounded for result in results]) < before).all()
    rounded = _saved(demo_policy, items, results)
    assert (rounded < before).all()
    assert (before - rounded).mean() > 0.3
    assert all(parameter.grad is None for parameter in demo_policy.model.parameters())


def test_whole_levels_lose_nothing_by_rounding(demo_policy: Policy, items: list[Item]) -> None:
    for item, result in zip(items, attack(demo_policy, items, NegativesConfig(**SETTINGS["linf"])), strict=True):
        assert result.inexact is None
        assert torch.equal(result.unrounded, result.saved / 255)
        assert (result.saved.int() - item.images.int()).abs().max() == 8
        assert result.linf == pytest.approx(8 / 255)
        reloaded = demo_policy.family.native(open_image({"bytes": png_bytes(result.saved[0])}))
        assert torch.equal(reloaded, result.saved[0])
    off_grid = attack(demo_policy, items, NegativesConfig(**SETTINGS["linf_off_grid"]))
    assert all(result.inexact is not None for result in off_grid)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_epsilon_zero_is_the_identity(demo_policy: Policy, items: list[Item], norm: str) -> None:
    for item, result in zip(items, attack(demo_policy, items, NegativesConfig(norm=norm, epsilon=0)), strict=True):
        assert torch.equal(result.saved, item.images)
        assert (result.inexact, result.linf, result.steps) == (None, 0.0, 0)


def test_equal_seeds_equal_bytes(demo_policy: Policy, items: list[Item]) -> None:
    settings = NegativesConfig(**{**SETTINGS["linf"], "steps": 2})

    def pngs(batch: list[Item]) -> list[bytes]:
        return [png_bytes(result.saved[0]) for result in attack(demo_policy, batch, settings)]

    assert pngs(items) == pngs(items)
    reseeded = [replace(item, seed=item.seed + 100) for item in items]
    assert all(one != other for one, other in zip(pngs(items), pngs(reseeded), strict=True))


def test_targeted_attack_raises_the_target(demo_policy: Policy, items: list[Item]) -> None:
    yellow = demo_policy.encode_completion("The banana is yellow.")
    targeted = [replace(item, target=yellow) for item in items]
    results = attack(demo_policy, targeted, NegativesConfig(**SETTINGS["linf"]))
    before = _logprobs(demo_policy, targeted, [item.images / 255 for item in items], of_target=True)
    after = _logprobs(demo_policy, targeted, [result.unrounded for result in results], of_target=True)
    assert (after > before).all()


@pytest.mark.parametrize("targeted", [False, True])
def test_stop_rule_freezes_each_sample_by_itself(demo_policy: Policy, items: list[Item], targeted: bool) -> None:
    if targeted:
        items = [replace(item, target=demo_policy.encode_completion("The banana is yellow.")) for item in items]
    before = _clean(demo_policy, items)
    threshold = float(before.median()) - 0.2
    settings = NegativesConfig(epsilon=8 / 255, step_size=2 / 255, steps=6, random_start=False, stop_logprob=threshold)
    results = attack(demo_policy, items, settings)
    assert len({result.steps for result in results}) > 1
    after = _logprobs(demo_policy, items, [result.unrounded for result in results])
    for result, start, end, item in zip(results, before, after, items, strict=True):
        assert (result.stopped, result.steps) == ("steps", 6) or end <= threshold + 1e-5
        if start <= threshold:
            assert (result.stopped, result.steps) == ("logprob", 0)
            torch.testing.assert_close(result.unrounded, item.images / 255)
    unstopped = attack(demo_policy, items, settings.model_copy(update={"stop_logprob": 0.0}))
    assert [result.steps for result in unstopped] == [6] * len(items)


def test_several_images_a_sample_have_their_own_balls(demo_policy: Policy, items: list[Item], demo_images: Any) -> None:
    images = torch.stack([demo_policy.family.native(image) for image in demo_images[:2]])
    prompt = demo_policy.prepare("What color is the car?", demo_images[:2])
    both = Item(prompt, images, demo_policy.encode_completion("The car is red."), None, 3)
    settings = NegativesConfig(norm="l2", epsilon=1.0, step_size=0.4, steps=3, random_start=False)
    results = attack(demo_policy, [items[0], both], settings)
    assert [len(result.saved) for result in results] == [1, 2]
    sizes = (results[1].unrounded - images / 255).flatten(1).norm(dim=1)
    assert sizes.tolist() == pytest.approx([1.0, 1.0], rel=0.05)


def _regions(items: list[Item]) -> list[Item]:
    """The items, each with a rectangle of its own that may change."""
    bounded = []
    for place, item in enumerate(items):
        region = torch.zeros(len(item.images), 1, *item.images.shape[-2:], dtype=torch.bool)
        region[..., 3 + place : 24 + place, 8:30] = True
        bounded.append(replace(item, region=region))
    return bounded


@pytest.mark.parametrize("name", SETTINGS)
def test_pixels_outside_the_region_stay_as_they_are(demo_policy: Policy, items: list[Item], name: str) -> None:
    settings = NegativesConfig(**SETTINGS[name])
    bounded = _regions(items)
    results = attack(demo_policy, bounded, settings)
    for item, result in zip(bounded, results, strict=True):
        assert item.region is not None
        outside = ~item.region.expand_as(item.images)
        assert torch.equal(result.saved[outside], item.images[outside])
        assert torch.equal(result.unrounded[outside], (item.images / 255)[outside])
        delta = (result.saved.double() - item.images.double()).flatten() / 255
        size = delta.abs().max() if settings.norm == "linf" else delta.norm()
        assert 0.5 * settings.epsilon < size <= settings.epsilon * (1 + 1e-5), "the ball is used up inside"
    assert (_saved(demo_policy, bounded, results) < _clean(demo_policy, bounded)).all()


@pytest.mark.parametrize("name", ["linf", "l2_momentum", "l2"])
def test_a_region_of_everything_is_none_and_of_nothing_forbids_all(
    demo_policy: Policy, items: list[Item], name: str
) -> None:
    settings = NegativesConfig(**{**SETTINGS[name], "steps": 2})
    plain = attack(demo_policy, items[:3], settings)
    for everything, expected in ((True, plain), (False, None)):
        fill = [torch.full((1, 1, *item.images.shape[-2:]), everything) for item in items[:3]]
        bounded = [replace(item, region=region) for item, region in zip(items[:3], fill, strict=True)]
        for place, result in enumerate(attack(demo_policy, bounded, settings)):
            assert torch.equal(result.saved, items[place].images if expected is None else expected[place].saved)


def test_gradient_agrees_with_finite_differences(tmp_path: Path) -> None:
    policy = load_policy(save_tiny(tmp_path), PolicyConfig(device="cpu"))
    policy.model.double()
    policy.dtype = torch.float64
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 48, 48, generator=generator, dtype=torch.float64)
    prompts = [policy.prepare("What color is the banana?", [Image.new("RGB", (48, 48))])] * 2
    answers = [policy.encode_completion("The banana is yellow."), policy.encode_completion("No")]

    images.requires_grad_()
    (gradient,) = torch.autograd.grad(image_logprobs(policy, prompts, answers, images.split(1)).means.sum(), images)
    for _ in range(4):
        way = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        way /= way.norm()
        with torch.no_grad():
            up, down = (
                image_logprobs(policy, prompts, answers, (images + h * way).split(1)).means.double().sum()
                for h in (0.02, -0.02)
            )
        slope = (gradient * way).sum()
        assert float((up - down) / 0.04) == pytest.approx(float(slope), rel=0.02, abs=2e-4)


def test_bfloat16_policy_is_attacked_too(demo_policy: Policy, items: list[Item]) -> None:
    policy = load_policy(Path(demo_policy.where), PolicyConfig(dtype="bfloat16", device="cpu"))
    results = attack(policy, items[:4], NegativesConfig(**{**SETTINGS["linf"], "steps": 3}))
    assert all(result.inexact is None for result in results)
    assert (_saved(policy, items[:4], results) < _clean(policy, items[:4])).all()
    torch.testing.assert_close(_clean(policy, items), _clean(demo_policy, items), atol=0.2, rtol=0.1)
    assert all(parameter.grad is None for parameter in policy.model.parameters())


def test_the_curve_is_the_likelihood_before_each_step(demo_policy: Policy, items: list[Item]) -> None:
    settings = NegativesConfig(epsilon=8 / 255, step_size=2 / 255, steps=3, random_start=False)
    shorter = [attack(demo_policy, items, settings.model_copy(update={"steps": steps})) for steps in (1, 2)]
    curves = [result.curve for result in attack(demo_policy, items, settings)]
    for place, images in enumerate(
        [[item.images / 255 for item in items], *([r.saved / 255 for r in s] for s in shorter)]
    ):
        seen = _logprobs(demo_policy, items, images, of_target=True)
        assert torch.tensor([curve[place] for curve in curves]).allclose(seen.cpu(), atol=1e-4)
    assert {len(curve) for curve in curves} == {3}
