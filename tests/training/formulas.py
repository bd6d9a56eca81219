"""What each objective makes of log-probs, written out a second time from recipes 1.6, 2.5, 3 and 4.

Nothing of `objectives` is called. The numbers differ from the defaults and from each other, so that no setting can
stand in for another; `CASES` and `CLIPS` say which settings they belong to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.training.oracle import SlowGroup, SlowPair
from tests.training.rows import SECOND

SHIFT = 0.15
"""mpo: mean reward so far."""

Pairs = Sequence[SlowPair]
PairFormula = Callable[[SlowPair, Pairs], Tensor]
"""The loss on one of several pairs, nats."""


def nls(x: Tensor) -> Tensor:
    """- log sigmoid(x)."""
    return torch.log1p(torch.exp(-x))


def text(p: SlowPair, beta: float) -> Tensor:
    return nls(beta * (p.delta("chosen") - p.delta("rejected")))


def image(p: SlowPair, beta: float, cap: float = math.inf) -> Tensor:
    return nls(beta * torch.clamp(p.delta("chosen") - p.delta("chosen", "wrong"), max=cap))


def anchor(p: SlowPair, beta: float, margin: float) -> Tensor:
    return nls(beta * p.delta("chosen") - margin)


def nll(p: SlowPair) -> Tensor:
    return -p.logprobs("policy").mean()


def ipo(p: SlowPair, _: Pairs) -> Tensor:
    means = [p.delta(side) / len(p.tokens[side]) for side in ("chosen", "rejected")]
    return (means[0] - means[1] - 1 / (2 * 0.3)) ** 2


def adavip(p: SlowPair, _: Pairs) -> Tensor:
    rewards = [0.3 * one for one in (p.delta("chosen"), p.delta("rejected"), p.delta("chosen", "wrong"))]
    return -torch.log(rewards[0].exp() / sum(reward.exp() for reward in rewards))


def chip(p: SlowPair, _: Pairs) -> Tensor:
    weigh = dict(zip(("chosen", "rejected"), segments(p.tokens["chosen"], p.tokens["rejected"], 2.5), strict=True))

    def delta(side: str, view: Any = "clean") -> Tensor:
        return (weigh[side] * (p.logprobs("policy", view, side) - p.logprobs("reference", view, side))).sum()

    z = (delta("chosen") - delta("rejected")) + (delta("chosen") - delta("chosen", "wrong"))
    return nls(0.3 * (z - 0.4 * (p.divergence("rejected") - p.divergence("chosen").detach())))


def segments(chosen: Sequence[int], rejected: Sequence[int], weight: float) -> tuple[Tensor, Tensor]:
    """Weight of tokens outside the longest common stretches of three and more, found by looking at all of them."""
    weights = torch.full((len(chosen),), weight), torch.full((len(rejected),), weight)

    def mark(a0: int, a1: int, b0: int, b1: int) -> None:
        size, a, b = max(
            (
                (n, -i, -j)
                for i in range(a0, a1)
                for j in range(b0, b1)
                for n in range(1, min(a1 - i, b1 - j) + 1)
                if chosen[i : i + n] == rejected[j : j + n]
            ),
            default=(0, 0, 0),
        )
        if size >= 3:
            weights[0][-a : -a + size] = weights[1][-b : -b + size] = 1.0
            mark(a0, -a, b0, -b)
            mark(-a + size, a1, -b + size, b1)

    mark(0, len(chosen), 0, len(rejected))
    return weights


def vdpo(blind: Any) -> PairFormula:
    def formula(p: SlowPair, _: Pairs) -> Tensor:
        def delta(side: str) -> Tensor:
            seeing, unseeing = p.logprobs("policy", side=side).sum(), p.logprobs("policy", side=side, blind=blind).sum()
            return 0.7 * seeing - (0.7 - 1) * unseeing.detach() - p.logprobs("reference", side=side).sum()

        return nls(0.3 * (delta("chosen") - delta("rejected")))

    return formula


def mpo(p: SlowPair, _: Pairs) -> Tensor:
    quality = nls(0.3 * p.delta("chosen") - SHIFT) + nls(-(0.3 * p.delta("rejected") - SHIFT))
    return 0.7 * text(p, 0.3) + 0.4 * quality + 0.6 * nll(p)


def vigil(p: SlowPair, every: Pairs) -> Tensor:
    gains = [one.gain("reference", "mask").item() for one in every]
    mean = sum(gains) / len(gains)
    std = math.sqrt(sum((one - mean) ** 2 for one in gains) / len(gains))
    gain, before = p.gain("policy", "mask"), p.gain("reference", "mask")
    gate = 1 / (1 + torch.exp((gain.detach() - mean) / std))
    return text(p, 0.3) + 0.6 * gate * nls(2.0 * (gain - before))


def p2dpo(p: SlowPair, _: Pairs) -> Tensor:
    chosen = p.logprobs("policy").sum() - p.logprobs("policy", "wrong").sum()
    rejected = p.logprobs("reference", "clean", "rejected").sum() - p.logprobs("reference", "wrong", "rejected").sum()
    return text(p, 0.3) + 0.5 * nls(0.3 * (chosen - rejected))


def mrpo(share: float) -> PairFormula:
    """Virtual reference of both, the first one clipped to the second's neighbourhood."""

    def formula(p: SlowPair, _: Pairs) -> Tensor:
        sides, whos = ("chosen", "rejected"), ("reference", "second")
        first, second = ({side: p.logprobs(who, side=side).sum() for side in sides} for who in whos)
        gaps = [abs(float(one["chosen"] - one["rejected"])) for one in (first, second)]
        a = share or gaps[0] / (gaps[0] + gaps[1])
        sizes = {side: abs(first[side] + second[side]) for side in first}
        ratios = {}
        for side in first:
            eta = 0.15 * sizes[side] / (sizes["chosen"] + sizes["rejected"])
            near = min(max(first[side], second[side] * (1 + eta)), second[side] * (1 - eta))
            mixed = torch.log(a * near.exp() + (1 - a) * second[side].exp())
            ratios[side] = p.logprobs("policy", side=side).sum() - (near + second[side] - mixed)
        return nls(0.3 * (ratios["chosen"] - ratios["rejected"]))

    return formula


