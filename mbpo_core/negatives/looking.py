"""What one pass over the slots shows: gradients, and by the way whether the answers still hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import ImageScores, image_logprobs
from mbpo_core.negatives.ball import LEVELS
from mbpo_core.negatives.slots import Slot


@dataclass(frozen=True)
class Seen:
    """What one pass shows of every slot.

    Attributes:
        gradients: of the objective by the pixels, (n, 3, H, W).
        aims: mean log p of what the attack looks at, the chosen response or the target, nats per token.
        changed: the model seems to answer something else than the chosen response.
        chosen: mean log p(chosen), nats per token; None where no bound asks for it.
    """

    gradients: Sequence[Tensor]
    aims: list[float]
    changed: list[bool]
    chosen: list[float] | None


def look(policy: Policy, slots: Sequence[Slot], settings: NegativesConfig) -> Seen:
    """One forward and one backward pass over all slots."""
    targeted = [slot.item.target is not None for slot in slots]
    with torch.enable_grad():
        pixels = [(slot.current / LEVELS).requires_grad_() for slot in slots]
        scores = _score(policy, slots, [slot.item.aim for slot in slots], pixels)
        signs = torch.tensor([-1.0 if target else 1.0 for target in targeted], device=scores.means.device)
        gradients = torch.autograd.grad((signs * scores.means).sum(), pixels)
    return Seen(
        gradients=gradients,
        aims=scores.means.tolist(),
        changed=[greedy is target for greedy, target in zip(scores.greedy, targeted, strict=True)],
        chosen=_chosen(policy, slots, scores) if settings.stop_logprob < 0 else None,
    )


def _chosen(policy: Policy, slots: Sequence[Slot], scores: ImageScores) -> list[float]:
    """Mean log p(chosen): what was scored, except where a target was scored in its stead."""
    values: list[float] = scores.means.tolist()
    aside = [index for index, slot in enumerate(slots) if slot.item.target is not None]
    if aside:
        few = [slots[index] for index in aside]
        with torch.no_grad():
            pixels = [slot.current / LEVELS for slot in few]
            again = _score(policy, few, [slot.item.chosen for slot in few], pixels).means.tolist()
        for index, value in zip(aside, again, strict=True):
            values[index] = value
    return values


def _score(policy: Policy, slots: Sequence[Slot], completions: list[list[int]], pixels: list[Tensor]) -> ImageScores:
    return image_logprobs(policy, [slot.item.prompt for slot in slots], completions, pixels)
