"""The attack's cheap substitutes."""

from __future__ import annotations

import pytest
import torch

from mbpo_core.config import NegativesConfig
from mbpo_core.models.noise import alpha_bars
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import image_logprobs
from mbpo_core.negatives.attack import attack
from mbpo_core.negatives.baselines import diffusion_noise, sign_noise
from mbpo_core.negatives.items import Item, Perturbed
from mbpo_core.records import Sample
from tests.negatives.making import make


def test_noise_has_the_norm_of_the_attack(items: list[Item]) -> None:
    for epsilon, whole in ((8 / 255, 8), (0.0255, 6)):
        settings = NegativesConfig(method="noise", epsilon=epsilon)
        for item in items:
            result = sign_noise(item, settings)
            delta = result.saved.int() - item.images.int()
            unclipped = (item.images > whole) & (item.images < 255 - whole)
            assert set(delta[unclipped].abs().tolist()) == {whole}
            assert delta.abs().max() == whole
            assert abs(delta[unclipped].float().mean()) < 1


def test_l2_noise_has_the_norm_of_the_attack(items: list[Item]) -> None:
    settings = NegativesConfig(method="noise", norm="l2", epsilon=1.5)
    for item in items:
        result = sign_noise(item, settings)
        inner = (item.images > 10) & (item.images < 245)
        share = inner.float().mean().sqrt()
        before = (result.unrounded - item.images / 255)[inner].norm()
        assert float(before / share) == pytest.approx(1.5, rel=1e-3)
        assert 1.2 < (result.saved / 255 - item.images / 255).norm() <= 1.5


def test_noise_hurts_less_than_the_attack(demo_policy: Policy, items: list[Item]) -> None:
    settings = NegativesConfig(steps=5)

    def score(results: list[Perturbed]) -> float:
        images = [result.saved / 255 for result in results]
        prompts, chosen = [item.prompt for item in items], [item.chosen for item in items]
        with torch.no_grad():
            return float(image_logprobs(demo_policy, prompts, chosen, images).means.mean())

    noisy = [sign_noise(item, settings) for item in items]
    assert score(attack(demo_policy, items, settings)) < score(noisy) - 0.5


@pytest.mark.parametrize(
    ("step", "signal", "noise"),
    [
        (100, 0.998, 0.058),
        (200, 0.994, 0.111),
        (300, 0.981, 0.194),
        (400, 0.945, 0.328),
        (500, 0.863, 0.505),
        (600, 0.734, 0.679),
        (700, 0.593, 0.805),
        (800, 0.467, 0.884),
        (999, 0.285, 0.959),
    ],
)
def test_diffusion_schedule(step: int, signal: float, noise: float) -> None:
    abar = alpha_bars()[step]
    assert float(abar.sqrt()) == pytest.approx(signal, abs=6e-4)
    assert float((1 - abar).sqrt()) == pytest.approx(noise, abs=6e-4)


def test_diffusion_noise_is_added_to_normalised_pixels(demo_policy: Policy, items: list[Item]) -> None:
    step = 300
    results = [diffusion_noise(demo_policy, item, step) for item in items]
    normalise = demo_policy.family.normalise
    abar = float(alpha_bars()[step])
    residuals = []
    for item, image in zip(items, [result.unrounded for result in results], strict=True):
        inside = (image > 0) & (image < 1)
        noise = normalise(image) - abar**0.5 * normalise(item.images / 255)
        expected = torch.randn(image.shape, generator=torch.Generator().manual_seed(item.seed))
        torch.testing.assert_close(noise[inside] / (1 - abar) ** 0.5, expected[inside], atol=1e-4, rtol=0)
        residuals.append(inside.float().mean())
    assert min(residuals) > 0.5


def test_blank_is_the_mean_colour(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    for _, made in make(demo_policy, offline_samples[:8], method="blank"):
        assert made.perturbed is not None
        saved = made.perturbed.saved
        assert saved[0, :, 0, 0].tolist() == [123, 117, 104]  # 255 * CLIP mean, rounded
        assert torch.equal(saved, saved[:, :, :1, :1].expand_as(saved))
        assert demo_policy.family.normalise(saved / 255).abs().max() < 0.01


@pytest.mark.parametrize("method", ["adversarial", "noise", "diffusion", "blank"])
def test_equal_seeds_equal_images(demo_policy: Policy, offline_samples: list[Sample], method: str) -> None:
    first, second = (make(demo_policy, offline_samples[:3], method=method, steps=1) for _ in range(2))
    for (known, one), (_, other) in zip(first, second, strict=True):
        assert one.perturbed is not None
        assert other.perturbed is not None
        assert torch.equal(one.perturbed.saved, other.perturbed.saved)
        assert all(torch.equal(a, b) for a, b in zip(one.pictures, one.perturbed.saved, strict=True))
        assert not torch.equal(one.perturbed.saved, known.task.images)
