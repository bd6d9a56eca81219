"""Every golden value of the recipe, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mbpo_core.objectives.adavip import adavip_loss
from mbpo_core.objectives.advantages import group_advantages
from mbpo_core.objectives.beta_posterior import update
from mbpo_core.objectives.chip import chip_loss
from mbpo_core.objectives.cispo import cispo_surrogate
from mbpo_core.objectives.contrast import anchor_loss, image_loss
from mbpo_core.objectives.dpo import dpo_loss
from mbpo_core.objectives.entropy import cluster_entropy, token_entropy
from mbpo_core.objectives.gain import information_gain, token_gains
from mbpo_core.objectives.grpo import clipped_surrogate
from mbpo_core.objectives.hybrid import hybrid_loss
from mbpo_core.objectives.ipo import ipo_loss
from mbpo_core.objectives.kl import k3
from mbpo_core.objectives.mdpo import mdpo_loss
from mbpo_core.objectives.mfpo import mfpo_loss
from mbpo_core.objectives.mpo import bco_loss, mpo_loss
from mbpo_core.objectives.mrpo import adaptive_share, clipped_reference, combined_reference
from mbpo_core.objectives.normalization import completion_weights
from mbpo_core.objectives.overlong import overlong_penalty
from mbpo_core.objectives.p2dpo import calibration_loss, focus_weights
from mbpo_core.objectives.povid import povid_loss
from mbpo_core.objectives.ratios import sequence_ratio, shaped_probability
from mbpo_core.objectives.rdpo import rdpo_loss
from mbpo_core.objectives.soft_clip import soft_surrogate
from mbpo_core.objectives.vdpo import guided_logprobs
from mbpo_core.objectives.vigil import decoupling_loss


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


NEW = torch.tensor([[-1.0, -2.0, 0.0], [-2.0, -3.0, -0.5]], dtype=torch.float64)
OLD = torch.tensor([[-1.1, -2.3, 0.0], [-1.8, -3.4, -0.5]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [True, True, True]])
ADVANTAGES = vector(1.0, -1.0)


# Log-ratios of (y_w | image), (y_l | image), (y_w | wrong image): the recipe's test vector for the preference family.
CHOSEN, REJECTED, WRONG = vector(-12.0 + 12.5), vector(-14.0 + 13.2), vector(-15.0 + 14.0)
ZERO = vector(0.0)
BETA = 0.1


def objective(mode: str, *, clip_high: float = 0.2, constant: int = 1, surrogate: Any = "token") -> float:
    """J of the recipe's pair under one normalisation."""
    weights = completion_weights([[2, 3]], [1.0], mode, constant_length=constant)  # type: ignore[arg-type]
    terms = hybrid_loss(
        NEW,
        OLD,
        NEW,
        ADVANTAGES,
        MASK,
        vector(*weights[0]),
        clip_low=0.2,
        clip_high=clip_high,
        beta=0.0,
        surrogate=surrogate,
    )
    return -terms.loss.item()


def test_information_gain() -> None:
    seen, blind = vector(-0.2, -0.7, -0.1), vector(-2.0, -0.9, -3.0)
    assert information_gain(seen, blind).item() == pytest.approx(1.63333, abs=5e-6)
    assert information_gain(seen, seen).item() == 0
    assert token_gains(seen, blind).tolist() == pytest.approx([1.8, 0.2, 2.9])


def test_pair_advantages() -> None:
    rewards = vector(2.0, 0.0)[None]
    assert group_advantages(rewards, eps=0.0)[0].tolist() == pytest.approx([1.0, -1.0])
    assert group_advantages(rewards, scale="sample", eps=0.0)[0].tolist() == pytest.approx([0.7071068, -0.7071068])
    assert group_advantages(rewards, scale="none")[0].tolist() == pytest.approx([1.0, -1.0])


def test_online_advantages() -> None:
    rewards = vector(2, 2, 1, 0, 0, 0, 1, 2)[None]
    assert rewards.mean().item() == 1
    assert rewards.std(correction=0).item() == pytest.approx(0.866025, abs=5e-7)
    expected = [1.1547, 1.1547, 0, -1.1547, -1.1547, -1.1547, 0, 1.1547]
    assert group_advantages(rewards, eps=0.0)[0].tolist() == pytest.approx(expected, abs=5e-5)


def test_tokens_of_the_clipped_surrogate() -> None:
    tokens = clipped_surrogate(torch.exp(NEW - OLD), ADVANTAGES, clip_low=0.2, clip_high=0.2)
    assert tokens[0, :2].tolist() == pytest.approx([1.105171, 1.2], abs=5e-7)
    assert tokens[1].tolist() == pytest.approx([-0.818731, -1.491825, -1.0], abs=5e-7)


def test_k3() -> None:
    assert k3(vector(-1.0), vector(-1.2)).item() == pytest.approx(0.0187308, abs=5e-8)


def test_objective_of_grpo() -> None:
    assert objective("sequence") == pytest.approx(0.0245335, abs=5e-8)


def test_objective_of_dr_grpo() -> None:
    assert objective("constant", constant=4) == pytest.approx(-0.125673, abs=5e-7)


def test_objective_of_dapo() -> None:
    assert objective("token", clip_high=0.28) == pytest.approx(-0.185077, abs=5e-7)
    assert objective("token") == pytest.approx(-0.201077, abs=5e-7)


def test_shaping() -> None:
    assert shaped_probability(vector(-1.0, -2.0)).tolist() == pytest.approx([0.786270, 0.575074], abs=5e-7)


def test_objective_of_gspo() -> None:
    assert sequence_ratio(NEW, OLD, MASK)[:, 0].tolist() == pytest.approx([1.221403, 1.068939], abs=5e-7)
    assert objective("sequence", surrogate="sequence") == pytest.approx(0.065530, abs=5e-7)


