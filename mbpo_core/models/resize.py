"""The bicubic resize of image processors, differentiable."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

_SUPPORT = 2.0  # of the bicubic filter, in pixels of the larger side


def bicubic(images: Tensor, height: int, width: int) -> Tensor:
    """Pillow's bicubic resize without its rounding to 8 bits.

        y = clip(W_v clip(x W_h^T)),    clip to [0, 1]

    On 8-bit pictures it differs from Pillow by rounding alone, except where Pillow goes down before it goes across
    and the first of the two passes clips.

    Args:
        images: (..., H, W) in [0, 1].
        height: of the result.
        width: of the result.

    Returns:
        (..., height, width) in [0, 1].
    """
    across = _weights(images.shape[-1], width).to(images)
    down = _weights(images.shape[-2], height).to(images)
    return (down @ (images @ across.T).clamp(0.0, 1.0)).clamp(0.0, 1.0)


@lru_cache(maxsize=16)
def _weights(old: int, new: int) -> Tensor:
    """(new, old) float64: what each old pixel gives to each new one; the identity where new = old.

    A smaller picture is averaged over all the pixels that it stands for: the filter is stretched by old / new.
    """
    stretch = max(old / new, 1.0)
    centre = (torch.arange(new, dtype=torch.float64) + 0.5)[:, None] * (old / new)
    x = ((torch.arange(old, dtype=torch.float64) + 0.5 - centre) / stretch).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    weights = torch.where(x < 1, near, torch.where(x < _SUPPORT, far, 0.0))
    return weights / weights.sum(1, keepdim=True)
