"""What must be true of the preference family whatever the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mbpo_core.objectives.adavip import adavip_loss
from mbpo_core.objectives.chip import chip_loss, segment_weights
from mbpo_core.objectives.contrast import anchor_loss, image_loss
from mbpo_core.objectives.dpo import dpo_loss
from mbpo_core.objectives.ipo import ipo_loss
from mbpo_core.objectives.mdpo import mdpo_loss
from mbpo_core.objectives.mfpo import mfpo_loss
from mbpo_core.objectives.mpo import bco_loss, mpo_loss
from mbpo_core.objectives.mrpo import adaptive_share, clipped_reference, combined_reference
from mbpo_core.objectives.p2dpo import calibration_loss, focus_weights
from mbpo_core.objectives.povid import povid_loss
from mbpo_core.objectives.rdpo import rdpo_loss
from mbpo_core.objectives.vdpo import guided_logprobs
from mbpo_core.objectives.vigil import decoupling_loss

LOG2 = math.log(2)
BETA = 0.1
ZERO = torch.zeros(2, dtype=torch.float64)


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def gradients(loss: Tensor, *inputs: Tensor) -> list[list[float]]:
    return [values.tolist() for values in torch.autograd.grad(loss.sum(), inputs, retain_graph=True)]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda z: dpo_loss(z, z, beta=BETA), LOG2),
        (lambda z: ipo_loss(z, z, beta=BETA), 25.0),
        (lambda z: image_loss(z, z, beta=BETA), LOG2),
        (lambda z: image_loss(z, z, beta=BETA, cap=1.0), LOG2),
        (lambda z: anchor_loss(z, beta=BETA), LOG2),
        (lambda z: mdpo_loss(z, z, z, beta=BETA), 3 * LOG2),
        (lambda z: mfpo_loss(z, z, z, beta=BETA, text_weight=2.0), 4 * LOG2),
        (lambda z: chip_loss(z, z, z, z, z, beta=BETA), LOG2),
        (lambda z: adavip_loss(z, z, z, beta=BETA), math.log(3)),
        (lambda z: rdpo_loss(z, z, z, beta=BETA), 2 * LOG2),
        (lambda z: povid_loss(z, z, z, beta=BETA), LOG2),
        (lambda z: bco_loss(z, z, 0.0, beta=BETA), 2 * LOG2),
        (lambda z: mpo_loss(z, z, z + 1.5, 0.0, beta=BETA), 1.2 * LOG2 + 1.5),
        (lambda z: calibration_loss(z, z, z, z, beta=BETA), LOG2),
        (lambda z: decoupling_loss(z + 0.3, z + 0.3, beta=BETA, mean=0.3, std=1.0), LOG2 / 2),
    ],
)
def test_where_policy_and_reference_agree(loss: Callable[[Tensor], Tensor], expected: float) -> None:
    assert loss(ZERO).tolist() == pytest.approx([expected] * 2, abs=1e-14)


@pytest.mark.parametrize("loss", [dpo_loss, ipo_loss])
def test_swapping_a_pair_flips_the_gradient(loss: Callable[..., Tensor]) -> None:
    chosen, rejected = leaf(0.0, 0.0), leaf(0.0, 0.0)  # at the reference, where both orders lose alike
    one = gradients(loss(chosen, rejected, beta=BETA), chosen, rejected)
    other = gradients(loss(rejected, chosen, beta=BETA), chosen, rejected)
    assert one == [[-value for value in side] for side in other]
    assert one[0][0] < 0 < one[1][0]


def test_dpo_gradient_by_hand() -> None:
    chosen, rejected = leaf(0.0, 5.0), leaf(0.0, -5.0)
    share = BETA / (1 + math.exp(1.0))
    assert gradients(dpo_loss(chosen, rejected, beta=BETA), chosen, rejected) == [
        pytest.approx([-0.05, -share]),
        pytest.approx([0.05, share]),
    ]


def test_ipo_pulls_back_a_margin_beyond_its_target() -> None:
    chosen, rejected = leaf(4.0, 5.0, 6.0), leaf(0.0, 0.0, 0.0)  # the target is 1 / (2 * 0.1) = 5
    assert gradients(ipo_loss(chosen, rejected, beta=BETA), chosen) == [pytest.approx([-2.0, 0.0, 2.0])]


def test_cap_stops_the_gradient_of_pairs_beyond_it() -> None:
    chosen, wrong = leaf(1.0, 3.0, -1.0), leaf(0.0, 0.5, 2.0)  # margins 1, 2.5, -3
    capped, free = image_loss(chosen, wrong, beta=BETA, cap=2.0), image_loss(chosen, wrong, beta=BETA)
    assert capped[1].item() == pytest.approx(math.log(1 + math.exp(-0.2)), abs=1e-14)
    assert capped[[0, 2]].tolist() == free[[0, 2]].tolist()
    bound, unbound = gradients(capped, chosen, wrong), gradients(free, chosen, wrong)
    for with_cap, without in zip(bound, unbound, strict=True):
        assert with_cap[1] == 0
        assert with_cap[0::2] == without[0::2]
        assert all(without)


def test_anchor_pushes_the_chosen_alone_and_harder_below_its_margin() -> None:
    chosen = leaf(-5.0, 5.0)
    ((below, above),) = gradients(anchor_loss(chosen, beta=BETA), chosen)
    assert below < above < 0
    ((raised, _),) = gradients(anchor_loss(chosen, beta=BETA, margin=1.0), chosen)
    assert raised < below


def test_mfpo_at_margin_zero_is_mdpo() -> None:
    generator = torch.Generator().manual_seed(0)
    three = [torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    one, other = mfpo_loss(*three, beta=0.3), mdpo_loss(*three, beta=0.3)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-14)
    for side in zip(gradients(one, *three), gradients(other, *three), strict=True):
        assert side[0] == pytest.approx(side[1], abs=1e-15)
    assert not torch.allclose(mfpo_loss(*three, beta=0.3, margin=0.5), other)
    torch.testing.assert_close(mfpo_loss(*three, beta=0.3, margin=0.5), mdpo_loss(*three, beta=0.3, anchor=0.5))


def test_image_terms_are_what_rdpo_lacks_of_mdpo() -> None:
    three = leaf(0.5, -2.0), leaf(-0.8, 1.0), leaf(-1.0, 0.3)
    anchored = rdpo_loss(*three, beta=BETA) + anchor_loss(three[0], beta=BETA)
    torch.testing.assert_close(anchored, mdpo_loss(*three, beta=BETA))


def test_the_harder_negative_gets_the_larger_share() -> None:
    chosen, rejected, wrong = leaf(0.0, 0.0), leaf(1.0, -2.0), leaf(-1.0, 3.0)
    down, of_rejected, of_wrong = gradients(adavip_loss(chosen, rejected, wrong, beta=1.0), chosen, rejected, wrong)
    assert of_rejected[0] > of_wrong[0] > 0
    assert of_wrong[1] > of_rejected[1] > 0
    assert of_rejected[0] / of_wrong[0] == pytest.approx(math.exp(2.0))  # a softmax's ratio
    assert down == pytest.approx([-a - b for a, b in zip(of_rejected, of_wrong, strict=True)])
    far = adavip_loss(chosen, rejected, torch.full_like(wrong, -1e4), beta=1.0)
    torch.testing.assert_close(far, dpo_loss(chosen, rejected, beta=1.0))


def test_chip_saturates_as_one_while_its_kl_of_the_chosen_has_no_gradient() -> None:
    chosen, rejected, wrong = leaf(0.5), leaf(-0.8), leaf(-1.0)
    kl_chosen, kl_rejected = leaf(0.4), leaf(1.4)
    loss = chip_loss(chosen, rejected, wrong, kl_chosen, kl_rejected, beta=BETA)
    share = BETA / (1 + math.exp(0.27))
    assert gradients(loss, chosen, rejected, wrong, kl_rejected) == [
        pytest.approx([-2 * share]),
        pytest.approx([share]),
        pytest.approx([share]),
        pytest.approx([0.1 * share]),
    ]
    loss.backward()
    assert kl_chosen.grad is None
    assert loss.item() < chip_loss(chosen, rejected, wrong, kl_chosen - 0.1, kl_rejected, beta=BETA).item()


def test_segment_weights() -> None:
    #           common 1 2 3 4 | 5       | common 6 7 8 | too short a match: 9
    chosen, rejected = [1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 6, 7, 8, 20, 9, 21]
    assert segment_weights(chosen, rejected) == (
        [1, 1, 1, 1, 4, 1, 1, 1, 4],
        [1, 1, 1, 1, 1, 1, 1, 4, 4, 4],
    )
    assert segment_weights(chosen, rejected, min_match=1)[0][-1] == 1
    assert segment_weights([1, 2], [1, 2]) == ([4, 4], [4, 4])  # shorter than a match
    assert segment_weights([1, 2, 3], [4], weight=2.5) == ([2.5] * 3, [2.5])
    assert segment_weights(chosen, chosen) == ([1] * 9, [1] * 9)
    assert segment_weights([], [1]) == ([], [4])


def test_segments_repeated_often_still_match() -> None:
    """difflib's "autojunk" forgets popular elements of sequences of 200 and more."""
    long = [7, 8, 9] * 100
    assert segment_weights([1, 2, *long], long) == ([4, 4, *[1] * 300], [1] * 300)


