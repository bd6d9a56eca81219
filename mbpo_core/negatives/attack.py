"""Projected gradient descent on the image: start, gradient, normalise, project, clip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import image_logprobs
from mbpo_core.negatives.ball import LEVELS, Ball, to_levels
from mbpo_core.negatives.items import Item, Perturbed, owners, report, stack_images


def attack(policy: Policy, items: Sequence[Item], settings: NegativesConfig) -> Perturbed:
    """Perturb each image inside its ball so that the model loses faith in the chosen answer.

        x^0     = clip(x + u),    u random on the 1/255 grid of the ball
        m^k     = momentum * m^{k-1} + g^k / ||g^k||_1,    g^k = grad_x objective(x^k)
        x^{k+1} = clip(x + project(x^k - step_size * direction(m^k) - x))

    objective = mean log p(chosen | x), which falls; for an item with a target, -mean log p(target | x), so that
    the target's likelihood rises. direction is the sign (linf) or the unit vector (l2); clip keeps [0, 1]. An item
    stops once its mean log p(chosen) is at or below `stop_logprob` (0: never).

    Args:
        policy: attacked with its own gradient; its parameters get none.
        items: B samples; every image has its own ball.
        settings: norm, epsilon, step_size, steps, random_start, momentum, stop_logprob.

    Returns:
        The last iterates, and the same rounded to 8 bits inside the ball.

    Source: recipe 1.4, eq. (2) and (3); PGD arXiv:1706.06083, momentum arXiv:1710.06081.
    """
    ball = Ball(settings.norm, to_levels(settings.epsilon))
    stride = to_levels(settings.step_size)
    clean, owner = stack_images(items), owners(items)
    current = _start(ball, items, clean) if settings.random_start else clean.clone()
    momentum = torch.zeros_like(clean)
    steps = [0] * len(items)
    active = list(range(len(items)))
    for _ in range(settings.steps if ball.radius > 0 else 0):
        chosen, gradient = _gradient(policy, items, active, current[_mine(owner, active)], settings)
        if settings.stop_logprob < 0:
            going = [index for index, value in zip(active, chosen, strict=True) if value > settings.stop_logprob]
            gradient = gradient[_mine(owner[_mine(owner, active)], going)]
            active = going
        if not active:
            break
        mine = _mine(owner, active)
        momentum[mine] = settings.momentum * momentum[mine] + _unit_l1(gradient)
        moved = current[mine] - stride * ball.direction(momentum[mine])
        current[mine] = (clean[mine] + ball.project(moved - clean[mine])).clamp(0.0, LEVELS)
        for index in active:
            steps[index] += 1
    return report(items, current, clean + ball.round(current - clean), steps)


def _start(ball: Ball, items: Sequence[Item], clean: Tensor) -> Tensor:
    noise = [ball.start(item.images.shape, torch.Generator().manual_seed(item.seed)) for item in items]
    return (clean + torch.cat(noise)).clamp(0.0, LEVELS)


def _gradient(
    policy: Policy, items: Sequence[Item], active: list[int], levels: Tensor, settings: NegativesConfig
) -> tuple[list[float], Tensor]:
    """(mean log p(chosen) of each active item, gradient of the summed objectives by `levels`)."""
    prompts = [items[index].prompt for index in active]
    targets = [items[index].target for index in active]
    aims = [target or items[index].chosen for index, target in zip(active, targets, strict=True)]
    with torch.enable_grad():
        pixels = (levels / LEVELS).requires_grad_()
        values = image_logprobs(policy, prompts, aims, pixels)
        signs = torch.tensor([-1.0 if target else 1.0 for target in targets], device=values.device)
        (gradient,) = torch.autograd.grad((signs * values).sum(), pixels)
    chosen = values.detach()
    if settings.stop_logprob < 0 and any(targets):
        with torch.no_grad():
            chosen = image_logprobs(policy, prompts, [items[index].chosen for index in active], pixels.detach())
    return chosen.tolist(), gradient.cpu()


def _mine(owner: Tensor, active: list[int]) -> Tensor:
    """Which images belong to the active items."""
    return torch.isin(owner, torch.tensor(active, dtype=torch.long))


def _unit_l1(gradient: Tensor) -> Tensor:
    size = gradient.abs().flatten(1).sum(1).view(-1, 1, 1, 1)
    return gradient / size.clamp_min(1e-30)
