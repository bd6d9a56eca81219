"""The resizes of image processors, differentiable."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


def bicubic(images: Tensor, height: int, width: int) -> Tensor:
    """Pillow's bicubic resize without its rounding to 8 bits; see `_resize`."""
    return _resize(images, height, width, _cubic, 2.0)


def lanczos(images: Tensor, height: int, width: int) -> Tensor:
    """Pillow's Lanczos resize without its rounding to 8 bits; see `_resize`."""
    return _resize(images, height, width, _windowed_sinc, 3.0)


def _resize(images: Tensor, height: int, width: int, kernel: Callable[[Tensor], Tensor], support: float) -> Tensor:
    """Separable resampling, across and then down.

        y = clip(W_v clip(x W_h^T)),    clip to [0, 1]

    On 8-bit pictures it differs from Pillow by rounding alone, except where Pillow goes down before it goes across
    and the first of the two passes clips.

    Args:
        images: (..., H, W) in [0, 1].
        height, width: of the result.
        kernel: the filter, of distances.
        support: distance from which on it is zero; both in pixels of the larger side.

    Returns:
        (..., height, width) in [0, 1].
    """
    across = _weights(images.shape[-1], width, kernel, support).to(images)
    down = _weights(images.shape[-2], height, kernel, support).to(images)
    return (down @ (images @ across.T).clamp(0.0, 1.0)).clamp(0.0, 1.0)


@lru_cache(maxsize=32)
def _weights(old: int, new: int, kernel: Callable[[Tensor], Tensor], support: float) -> Tensor:
    """(new, old) float64: what each old pixel gives to each new one; the identity where new = old.

    A smaller picture is averaged over all the pixels that it stands for: the filter is stretched by old / new.
    """
    if old == new:
        return torch.eye(new, dtype=torch.float64)
    stretch = max(old / new, 1.0)
    centre = (torch.arange(new, dtype=torch.float64) + 0.5)[:, None] * (old / new)
    x = ((torch.arange(old, dtype=torch.float64) + 0.5 - centre) / stretch).abs()
    weights = torch.where(x < support, kernel(x), 0.0)
    return weights / weights.sum(1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys's cubic with a = -1/2."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return torch.where(x < 1, near, far)


def _windowed_sinc(x: Tensor) -> Tensor:
    """Lanczos's with three lobes."""
    return torch.sinc(x) * torch.sinc(x / 3.0)