def test_guidance_of_one_is_the_identity_and_of_zero_has_no_gradient() -> None:
    seeing, blind = leaf(-1.3, -0.2), leaf(-4.0, -0.7)
    assert guided_logprobs(seeing, blind, guidance=1.0).tolist() == seeing.tolist()
    half = guided_logprobs(seeing, blind, guidance=0.5)
    assert half.tolist() == pytest.approx([-2.65, -0.45])
    half.sum().backward()
    assert blind.grad is None
    assert seeing.grad is not None
    assert seeing.grad.tolist() == [0.5, 0.5]
    assert gradients(guided_logprobs(seeing, blind, guidance=0.0), seeing) == [[0.0, 0.0]]


def test_guidance_commutes_with_the_sum_over_tokens() -> None:
    seeing, blind = leaf(-1.3, -0.2, -0.9), leaf(-4.0, -0.7, -0.1)
    tokens = guided_logprobs(seeing, blind, guidance=0.3).sum()
    torch.testing.assert_close(tokens, guided_logprobs(seeing.sum(), blind.sum(), guidance=0.3))


def test_povid_without_slips_of_its_own_is_dpo() -> None:
    chosen, rejected = leaf(0.5, -1.0), leaf(-0.8, 2.0)
    torch.testing.assert_close(povid_loss(chosen, rejected, rejected, beta=BETA), dpo_loss(chosen, rejected, beta=BETA))
    alone = povid_loss(chosen, rejected, chosen, beta=BETA)
    torch.testing.assert_close(alone, (dpo_loss(chosen, rejected, beta=BETA) + LOG2) / 2)