CASES: dict[str, tuple[dict[str, Any], PairFormula]] = {
    "dpo": ({}, lambda p, _: text(p, 0.3)),
    "ipo": ({}, ipo),
    "image": (
        {"image_weight": 1.3, "margin_weight": 0.4, "margin": 0.2},
        lambda p, _: 1.3 * image(p, 0.3) + 0.4 * anchor(p, 0.3, 0.2),
    ),
    "image capped": (
        {"objective": "image", "image_cap": 0.1},
        lambda p, _: image(p, 0.3, cap=0.1) + anchor(p, 0.3, 0.0),
    ),
    "mdpo": ({"margin": 0.2}, lambda p, _: text(p, 0.3) + image(p, 0.3) + anchor(p, 0.3, 0.2)),
    "mfpo": (
        {"text_weight": 0.7, "image_weight": 1.3, "margin_weight": 0.4, "margin": 0.2},
        lambda p, _: 0.7 * text(p, 0.3) + 1.3 * image(p, 0.3) + 0.4 * anchor(p, 0.3, 0.2),
    ),
    "chip": ({"segment_weight": 2.5, "chip_kl": 0.4}, chip),
    "adavip": ({}, adavip),
    "rdpo": ({}, lambda p, _: text(p, 0.3) + image(p, 0.3)),
    "povid": (
        {},
        lambda p, _: 0.5 * text(p, 0.3) + 0.5 * nls(0.3 * (p.delta("chosen") - p.delta("slip"))),
    ),
    "vdpo": ({"guidance": 0.7, "blind": "mean"}, vdpo("mean")),
    "vdpo masked": ({"objective": "vdpo", "guidance": 0.7, "blind": "mask"}, vdpo("mask")),
    "mpo": ({"preference_weight": 0.7, "quality_weight": 0.4, "generation_weight": 0.6}, mpo),
    "vigil": ({"vigil_weight": 0.6, "vigil_beta": 2.0, "blind": "mask"}, vigil),
    "p2dpo": ({"calibration_weight": 0.5}, p2dpo),
    "mrpo": ({**SECOND, "reference_clip": 0.15}, mrpo(0.0)),
    "mrpo shared": ({**SECOND, "objective": "mrpo", "reference_share": 0.3, "reference_clip": 0.15}, mrpo(0.3)),
    # Terms that any objective may be given on top; they bring passes along that the objective itself does not have.
    "dpo and terms": (
        {"objective": "dpo", "add_image": 0.5, "add_anchor": 0.25, "add_likelihood": 0.75, "margin": 0.2},
        lambda p, _: text(p, 0.3) + 0.5 * image(p, 0.3) + 0.25 * anchor(p, 0.3, 0.2) + 0.75 * nll(p),
    ),
    "p2dpo and image": (
        {"objective": "p2dpo", "calibration_weight": 0.5, "add_image": 0.5},
        lambda p, e: p2dpo(p, e) + 0.5 * image(p, 0.3),
    ),
    "povid and image": (
        {"objective": "povid", "add_image": 0.5},
        lambda p, _: 0.5 * text(p, 0.3) + 0.5 * nls(0.3 * (p.delta("chosen") - p.delta("slip"))) + 0.5 * image(p, 0.3),
    ),
    "vdpo and image": (
        {"objective": "vdpo", "guidance": 0.7, "blind": "mask", "add_image": 0.5},
        lambda p, e: vdpo("mask")(p, e) + 0.5 * image(p, 0.3),
    ),
    "chip and image": (
        {"objective": "chip", "segment_weight": 2.5, "chip_kl": 0.4, "add_image": 0.5},
        lambda p, e: chip(p, e) + 0.5 * image(p, 0.3),
    ),
}
"""Name (of the objective, where the settings have none) -> its settings, and its loss on a pair."""


