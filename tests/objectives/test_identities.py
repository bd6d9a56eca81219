"""What must be true of the objectives whatever the numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mbpo_core.errors import ShapeError
from mbpo_core.objectives.advantages import group_advantages, zero_variance
from mbpo_core.objectives.beta_posterior import update
from mbpo_core.objectives.cispo import cispo_surrogate
from mbpo_core.objectives.entropy import cluster_entropy, token_entropy
from mbpo_core.objectives.gain import information_gain
from mbpo_core.objectives.grpo import clipped_surrogate, clipped_tokens
from mbpo_core.objectives.hybrid import HybridLoss, Surrogate, hybrid_loss
from mbpo_core.objectives.kl import k3
from mbpo_core.objectives.normalization import completion_weights
from mbpo_core.objectives.perception import perception_kl
from mbpo_core.objectives.ratios import offline_old_logprobs, sequence_ratio
from mbpo_core.objectives.soft_clip import soft_surrogate

MASK = torch.tensor([[True, True, True, False], [True, False, False, False], [True, True, True, True]])
ADVANTAGES = torch.tensor([1.0, -0.5, -0.5], dtype=torch.float64)
WEIGHTS = torch.tensor([1 / 9, 1 / 3, 1 / 12], dtype=torch.float64)


def logprobs(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -3 * torch.rand(3, 4, generator=generator, dtype=torch.float64)


SURROGATES: tuple[Surrogate, ...] = ("token", "sequence", "soft", "cispo")


def loss(
    policy: Tensor,
    old: Tensor,
    advantages: Tensor = ADVANTAGES,
    beta: float = 0.0,
    max_drop: float = 0.0,
    surrogate: Surrogate = "token",
    shaped: bool = False,
) -> HybridLoss:
    return hybrid_loss(
        policy,
        old,
        logprobs(9),
        advantages,
        MASK,
        WEIGHTS,
        clip_low=0.2,
        clip_high=0.2,
        beta=beta,
        max_drop=max_drop,
        surrogate=surrogate,
        shaped=shaped,
    )


def gradient(found: HybridLoss, policy: Tensor) -> Tensor:
    (values,) = torch.autograd.grad(found.loss, policy)
    return values


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_ratio_one_has_the_gradient_of_the_policy_gradient(surrogate: Surrogate) -> None:
    policy = logprobs(0).requires_grad_()
    found = gradient(loss(policy, policy.detach(), surrogate=surrogate), policy)
    # d/dx of - sum_i u_i A_i sum_t x_it, worked out by hand.
    expected = torch.where(MASK, -(WEIGHTS * ADVANTAGES)[:, None], torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(found, expected)


def test_swapping_a_pair_flips_the_sign_without_kl() -> None:
    policy, old = logprobs(0), logprobs(1)
    policy = old + (policy - old).clamp(-0.1, 0.1)  # inside the clip, which is not symmetric
    one, other = loss(policy, old).loss, loss(policy, old, -ADVANTAGES).loss
    assert one.item() == pytest.approx(-other.item(), abs=1e-14)
    assert abs(one.item()) > 1e-3


@pytest.mark.parametrize("shaped", [False, True])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_masked_tokens_get_exactly_no_gradient(shaped: bool, surrogate: Surrogate) -> None:
    policy = torch.where(MASK, logprobs(0), torch.full((3, 4), -900.0, dtype=torch.float64)).requires_grad_()
    garbage = torch.where(MASK, logprobs(1), torch.full((3, 4), float("nan"), dtype=torch.float64))
    terms = hybrid_loss(
        policy,
        garbage,
        garbage,
        ADVANTAGES,
        MASK,
        WEIGHTS,
        clip_low=0.2,
        clip_high=0.2,
        beta=0.04,
        shaped=shaped,
        max_drop=5.0,
        surrogate=surrogate,
    )
    terms.loss.backward()
    assert policy.grad is not None
    assert (policy.grad[~MASK] == 0).all()
    assert (policy.grad[MASK] != 0).any()
    assert (terms.kl[~MASK] == 0).all()
    assert not terms.clipped[~MASK].any()


def test_group_of_equals_teaches_nothing() -> None:
    rewards = torch.tensor([[0.7, 0.7, 0.7], [1.0, 0.0, 1.0]], dtype=torch.float64)
    assert zero_variance(rewards).tolist() == [True, False]
    advantages = group_advantages(rewards, eps=0.0)
    assert advantages[0].tolist() == [0, 0, 0]
    policy = logprobs(0).requires_grad_()
    terms = loss(policy, logprobs(1), advantages[0])
    terms.loss.backward()
    assert terms.loss.item() == 0
    assert policy.grad is not None
    assert (policy.grad == 0).all()


def test_clipped_tokens_have_no_gradient_and_are_counted() -> None:
    old = logprobs(1)
    policy = (old + 0.5).requires_grad_()  # ratio 1.65: clipped where the advantage is positive
    terms = loss(policy, old)
    terms.loss.backward()
    assert terms.clipped.tolist() == [[True, True, True, False], [False] * 4, [False] * 4]
    assert policy.grad is not None
    assert (policy.grad[0] == 0).all()
    low = clipped_tokens(torch.tensor([[0.5, 0.9]] * 2), torch.tensor([1.0, -1.0]), clip_low=0.2, clip_high=0.2)
    assert low.tolist() == [[False, False], [True, False]]


def test_nothing_is_clipped_that_is_not() -> None:
    policy, old = logprobs(1) + 0.5, logprobs(1)
    assert not loss(policy, old, surrogate="soft").clipped.any()
    assert loss(policy, old).clipped[0].any()
    assert not loss(policy, old, shaped=True).clipped.any()  # shaping takes the place of row 0's clip


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_only_the_policy_learns(surrogate: Surrogate) -> None:
    policy, old, reference = (logprobs(seed).requires_grad_() for seed in (0, 1, 9))
    terms = hybrid_loss(
        policy,
        old,
        reference,
        ADVANTAGES,
        MASK,
        WEIGHTS,
        clip_low=0.2,
        clip_high=0.2,
        beta=0.04,
        max_drop=1.0,
        surrogate=surrogate,
    )
    terms.loss.backward()
    assert policy.grad is not None
    assert old.grad is None
    assert reference.grad is None
    assert not terms.kl.requires_grad


def test_reference_mode_bounds_drift_where_on_policy_does_not() -> None:
    reference, policy = logprobs(9), logprobs(9) + 1.0  # far above the reference already
    bounded = offline_old_logprobs("reference", policy, reference)
    unbounded = offline_old_logprobs("on_policy", policy, reference)
    positive = torch.ones(3, dtype=torch.float64)
    gradients = []
    for old in (bounded, unbounded):
        leaf = policy.clone().requires_grad_()
        loss(leaf, old, positive).loss.backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad.abs().sum().item())
    assert gradients[0] == 0
    assert gradients[1] > 0
    recorded = logprobs(3)
    assert offline_old_logprobs("shaped", policy, reference, recorded) is not policy
    assert torch.equal(offline_old_logprobs("on_policy", policy, reference, recorded), recorded)


def test_max_drop_leaves_sunk_tokens_to_the_kl_alone() -> None:
    reference = logprobs(9)
    # Row 1 has a negative advantage and one token; it has sunk by 3 nats. Row 0 (positive) has sunk as far.
    policy = (reference - torch.tensor([[3.0], [3.0], [0.5]], dtype=torch.float64)).requires_grad_()

    def bounded(max_drop: float, beta: float) -> Tensor:
        return gradient(loss(policy, policy.detach(), beta=beta, max_drop=max_drop), policy)

    free, bound = bounded(0.0, 0.0), bounded(2.0, 0.0)
    assert free[1, 0] > 0  # without the bound the descent pushes it further down
    assert bound[1, 0] == 0
    assert torch.equal(bound[[0, 2]], free[[0, 2]])
    # With the KL term it is pulled back up: u * beta * d k3 / d policy, by hand.
    expected = WEIGHTS[1] * 0.04 * (1 - math.exp(3.0))
    assert bounded(2.0, 0.04)[1, 0].item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.equal(bounded(3.5, 0.04), bounded(0.0, 0.04))


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_max_drop_spares_sunk_tokens_alone(surrogate: Surrogate) -> None:
    """Of a rejected completion only some tokens have sunk; the others are pushed as before."""
    reference = logprobs(9)
    fall = torch.zeros(3, 4, dtype=torch.float64)
    fall[0], fall[2, 1] = 3.0, 3.0  # row 0 has a positive advantage
    policy = (reference - fall).requires_grad_()
    free = loss(policy, policy.detach(), surrogate=surrogate)
    bound = loss(policy, policy.detach(), max_drop=2.0, surrogate=surrogate)
    assert bound.clipped.nonzero().tolist() == [[2, 1]]
    assert free.loss.item() == bound.loss.item()
    before, after = gradient(free, policy), gradient(bound, policy)
    assert before[2, 1] > 0
    assert after[2, 1] == 0
    after[2, 1] = before[2, 1]
    assert torch.equal(before, after)


def test_sequence_ratio_pushes_every_token_alike() -> None:
    old = logprobs(1)
    # Token drifts cancel in row 0 (s = 1), so that the token surrogate would clip where the sequence's does not.
    drift = torch.tensor([[0.5, -0.25, -0.25, 0], [0.1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]], dtype=torch.float64)
    policy = (old + drift).requires_grad_()
    terms = loss(policy, old, surrogate="sequence")
    found, lengths = gradient(terms, policy), MASK.sum(dim=1)
    s = torch.exp((drift * MASK).sum(dim=1) / lengths)
    # u_i = w / |y_i|, |y_i| equal terms, each with d s / d x_t = s / |y_i|: -u_i A_i s_i.
    expected = torch.where(MASK, -(WEIGHTS * ADVANTAGES * s)[:, None], torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(found, expected)
    assert not terms.clipped.any()  # row 2 is above the clip, but its advantage is negative
    assert loss(policy, old).clipped[0, 0]
    objective = (WEIGHTS * lengths * s * ADVANTAGES).sum()
    assert terms.loss.item() == pytest.approx(-objective.item(), abs=1e-14)


def test_clipped_sequences_have_no_gradient_and_are_counted() -> None:
    old = logprobs(1)
    policy = (old + 0.5).requires_grad_()
    terms = loss(policy, old, surrogate="sequence")
    assert terms.clipped.tolist() == [[True, True, True, False], [False] * 4, [False] * 4]
    found = gradient(terms, policy)
    assert (found[0] == 0).all()
    assert (found[1:][MASK[1:]] > 0).all()


def test_sequence_and_token_agree_on_one_token() -> None:
    policy, old, advantages = logprobs(0)[:, :1], logprobs(1)[:, :1], ADVANTAGES
    ratio = sequence_ratio(policy, old, torch.ones_like(policy, dtype=torch.bool))
    torch.testing.assert_close(ratio, torch.exp(policy - old))
    broadcast = clipped_surrogate(ratio, advantages, clip_low=0.2, clip_high=0.2)
    assert broadcast.shape == (3, 1)


def test_soft_surrogate_has_slope_one_at_one_and_fades() -> None:
    ratio = torch.tensor([[1.0, 3.0, 8.0]] * 2, dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([0.7, -0.4], dtype=torch.float64)
    (slopes,) = torch.autograd.grad(soft_surrogate(ratio, advantages).sum(), ratio)
    assert slopes[:, 0].tolist() == pytest.approx(advantages.tolist(), abs=1e-12)
    assert (slopes.abs().diff(dim=1) < 0).all()
    assert (slopes.sign() == advantages.sign()[:, None]).all()  # it fades, and never cuts


def test_cispo_keeps_a_gradient_where_the_weight_is_capped() -> None:
    old = logprobs(1)
    policy = (old + torch.tensor([[0.5], [0.1], [0.5]], dtype=torch.float64)).requires_grad_()
    terms = loss(policy, old, surrogate="cispo")
    assert torch.equal(terms.clipped, MASK & torch.tensor([[True], [False], [True]]))
    cap = torch.tensor([1.2, math.exp(0.1), 1.2], dtype=torch.float64)
    expected = torch.where(MASK, -(WEIGHTS * ADVANTAGES * cap)[:, None], torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(gradient(terms, policy), expected)
    ratio = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    assert not cispo_surrogate(torch.ones(1, 1), ratio, torch.ones(1), clip_high=0.2).requires_grad


def test_perception_kl_is_the_divergence_and_both_sides_learn() -> None:
    seeing, masked = (torch.log_softmax(torch.randn(2, 11, dtype=torch.float64), 1).requires_grad_() for _ in range(2))
    estimate = (seeing.exp() * perception_kl(seeing, masked)).sum(dim=1)
    expected = (seeing.exp() * (seeing - masked)).sum(dim=1)
    torch.testing.assert_close(estimate, expected)
    seen, blind = torch.autograd.grad(perception_kl(seeing, masked).sum(), (seeing, masked))
    torch.testing.assert_close(seen, -blind)
    assert (blind != 0).all()
    assert (blind.sign() == (masked - seeing).sign()).all()  # going up, it moves the masked pass away


def test_perception_kl_above_its_cap_has_no_gradient() -> None:
    seeing = torch.tensor([[-3.0, -1.0]], dtype=torch.float64, requires_grad=True)
    masked = torch.tensor([[-0.5, -1.1]], dtype=torch.float64, requires_grad=True)
    found = perception_kl(seeing, masked, cap=0.2)
    found.sum().backward()
    assert found[0, 0] == 0.2
    assert seeing.grad is not None
    assert masked.grad is not None
    assert seeing.grad[0, 0] == masked.grad[0, 0] == 0
    assert seeing.grad[0, 1] != 0


def test_entropies_of_the_certain_and_of_the_uniform() -> None:
    certain = torch.tensor([[0.0, -math.inf, -math.inf], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert token_entropy(certain).tolist() == pytest.approx([0, math.log(3)], abs=1e-15)
    assert cluster_entropy([8]) == cluster_entropy([8, 0]) == 0
    assert cluster_entropy([1] * 8) == pytest.approx(math.log(8))


def test_posterior_without_decay_counts_and_with_full_decay_forgets() -> None:
    alpha, beta = 1.0, 1.0
    for successes in (3, 0, 8):
        alpha, beta = update(alpha, beta, successes / 8, 8, 1.0)
    assert (alpha, beta) == pytest.approx((1 + 11, 1 + 13))
    assert update(alpha, beta, 0.5, 8, 0.0) == pytest.approx((5, 5))
    assert sum(update(alpha, beta, 0.3, 1, 0.5)) == pytest.approx((alpha + beta) / 2 + 1 + 1)


def test_expectation_of_k3_is_the_kl_divergence() -> None:
    policy, reference = (torch.log_softmax(torch.randn(11, dtype=torch.float64) * 2, 0) for _ in range(2))
    expected = sum(math.exp(p) * (p - r) for p, r in zip(policy.tolist(), reference.tolist(), strict=True))
    assert (policy.exp() * k3(policy, reference)).sum().item() == pytest.approx(expected, abs=1e-12)
    assert k3(policy, reference).min() >= 0


def test_k3_keeps_small_values() -> None:
    tiny = torch.tensor([-1.0], dtype=torch.float32)
    assert k3(tiny, tiny + 2e-4).item() == pytest.approx(2e-8, rel=0.2)


def test_weights_do_not_depend_on_how_a_step_is_cut() -> None:
    lengths, group_weights = [[2, 3], [1, 4, 4]], [0.5, 1.0]
    whole = completion_weights(lengths, group_weights, "sequence")
    # Every group of weight w has w / W of the mass when each token is worth 1 / its completion's length.
    masses = [sum(u * n for u, n in zip(us, ns, strict=True)) for us, ns in zip(whole, lengths, strict=True)]
    assert masses == pytest.approx([1 / 3, 2 / 3])
    tokens = completion_weights(lengths, group_weights, "token")
    assert sum(u * n for us, ns in zip(tokens, lengths, strict=True) for u, n in zip(us, ns, strict=True)) == 1
    assert completion_weights([[2], [3]], [0.0, 1.0], "sequence") == [[0.0], [1 / 3]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: group_advantages(torch.zeros(3)),
        lambda: group_advantages(torch.zeros(3, 1)),
        lambda: completion_weights([[1, 0]], [1.0], "sequence"),
        lambda: completion_weights([[1]], [1.0, 1.0], "token"),
        lambda: information_gain(torch.zeros(3), torch.zeros(2)),
        lambda: information_gain(torch.zeros(0), torch.zeros(0)),
        lambda: cluster_entropy([]),
        lambda: cluster_entropy([0, 0]),
        lambda: cluster_entropy([3, -1]),
    ],
)
def test_wrong_shapes_are_refused_in_prose(call: object) -> None:
    with pytest.raises(ShapeError, match="expected"):
        call()  # type: ignore[operator]