def test_bco_judges_each_side_by_itself() -> None:
    chosen, rejected = leaf(3.0, 3.0), leaf(-2.0, 7.0)
    of_chosen, of_rejected = gradients(bco_loss(chosen, rejected, 0.1, beta=BETA), chosen, rejected)
    assert of_chosen[0] == of_chosen[1] < 0
    assert of_rejected[1] > of_rejected[0] > 0
    shift = torch.tensor([0.1, 0.4], dtype=torch.float64)
    each = [bco_loss(chosen, rejected, float(s), beta=BETA)[i].item() for i, s in enumerate(shift)]
    assert bco_loss(chosen, rejected, shift, beta=BETA).tolist() == pytest.approx(each)


def test_mpo_weighs_its_three_losses() -> None:
    chosen, rejected, nll = leaf(0.5), leaf(-0.8), leaf(1.7)

    def one(preference: float, quality: float, generation: float) -> Tensor:
        return mpo_loss(
            chosen,
            rejected,
            nll,
            0.02,
            beta=BETA,
            preference_weight=preference,
            quality_weight=quality,
            generation_weight=generation,
        )

    assert one(1, 0, 0).item() == dpo_loss(chosen, rejected, beta=BETA).item()
    assert one(0, 1, 0).item() == bco_loss(chosen, rejected, 0.02, beta=BETA).item()
    assert one(0, 0, 1).item() == 1.7


