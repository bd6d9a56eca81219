"""Forward diffusion noise on pictures, on the normalised pixels as VCD adds it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

    from mbpo_core.models.family import Family

_LEVELS = 255.0


def noised_picture(family: Family, picture: Image, step: int, seed: int) -> Image:
    """A picture under diffusion noise, clipped and rounded to 8 bits; see `diffused`."""
    import numpy as np
    from PIL import Image as pil

    clean = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    levels = diffused(family, clean, step, seed).round()
    return pil.fromarray(levels[0].permute(1, 2, 0).to(torch.uint8).numpy())


def diffused(family: Family, images: Tensor, step: int, seed: int) -> Tensor:
    """Forward diffusion of the normalised pixels, taken back to levels and clipped; not rounded.

        z' = sqrt(abar_s) z + sqrt(1 - abar_s) n,    n ~ N(0, I),    z the normalised pixels

    Args:
        family: normalises.
        images: (n, 3, H, W) levels in 0-255.
        step: s of the VCD schedule, see `alpha_bars`; 0 is next to no noise, 999 next to nothing else.
        seed: of the noise.

    Returns:
        (n, 3, H, W) float32 in [0, 255].

    Source: VCD arXiv:2311.16922.
    """
    clean = images.float() / _LEVELS
    abar = alpha_bars()[step]
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    origin, scale = affine(family, clean)
    noised = abar.sqrt() * family.normalise(clean) + (1 - abar).sqrt() * noise
    return (((noised - origin) / scale) * _LEVELS).clamp(0.0, _LEVELS)


def affine(family: Family, images: Tensor) -> tuple[Tensor, Tensor]:
    """normalise is affine, z = a x + b: (b, a) for images of this shape, so that it can be undone by any family."""
    origin = family.normalise(torch.zeros_like(images[:1]))
    return origin, family.normalise(torch.ones_like(images[:1])) - origin


@lru_cache(maxsize=1)
def alpha_bars() -> Tensor:
    """(1000,) float32: abar_s = prod_{j <= s} (1 - beta_j), the cumulative signal share of the VCD schedule.

    With beta_j = sigmoid(linspace(-6, 6, 1000)_j) * (0.005 - 1e-5) + 1e-5
    """
    betas = torch.sigmoid(torch.linspace(-6, 6, 1000, dtype=torch.float64)) * (0.005 - 1e-5) + 1e-5
    return (1 - betas).cumprod(0).float()
