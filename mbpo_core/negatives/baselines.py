"""Cheap substitutes for the attack, through the same interface: sign noise, diffusion noise, a blank image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.ball import LEVELS, Ball, to_levels
from mbpo_core.negatives.items import Item, Perturbed, report, stack_images


def sign_noise(policy: Policy, items: Sequence[Item], settings: NegativesConfig) -> Perturbed:
    """Random signs on the surface of the attack's ball: what the attack must beat.

        delta = +-epsilon (linf), +-epsilon / sqrt(3 H W) (l2), each sign with probability 1/2

    Clipped to [0, 1] and rounded into the ball exactly as the attack's result is.
    """
    ball = Ball(settings.norm, to_levels(settings.epsilon))
    clean = stack_images(items)
    signs = torch.cat([torch.randint(0, 2, item.images.shape, generator=_generator(item)) for item in items]) * 2.0 - 1
    size = ball.radius if settings.norm == "linf" else ball.radius / clean[0].numel() ** 0.5
    noisy = (clean + size * signs).clamp(0.0, LEVELS)
    return report(items, noisy, clean + ball.round(noisy - clean), [0] * len(items))


def diffusion_noise(policy: Policy, items: Sequence[Item], settings: NegativesConfig) -> Perturbed:
    """Forward diffusion of the normalised pixels, taken back to [0, 1], clipped and rounded to 8 bits.

        z' = sqrt(abar_s) z + sqrt(1 - abar_s) n,    n ~ N(0, I)

    There is no ball: epsilon does not apply. Schedule: `alpha_bars`.

    Source: VCD arXiv:2311.16922; recipe 2.4.
    """
    clean = stack_images(items)
    abar = alpha_bars()[settings.diffusion_step]
    noise = torch.cat([torch.randn(item.images.shape, generator=_generator(item)) for item in items])
    # pixel_values is affine, z = a x + b, so the image of z' has a closed form without inverting the adapter.
    origin = policy.pixel_values(torch.zeros_like(clean[:1]))
    scale = policy.pixel_values(torch.ones_like(clean[:1])) - origin
    noised = abar.sqrt() * policy.pixel_values(clean / LEVELS) + (1 - abar).sqrt() * noise
    levels = (((noised - origin) / scale) * LEVELS).clamp(0.0, LEVELS)
    return report(items, levels, levels.round(), [0] * len(items))


def blank(policy: Policy, items: Sequence[Item], settings: NegativesConfig) -> Perturbed:
    """The mean-colour image: zeros after normalisation, rounded to 8 bits."""
    clean = stack_images(items)
    origin = policy.pixel_values(torch.zeros_like(clean))
    scale = policy.pixel_values(torch.ones_like(clean)) - origin
    levels = (-origin / scale) * LEVELS
    return report(items, levels, levels.round(), [0] * len(items))


@lru_cache(maxsize=1)
def alpha_bars() -> Tensor:
    """(1000,) float32: abar_s = prod_{j <= s} (1 - beta_j), the cumulative signal share of the VCD schedule.

    With beta_j = sigmoid(linspace(-6, 6, 1000)_j) * (0.005 - 1e-5) + 1e-5
    """
    betas = torch.sigmoid(torch.linspace(-6, 6, 1000, dtype=torch.float64)) * (0.005 - 1e-5) + 1e-5
    return (1 - betas).cumprod(0).float()


def _generator(item: Item) -> torch.Generator:
    return torch.Generator().manual_seed(item.seed)