def test_decoupling_teaches_the_blind_most() -> None:
    gain, reference = leaf(-1.0, 0.5, 2.0), leaf(-1.0, 0.5, 2.0)
    loss = decoupling_loss(gain, reference.detach(), beta=1.0, mean=0.5, std=0.5)
    gates = [1 / (1 + math.exp((g - 0.5) / 0.5)) for g in gain.tolist()]
    (found,) = gradients(loss, gain)
    assert found == pytest.approx([-g / 2 for g in gates])  # the gate itself has no gradient
    assert found[0] < found[1] < found[2] < 0
    flat = decoupling_loss(gain, reference, beta=1.0, mean=0.5, std=0.0)
    assert flat.tolist() == pytest.approx([LOG2 / 2] * 3)


def test_calibration_compares_gains() -> None:
    policy, degraded = leaf(-10.0), leaf(-13.0)
    reference = torch.tensor([-12.0], dtype=torch.float64)
    loss = calibration_loss(policy, degraded, reference, reference - 0.5, beta=BETA)
    (up,), (down,) = gradients(loss, policy, degraded)
    assert up == -down < 0
    shifted = calibration_loss(policy - 7, degraded - 7, reference + 3, reference + 2.5, beta=BETA)
    torch.testing.assert_close(loss, shifted)


def test_focus_weights_add_up_to_one_and_follow_the_crop() -> None:
    focus, robust = focus_weights(torch.tensor([0.5, 1.0, 1.01, 3.0], dtype=torch.float64))
    assert (focus + robust).tolist() == pytest.approx([1.0] * 4)
    assert focus[1] == 0.5
    assert (focus.diff() > 0).all()
    assert focus[[0, 3]].tolist() == pytest.approx([0.3, 0.7], abs=1e-4)


def test_combined_reference_lies_between_and_ends_at_either() -> None:
    first, second = (torch.tensor(v, dtype=torch.float64) for v in ([-10.0, -900.0], [-12.0, -850.0]))
    assert combined_reference(first, second, share=0.0).tolist() == first.tolist()
    assert combined_reference(first, second, share=1.0).tolist() == second.tolist()
    between = combined_reference(first, second, share=torch.tensor([0.3, 0.7], dtype=torch.float64))
    assert between[0].item() == pytest.approx(-11.070459, abs=1e-6)
    assert between[1].item() == pytest.approx(-900 - math.log(0.3))  # 0.3 / pi_1 is all that counts; nothing underflows
    torch.testing.assert_close(combined_reference(first, first, share=0.4), first)


def test_adaptive_share_is_even_where_neither_reference_tells_them_apart() -> None:
    first, second = (torch.tensor(v, dtype=torch.float64) for v in ([0.0, 0.0, -2.0], [0.0, 1.0, 0.5]))
    assert adaptive_share(first, second).tolist() == pytest.approx([0.5, 0.0, 0.8])


def test_clipped_reference_stays_near_the_second() -> None:
    first, second = (torch.tensor(v, dtype=torch.float64) for v in ([-5.0, -9.5, -20.0], [-10.0, -10.0, -10.0]))
    assert clipped_reference(first, second, clip=0.1).tolist() == pytest.approx([-9.0, -9.5, -11.0])
    assert clipped_reference(first, second, clip=0.0).tolist() == second.tolist()
    own = torch.tensor([0.6, 0.0, 0.2], dtype=torch.float64)
    assert clipped_reference(first, second, clip=own).tolist() == pytest.approx([-5.0, -10.0, -12.0])
