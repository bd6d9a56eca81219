"""The geometry of an attack: start, normalise, project, round. Pixels are counted in levels of 1/255.

In levels an image of 8 bits, a radius of 8/255 and a step of 2/255 are whole numbers, which float32 holds
exactly: the sign iterate then never leaves the 8-bit grid and rounding loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LEVELS = 255.0
_BISECTIONS = 24


def to_levels(value: float) -> float:
    """A radius or step in pixels of 0-1 as levels; 8/255 becomes exactly 8."""
    levels = value * LEVELS
    return float(round(levels)) if abs(levels - round(levels)) < 1e-6 else levels


@dataclass(frozen=True)
class Ball:
    """All images within `radius` (levels) of a clean one; images are (M, 3, H, W), each with its own ball."""

    norm: Literal["linf", "l2"]
    radius: float

    def sizes(self, delta: Tensor) -> Tensor:
        """(M,) float64 norms of the perturbations, levels."""
        flat = delta.double().flatten(1)
        return flat.abs().amax(1) if self.norm == "linf" else flat.norm(dim=1)

    def direction(self, gradient: Tensor) -> Tensor:
        """Steepest ascent of unit size: sign(g) for L-infinity, g / ||g||_2 for L2; zero where g is zero."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / _per_image(gradient.flatten(1).norm(dim=1), gradient).clamp_min(1e-30)

    def project(self, delta: Tensor) -> Tensor:
        """The nearest perturbation inside the ball."""
        if self.norm == "linf":
            return delta.clamp(-self.radius, self.radius)
        size = _per_image(delta.flatten(1).norm(dim=1), delta)
        return delta * (self.radius / size.clamp_min(1e-30)).clamp_max(1.0)

    def start(self, shape: torch.Size, generator: torch.Generator, region: Tensor | None = None) -> Tensor:
        """A random whole-level perturbation inside the ball, uniform (L2: up to rounding).

        Args:
            shape: (M, 3, H, W).
            generator: of the random numbers.
            region: (M, 1, H, W) bool; the perturbation is zero elsewhere, and uniform in what is left of the ball.
        """
        inside = torch.ones(1) if region is None else region.float()
        if self.norm == "linf":
            reach = int(self.radius)
            return torch.randint(-reach, reach + 1, tuple(shape), generator=generator).float() * inside
        noise = torch.randn(tuple(shape), generator=generator) * inside
        pixels = inside.expand(shape).flatten(1).sum(1).clamp_min(1.0)
        lengths = torch.rand(shape[0], generator=generator).pow(1.0 / pixels) * self.radius
        size = _per_image(noise.flatten(1).norm(dim=1).clamp_min(1e-30), noise)
        return self.round(noise / size * _per_image(lengths, noise))

    def round(self, delta: Tensor) -> Tensor:
        """Whole levels, still inside the ball: rounding never moves away from the clean image beyond the radius.

        L-infinity: to the nearest level, then clipped to the whole levels of the radius. L2: the largest multiple
        s * delta, s <= 1, whose nearest whole-level neighbour is inside (bisection; its size grows with s).
        """
        nearest = delta.round()
        if self.norm == "linf":
            return nearest.clamp(-float(int(self.radius)), float(int(self.radius)))
        low = torch.zeros(len(delta), dtype=delta.dtype, device=delta.device)
        high = torch.ones_like(low)
        inside = self.sizes(nearest) <= self.radius
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            fits = self.sizes((delta * _per_image(middle, delta)).round()) <= self.radius
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        return torch.where(_per_image(inside, delta), nearest, (delta * _per_image(low, delta)).round())


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
