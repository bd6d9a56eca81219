"""The ways of perturbing, by the name they have in `negatives.method` and in a row's `kind`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mbpo_core.config import NegativesConfig
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.attack import attack
from mbpo_core.negatives.baselines import blank, diffusion_noise, sign_noise
from mbpo_core.negatives.items import Item, Perturbed

METHODS: dict[str, Callable[[Policy, Sequence[Item], NegativesConfig], Perturbed]] = {
    "adversarial": attack,
    "noise": sign_noise,
    "diffusion": diffusion_noise,
    "blank": blank,
}

_SETTINGS: dict[str, tuple[str, ...]] = {
    "adversarial": ("norm", "epsilon", "step_size", "steps", "random_start", "momentum", "stop_logprob"),
    "noise": ("norm", "epsilon"),
    "diffusion": ("diffusion_step",),
    "blank": (),
}


def perturb(policy: Policy, items: Sequence[Item], settings: NegativesConfig) -> Perturbed:
    """Perturb a batch by the configured method; the items' native sizes must agree."""
    return METHODS[settings.method](policy, items, settings)


def describe(item: Item, settings: NegativesConfig, steps_taken: int) -> dict[str, Any]:
    """The settings that made this item's images, as its row records them."""
    described: dict[str, Any] = {"method": settings.method, "seed": item.seed}
    described.update({name: getattr(settings, name) for name in _SETTINGS[settings.method]})
    if settings.method == "adversarial":
        described["target"] = "blind_answer" if item.target else "none"
        described["steps_taken"] = steps_taken
    return described
