"""Cheap substitutes for the attack, through the same interface: sign noise, diffusion noise, a blank image."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.ball import LEVELS, Ball, to_levels
from mbpo_core.negatives.items import Item, Perturbed, measured


def sign_noise(policy: Policy, item: Item, settings: NegativesConfig) -> Perturbed:
    """Random signs on the surface of the attack's ball: what the attack must beat.

        delta = +-epsilon (linf), +-epsilon / sqrt(3 H W) (l2), each sign with probability 1/2

    Clipped to [0, 1] and rounded into the ball exactly as the attack's result is.
    """
    ball = Ball(settings.norm, to_levels(settings.epsilon))
    clean = item.images.float()
    signs = torch.randint(0, 2, item.images.shape, generator=_generator(item)) * 2.0 - 1
    size = ball.radius if settings.norm == "linf" else ball.radius / clean[0].numel() ** 0.5
    noisy = (clean + size * signs).clamp(0.0, LEVELS)
    return measured(item, noisy, clean + ball.round(noisy - clean))


def diffusion_noise(policy: Policy, item: Item, settings: NegativesConfig) -> Perturbed:
    """Forward diffusion of the normalised pixels, taken back to [0, 1], clipped and rounded to 8 bits.

        z' = sqrt(abar_s) z + sqrt(1 - abar_s) n,    n ~ N(0, I)

    There is no ball: epsilon does not apply. Schedule: `alpha_bars`.

    Source: VCD arXiv:2311.16922; recipe 2.4.
    """
    clean = item.images.float()
    abar = alpha_bars()[settings.diffusion_step]
    noise = torch.randn(item.images.shape, generator=_generator(item))
    # normalise is affine, z = a x + b, so the image of z' has a closed form without inverting the adapter.
    origin = policy.family.normalise(torch.zeros_like(clean[:1]))
    scale = policy.family.normalise(torch.ones_like(clean[:1])) - origin
    noised = abar.sqrt() * policy.family.normalise(clean / LEVELS) + (1 - abar).sqrt() * noise
    levels = (((noised - origin) / scale) * LEVELS).clamp(0.0, LEVELS)
    return measured(item, levels, levels.round())


def blank(policy: Policy, item: Item, settings: NegativesConfig) -> Perturbed:
    """The mean-colour image: zeros after normalisation, rounded to 8 bits."""
    clean = item.images.float()
    origin = policy.family.normalise(torch.zeros_like(clean))
    scale = policy.family.normalise(torch.ones_like(clean)) - origin
    levels = (-origin / scale) * LEVELS
    return measured(item, levels, levels.round())


@lru_cache(maxsize=1)
def alpha_bars() -> Tensor:
    """(1000,) float32: abar_s = prod_{j <= s} (1 - beta_j), the cumulative signal share of the VCD schedule.

    With beta_j = sigmoid(linspace(-6, 6, 1000)_j) * (0.005 - 1e-5) + 1e-5
    """
    betas = torch.sigmoid(torch.linspace(-6, 6, 1000, dtype=torch.float64)) * (0.005 - 1e-5) + 1e-5
    return (1 - betas).cumprod(0).float()


def _generator(item: Item) -> torch.Generator:
    return torch.Generator().manual_seed(item.seed)
