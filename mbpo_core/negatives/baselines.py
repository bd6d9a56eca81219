"""Cheap substitutes for the attack: sign noise, diffusion noise, a blank image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.models.noise import affine, diffused
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.ball import LEVELS, Ball, to_levels
from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.items import Item, Made, Perturbed, measured


def noise(bench: Bench, several: Sequence[Known]) -> list[Made]:
    """Random signs; see `sign_noise`."""
    return [Made.of(sign_noise(known.item(bench.settings), bench.settings)) for known in several]


def diffusion(bench: Bench, several: Sequence[Known]) -> list[Made]:
    """Noise over the whole image; see `diffusion_noise`."""
    items = [known.item(bench.settings) for known in several]
    return [Made.of(diffusion_noise(bench.policy, item, bench.settings.diffusion_step)) for item in items]


def blank(bench: Bench, several: Sequence[Known]) -> list[Made]:
    """Nothing to see; see `mean_colour`."""
    items = [known.item(bench.settings) for known in several]
    return [Made.of(measured(item, *mean_colour(bench.policy, item.images))) for item in items]


def sign_noise(item: Item, settings: NegativesConfig) -> Perturbed:
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


def diffusion_noise(policy: Policy, item: Item, step: int) -> Perturbed:
    """Forward diffusion of the normalised pixels, taken back to [0, 1], clipped and rounded to 8 bits.

        z' = sqrt(abar_s) z + sqrt(1 - abar_s) n,    n ~ N(0, I) where the item's region lets it,    z' = z elsewhere

    There is no ball: epsilon does not apply. Pixels outside the region stay as they are, bit for bit.

    Args:
        policy: its family normalises.
        item: images, region and seed.
        step: s of the VCD schedule, see `mbpo_core.models.noise`.

    Source: VCD arXiv:2311.16922; with a region MFPO arXiv:2410.15334, recipe 2.4, eq. (5).
    """
    levels = diffused(policy.family, item.images, step, item.seed)
    if item.region is not None:
        levels = torch.where(item.region, levels, item.images.float())
    return measured(item, levels, levels.round())


def mean_colour(policy: Policy, images: Tensor) -> tuple[Tensor, Tensor]:
    """The mean-colour images of the same size, in levels: zeros after normalisation, before and after rounding."""
    origin, scale = affine(policy.family, images.float())
    levels = ((-origin / scale) * LEVELS).expand(images.shape)
    return levels, levels.round()


def _generator(item: Item) -> torch.Generator:
    return torch.Generator().manual_seed(item.seed)