def test_soft_clip() -> None:
    # f(1.2) and f(0.8) of recipe 4.6, by hand.
    earned = soft_surrogate(vector(1.2, 0.8)[:, None], ADVANTAGES)
    expected = [4 / (1 + math.exp(-0.2)), -4 / 1.05 / (1 + math.exp(0.21))]
    assert earned[:, 0].tolist() == pytest.approx(expected, abs=1e-12)


def test_cispo() -> None:
    earned = cispo_surrogate(NEW, torch.exp(NEW - OLD), ADVANTAGES, clip_high=0.2)
    assert earned[0, :2].tolist() == pytest.approx([math.exp(0.1) * -1.0, 1.2 * -2.0], abs=1e-12)
    assert earned[1].tolist() == pytest.approx([math.exp(-0.2) * 2.0, 1.2 * 3.0, 0.5], abs=1e-12)


def test_losses_of_one_pair() -> None:
    three = CHOSEN, REJECTED, WRONG
    found = {
        "dpo": dpo_loss(CHOSEN, REJECTED, beta=BETA),
        "image": image_loss(CHOSEN, WRONG, beta=BETA),
        "anchor": anchor_loss(CHOSEN, beta=BETA),
        "mdpo": mdpo_loss(*three, beta=BETA),
        "mfpo": mfpo_loss(*three, beta=BETA),
        "chip": chip_loss(*three, ZERO, ZERO, beta=BETA),
        "adavip": adavip_loss(*three, beta=BETA),
        "rdpo": rdpo_loss(*three, beta=BETA),
    }
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(
        {
            "dpo": 0.630258,
            "image": 0.620957,
            "anchor": 0.668460,
            "mdpo": 1.919675,
            "mfpo": 1.919675,
            "chip": 0.562915,
            "adavip": 1.007521,
            "rdpo": 1.251215,
        },
        abs=1e-6,
    )


def test_losses_of_one_pair_worked_out_by_hand() -> None:
    """Those without a vector in the recipe, on its log-ratios; P(x) is log(1 + e^-x)."""

    def p(x: float) -> float:
        return math.log(1 + math.exp(-x))

    assert ipo_loss(CHOSEN, REJECTED, beta=BETA).item() == pytest.approx((1.3 - 5) ** 2, abs=1e-12)
    assert povid_loss(CHOSEN, REJECTED, WRONG, beta=BETA).item() == pytest.approx((p(0.13) + p(0.15)) / 2, abs=1e-12)
    assert bco_loss(CHOSEN, REJECTED, 0.02, beta=BETA).item() == pytest.approx(p(0.03) + p(0.10), abs=1e-12)
    mixed = mpo_loss(CHOSEN, REJECTED, vector(1.7), 0.02, beta=BETA).item()
    assert mixed == pytest.approx(0.8 * p(0.13) + 0.2 * (p(0.03) + p(0.10)) + 1.7, abs=1e-12)
    gated = decoupling_loss(vector(0.9), vector(0.4), beta=2.0, mean=0.5, std=0.2).item()
    assert gated == pytest.approx(p(1.0) / (1 + math.exp(2.0)), abs=1e-12)
    assert chip_loss(CHOSEN, REJECTED, WRONG, vector(0.4), vector(1.4), beta=BETA).item() == pytest.approx(
        p(0.1 * (2.8 - 0.1)), abs=1e-12
    )
    assert guided_logprobs(vector(-2.0), vector(-5.0), guidance=0.75).item() == pytest.approx(-1.5 - 1.25, abs=1e-12)


def test_calibration_and_focus() -> None:
    loss = calibration_loss(vector(-10.0), vector(-13.0), vector(-12.0), vector(-12.5), beta=BETA)
    assert loss.item() == pytest.approx(0.575939, abs=1e-6)
    focus, robust = focus_weights(vector(1.2))
    assert [focus.item(), robust.item()] == pytest.approx([0.692806, 0.307194], abs=1e-6)


def test_combined_reference() -> None:
    first, second = vector(-10.0), vector(-12.0)
    assert combined_reference(first, second, share=0.3).item() == pytest.approx(-11.070459, abs=1e-6)
    assert adaptive_share(vector(-3.0), vector(1.0)).item() == pytest.approx(0.75)
    assert clipped_reference(first, second, clip=0.1).item() == pytest.approx(-10.8)
    assert clipped_reference(vector(-14.0), second, clip=0.1).item() == pytest.approx(-13.2)


def test_entropies() -> None:
    assert token_entropy(vector(0.5, 0.25, 0.25).log()).item() == pytest.approx(1.5 * math.log(2), abs=1e-12)
    assert cluster_entropy([4, 2, 2]) == pytest.approx(1.5 * math.log(2), abs=1e-12)


def test_beta_posterior() -> None:
    assert update(3.0, 1.0, 0.25, 8, 0.5) == pytest.approx((2 + 2, 1 + 6))
    assert update(1.0, 1.0, 1.0, 1, 1.0) == pytest.approx((2, 1))  # not 8: the conditional of the released code


@pytest.mark.parametrize(
    ("length", "penalty"), [(0, 0.0), (16384, 0.0), (16385, -1 / 4096), (18432, -0.5), (20480, -1.0), (20481, -1.0)]
)
def test_overlong_penalty(length: int, penalty: float) -> None:
    """DAPO's own numbers: a limit of 20,480 tokens, of which the last 4,096 cost."""
    assert overlong_penalty(length, 20480, 4096) == pytest.approx(penalty)
    assert overlong_penalty(20480, 20480, 0) == 0.0
    assert overlong_penalty(20481, 20480, 0) == -1.0
