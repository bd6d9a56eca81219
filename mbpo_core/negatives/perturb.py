"""The ways of perturbing, by the name they have in `negatives.method` and in a row's `kind`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mbpo_core.config import NegativesConfig
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.attack import Confirm, attack
from mbpo_core.negatives.baselines import blank, diffusion_noise, sign_noise
from mbpo_core.negatives.items import Item, Perturbed

BASELINES: dict[str, Callable[[Policy, Item, NegativesConfig], Perturbed]] = {
    "noise": sign_noise,
    "diffusion": diffusion_noise,
    "blank": blank,
}
METHODS = ("adversarial", *BASELINES)

_SETTINGS: dict[str, tuple[str, ...]] = {
    "adversarial": (
        "norm", "epsilon", "step_size", "steps", "random_start", "momentum", "stop_logprob", "stop_on_flip",
    ),
    "noise": ("norm", "epsilon"),
    "diffusion": ("diffusion_step",),
    "blank": (),
}  # fmt: skip


def perturb(
    policy: Policy, items: Sequence[Item], settings: NegativesConfig, confirm: Confirm | None = None
) -> list[Perturbed]:
    """Perturb every item by the configured method; only the attack has a use for `confirm`."""
    if settings.method == "adversarial":
        return attack(policy, items, settings, confirm)
    return [BASELINES[settings.method](policy, item, settings) for item in items]


def describe(item: Item, settings: NegativesConfig, result: Perturbed) -> dict[str, Any]:
    """The settings that made this item's images, as its row records them, and how the attack ended."""
    described: dict[str, Any] = {"method": settings.method, "seed": item.seed}
    described.update({name: getattr(settings, name) for name in _SETTINGS[settings.method]})
    if settings.method == "adversarial":
        described["target"] = "blind_answer" if item.target else "none"
        described["steps_taken"] = result.steps
        described["stopped"] = result.stopped
        described["flip_checks"] = result.checks
    return described
