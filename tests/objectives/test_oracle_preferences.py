"""The preference family against the slow oracle: pairs of uneven lengths, values and gradients, float64."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from mbpo_core.objectives.adavip import adavip_loss
from mbpo_core.objectives.chip import chip_loss
from mbpo_core.objectives.contrast import anchor_loss, image_loss
from mbpo_core.objectives.dpo import dpo_loss
from mbpo_core.objectives.ipo import ipo_loss
from mbpo_core.objectives.mdpo import mdpo_loss
from mbpo_core.objectives.mfpo import mfpo_loss
from mbpo_core.objectives.mpo import bco_loss, mpo_loss
from mbpo_core.objectives.mrpo import combined_reference
from mbpo_core.objectives.p2dpo import calibration_loss
from mbpo_core.objectives.povid import povid_loss
from mbpo_core.objectives.rdpo import rdpo_loss
from mbpo_core.objectives.vdpo import guided_logprobs
from mbpo_core.objectives.vigil import decoupling_loss
from tests.objectives import oracle

PAIRS = 4
BETA = 0.3
STEP = 1e-5  # of the central difference
WEIGHTS = (0.7, 1.3, 0.4)


class Loss(NamedTuple):
    """One loss of up to five sequence quantities, and its oracle on one pair's numbers."""

    ours: Callable[..., Tensor]
    slow: Callable[..., float]
    arity: int
    mean: bool = False  # of the log-ratios, instead of the sum


LOSSES = {
    "dpo": Loss(lambda c, r: dpo_loss(c, r, beta=BETA), lambda c, r: oracle.dpo(c, r, BETA), 2),
    "ipo": Loss(lambda c, r: ipo_loss(c, r, beta=BETA), lambda c, r: oracle.ipo(c, r, BETA), 2, mean=True),
    "image": Loss(lambda c, x: image_loss(c, x, beta=BETA), lambda c, x: oracle.image(c, x, BETA, 0), 2),
    "image capped": Loss(
        lambda c, x: image_loss(c, x, beta=BETA, cap=1.5), lambda c, x: oracle.image(c, x, BETA, 1.5), 2
    ),
    "anchor": Loss(lambda c: anchor_loss(c, beta=BETA, margin=0.2), lambda c: oracle.anchor(c, BETA, 0.2), 1),
    "mdpo": Loss(
        lambda c, r, x: mdpo_loss(c, r, x, beta=BETA, anchor=0.2),
        lambda c, r, x: oracle.mdpo(c, r, x, BETA, 0.2),
        3,
    ),
    "mfpo": Loss(
        lambda c, r, x: mfpo_loss(c, r, x, beta=BETA, margin=0.2, text_weight=0.7, image_weight=1.3, margin_weight=0.4),
        lambda c, r, x: oracle.mfpo(c, r, x, BETA, 0.2, WEIGHTS),
        3,
    ),
    "chip": Loss(
        lambda c, r, x, k, n: chip_loss(c, r, x, k, n, beta=BETA, kl_weight=0.2),
        lambda c, r, x, k, n: oracle.chip(c, r, x, k, n, BETA, 0.2),
        5,
    ),
    "adavip": Loss(lambda c, r, x: adavip_loss(c, r, x, beta=BETA), lambda c, r, x: oracle.adavip(c, r, x, BETA), 3),
    "rdpo": Loss(lambda c, r, x: rdpo_loss(c, r, x, beta=BETA), lambda c, r, x: oracle.rdpo(c, r, x, BETA), 3),
    "povid": Loss(lambda c, r, s: povid_loss(c, r, s, beta=BETA), lambda c, r, s: oracle.povid(c, r, s, BETA), 3),
    "bco": Loss(lambda c, r: bco_loss(c, r, 0.1, beta=BETA), lambda c, r: oracle.bco(c, r, 0.1, BETA), 2),
    "mpo": Loss(
        lambda c, r, n: mpo_loss(
            c, r, n, 0.1, beta=BETA, preference_weight=0.7, quality_weight=1.3, generation_weight=0.4
        ),
        lambda c, r, n: oracle.mpo(c, r, n, 0.1, BETA, WEIGHTS),
        3,
    ),
    "decoupling": Loss(
        lambda g, q: decoupling_loss(g, q, beta=BETA, mean=0.4, std=0.7),
        lambda g, q: oracle.decoupling(g, q, BETA, 0.4, 0.7),
        2,
        mean=True,
    ),
    "calibration": Loss(
        lambda c, d, r, e: calibration_loss(c, d, r, e, beta=BETA),
        lambda c, d, r, e: oracle.calibration(c, d, r, e, BETA),
        4,
    ),
    "combined reference": Loss(
        lambda first, second: combined_reference(first, second, share=0.3),
        lambda first, second: oracle.combined(first, second, 0.3),
        2,
    ),
    "guided": Loss(lambda s, b: guided_logprobs(s, b, guidance=0.6), lambda s, b: 0.6 * s + 0.4 * b, 2),
}
DETACHED = {("chip", 3), ("decoupling", 0), ("guided", 1)}
"""Arguments behind a stopgrad, whose gradient the oracle's difference does not know; `test_preferences.py` has them."""


def ragged(rng: random.Random) -> list[list[float]]:
    return [[-rng.uniform(0.05, 3) for _ in range(rng.randint(1, 6))] for _ in range(PAIRS)]


def padded(rows: list[list[float]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [float("nan")] * (width - len(row)) for row in rows], dtype=torch.float64)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_gradient(name: str, seed: int) -> None:
    loss, rng = LOSSES[name], random.Random(seed)
    sides = []  # of (policy rows, reference rows)
    for _ in range(loss.arity):
        policy = ragged(rng)
        sides.append((policy, [[p + rng.gauss(0, 0.8) for p in row] for row in policy]))

    leaves = [padded(policy).requires_grad_() for policy, _ in sides]
    quantities = []
    for leaf, (_, reference) in zip(leaves, sides, strict=True):
        mask = ~leaf.isnan()
        kept = torch.where(mask, leaf - padded(reference), torch.zeros_like(leaf)).sum(dim=1)
        quantities.append(kept / mask.sum(dim=1) if loss.mean else kept)
    losses = loss.ours(*quantities)
    assert losses.shape == (PAIRS,)

    def slow(pair: int, shift: float = 0.0, side: int = -1, token: int = 0) -> float:
        values = []
        for index, (policy, reference) in enumerate(sides):
            row = list(policy[pair])
            if index == side:
                row[token] += shift
            total = oracle.ratio(row, reference[pair])
            values.append(total / len(row) if loss.mean else total)
        return loss.slow(*values)

    assert losses.tolist() == pytest.approx([slow(pair) for pair in range(PAIRS)], rel=1e-12, abs=1e-12)
    losses.sum().backward()
    for side, (leaf, (policy, _)) in enumerate(zip(leaves, sides, strict=True)):
        assert leaf.grad is not None or (name, side) in DETACHED
        if (name, side) in DETACHED:
            continue
        assert (leaf.grad[leaf.isnan()] == 0).all()  # padding
        for pair, row in enumerate(policy):
            for token in range(len(row)):
                difference = slow(pair, STEP, side, token) - slow(pair, -STEP, side, token)
                assert leaf.grad[pair, token].item() == pytest.approx(difference / (2 * STEP), rel=1e-5, abs=1e-8)