# What groups make of their tokens: recipes 1.6, 4.1-4.4, 4.6, and of the hidden patches: 4.7.

CLIPS: dict[str, Any] = {"clip_low": 0.1, "clip_high": 0.15, "beta": 0.07, "max_drop": 0.3}


def advantages(rewards: Sequence[float], scale: str = "population") -> list[float]:
    mean = sum(rewards) / len(rewards)
    squares = sum((reward - mean) ** 2 for reward in rewards)
    spread = {"population": squares / len(rewards), "sample": squares / (len(rewards) - 1)}
    return [(r - mean) / (math.sqrt(spread[scale]) + 1e-4) if scale in spread else r - mean for r in rewards]


def earned(policy: Tensor, old: Tensor, reference: Tensor, a: float, kind: str = "token") -> Tensor:
    """(T,) what each token of a completion adds to J, before any divisor."""
    sunk = (policy < reference - 0.3) & (a < 0)
    free = torch.where(sunk, policy.detach(), policy)
    rho = torch.exp(free - old)
    if kind == "sequence":
        rho = torch.exp((free - old).mean()).expand(len(policy))
    gained = torch.minimum(rho * a, rho.clamp(0.9, 1.15) * a)
    if kind == "soft":
        tau = 1.0 if a > 0 else 1.05
        gained = 4 / tau / (1 + torch.exp(-tau * (rho - 1))) * a
    elif kind == "cispo":
        gained = rho.detach().clamp(max=1.15) * a * free
    if kind == "shaped" and a > 0:
        gained = torch.exp(policy) / (torch.exp(policy) + 0.1) * a
    return gained - 0.07 * (torch.exp(reference - policy) - (reference - policy) - 1)


def pair_members(
    p: SlowPair, kind: str = "token", *, on_policy: bool = False, scale: str = "population"
) -> list[Tensor]:
    found = []
    for side, a in zip(("chosen", "rejected"), advantages((2.0, 0.0), scale), strict=True):
        policy, reference = p.logprobs("policy", side=side), p.logprobs("reference", side=side)
        found.append(earned(policy, policy.detach() if on_policy else reference, reference, a, kind))
    return found


def online_members(g: SlowGroup, kind: str = "token", scale: str = "population") -> list[Tensor]:
    rows = zip(g.logprobs("policy"), g.rollout, g.logprobs("reference"), advantages(g.rewards, scale), strict=True)
    return [earned(policy, old, reference, a, kind) for policy, old, reference, a in rows]


def mean_of_means(group: Sequence[Tensor]) -> Tensor:
    """(1 / G) sum_i (1 / |y_i|) sum_t."""
    return torch.stack([tokens.mean() for tokens in group]).mean()
