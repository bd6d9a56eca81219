"""One item under attack: its iterate, and one step of projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.negatives.ball import LEVELS, Ball
from mbpo_core.negatives.items import Item, Perturbed, Stopped, measured


@dataclass
class Slot:
    """An item's place in the batch; images are (n, 3, H, W) float32 levels, wherever the policy is.

    Nothing here depends on the other slots. Pixels outside the item's region stay as they are, bit for bit: no start
    noise and no gradient reaches them, and a zero change stays zero under every direction, projection and rounding.

    Attributes:
        place: of the item among all items.
        stopped: why the item is finished; None while it goes on.
        curve: mean log p of what is aimed at, before each step.
        next_check: steps after which a changed answer is worth decoding.
    """

    place: int
    item: Item
    ball: Ball
    clean: Tensor
    current: Tensor
    momentum: Tensor
    steps: int = 0
    curve: list[float] = field(default_factory=list)
    stopped: Stopped | None = None
    checks: int = 0
    next_check: int = 0
    proof: Any = None

    @classmethod
    def enter(cls, place: int, item: Item, ball: Ball, settings: NegativesConfig, device: torch.device) -> Slot:
        """The item at x^0: its clean images, or a random point of their balls."""
        clean = item.images.float()
        start = clean.clone()
        if settings.random_start:
            noise = ball.start(item.images.shape, torch.Generator().manual_seed(item.seed), item.region)
            start = (clean + noise).clamp(0.0, LEVELS)
        clean = clean.to(device)
        return cls(place, item, ball, clean, start.to(device), torch.zeros_like(clean))

    def move(self, gradient: Tensor, stride: float, momentum: float) -> None:
        """One step down the gradient (n, 3, H, W), inside the region, back into the ball and the pixel range."""
        if self.item.region is not None:
            # Masked before it is normalised, so that a step has its full size inside the region.
            gradient = gradient.masked_fill(~self.item.region.to(gradient.device), 0.0)
        size = gradient.abs().flatten(1).sum(1).view(-1, 1, 1, 1)
        self.momentum = momentum * self.momentum + gradient / size.clamp_min(1e-30)
        moved = self.current - stride * self.ball.direction(self.momentum)
        self.current = (self.clean + self.ball.project(moved - self.clean)).clamp(0.0, LEVELS)
        self.steps += 1

    def check(self, proof: Any) -> None:
        """Note what decoding the answer gave; a check that fails is repeated after 1, 2, 3 ... further steps."""
        self.checks += 1
        self.next_check = self.steps + self.checks
        if proof is not None:
            self.stopped, self.proof = "flip", proof

    def rounded(self) -> Tensor:
        """(n, 3, H, W) whole levels inside the ball."""
        return self.clean + self.ball.round(self.current - self.clean)

    def result(self) -> Perturbed:
        """What the item leaves with."""
        return measured(
            self.item,
            self.current,
            self.rounded(),
            steps=self.steps,
            curve=self.curve,
            stopped=self.stopped or "steps",
            checks=self.checks,
            proof=self.proof,
        )
