"""Projected gradient descent on the image, over many samples at once: a finished one makes room for the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.ball import Ball, to_levels
from mbpo_core.negatives.items import Item, Perturbed
from mbpo_core.negatives.looking import Seen, look
from mbpo_core.negatives.slots import Slot

Confirm = Callable[[Sequence[int], Sequence[Tensor]], Sequence[Any]]
"""(places of some items, their iterates rounded to (n, 3, H, W) uint8) -> for each a proof that its answer has
flipped, or None."""


def attack(
    policy: Policy, items: Sequence[Item], settings: NegativesConfig, confirm: Confirm | None = None
) -> list[Perturbed]:
    """Perturb each image inside its ball so that the model loses faith in the chosen answer.

        x^0     = clip(x + u),    u random on the 1/255 grid of the ball
        m^k     = momentum * m^{k-1} + g^k / ||g^k||_1,    g^k = grad_x objective(x^k)
        x^{k+1} = clip(x + project(x^k - step_size * direction(m^k) - x))

    objective = mean log p(chosen | x), which falls; for an item with a target, -mean log p(target | x), so that
    the target's likelihood rises. direction is the sign (linf) or the unit vector (l2); clip keeps [0, 1]. Where an
    item has a region, u and g^k are zero outside it, and so is every change.

    An item takes `steps` steps. It ends earlier where its mean log p(chosen) is at or below `stop_logprob` (0:
    never), or where `confirm` proves that its answer has flipped; that is asked, of items whose answer may flip,
    where the pass itself shows that the chosen answer is not the greedy one, or that the target is. `batch_size`
    items share a pass; when one ends, the next of the queue takes its slot. The queue is sorted by length.

    Args:
        policy: attacked with its own gradient; its parameters get none.
        items: every image has its own ball, every item its own random numbers.
        settings: norm, epsilon, step_size, steps, random_start, momentum, stop_logprob, batch_size.
        confirm: decodes answers and judges them; None attacks on.

    Returns:
        The last iterates, rounded to 8 bits inside the ball, in the order of the items.

    Source: recipe 1.4, eq. (2) and (3); PGD arXiv:1706.06083, momentum arXiv:1710.06081.
    """
    ball = Ball(settings.norm, to_levels(settings.epsilon))
    stride, limit = to_levels(settings.step_size), settings.steps if ball.radius > 0 else 0
    queue = deque(sorted(range(len(items)), key=lambda place: -items[place].length))
    slots: list[Slot] = []
    results: dict[int, Perturbed] = {}
    while queue or slots:
        while queue and len(slots) < settings.batch_size:
            place = queue.popleft()
            slots.append(Slot.enter(place, items[place], ball, settings, policy.device))
        if limit > 0:
            seen = look(policy, slots, settings)
            _stop(slots, seen, settings, confirm)
            for slot, gradient, aim in zip(slots, seen.gradients, seen.aims, strict=True):
                slot.curve.append(aim)
                if slot.stopped is None:
                    slot.move(gradient, stride, settings.momentum)
        results.update((slot.place, slot.result()) for slot in slots if slot.stopped or slot.steps >= limit)
        slots = [slot for slot in slots if slot.place not in results]
    return [results[place] for place in range(len(items))]


def _stop(slots: Sequence[Slot], seen: Seen, settings: NegativesConfig, confirm: Confirm | None) -> None:
    """Mark the slots that are finished before they take another step."""
    if seen.chosen is not None:
        for slot, value in zip(slots, seen.chosen, strict=True):
            if value <= settings.stop_logprob:
                slot.stopped = "logprob"
    if confirm is None:
        return
    asked = [
        slot
        for slot, changed in zip(slots, seen.changed, strict=True)
        if changed and slot.item.may_flip and slot.stopped is None and slot.steps >= slot.next_check
    ]
    if asked:
        images = [slot.rounded().to(torch.uint8).cpu() for slot in asked]
        for slot, proof in zip(asked, confirm([slot.place for slot in asked], images), strict=True):
            slot.check(proof)
