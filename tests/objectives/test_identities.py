"""What must be true of the objectives whatever the numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mbpo_core.errors import ShapeError
from mbpo_core.objectives.advantages import group_advantages, zero_variance
from mbpo_core.objectives.dpo import dpo_loss
from mbpo_core.objectives.gain import information_gain
from mbpo_core.objectives.grpo import clipped_tokens
from mbpo_core.objectives.hybrid import HybridLoss, hybrid_loss
from mbpo_core.objectives.kl import k3
from mbpo_core.objectives.normalization import completion_weights
from mbpo_core.objectives.ratios import offline_old_logprobs

MASK = torch.tensor([[True, True, True, False], [True, False, False, False], [True, True, True, True]])
ADVANTAGES = torch.tensor([1.0, -0.5, -0.5], dtype=torch.float64)
WEIGHTS = torch.tensor([1 / 9, 1 / 3, 1 / 12], dtype=torch.float64)


def logprobs(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -3 * torch.rand(3, 4, generator=generator, dtype=torch.float64)


def loss(policy: Tensor, old: Tensor, advantages: Tensor = ADVANTAGES, beta: float = 0.0) -> HybridLoss:
    return hybrid_loss(policy, old, logprobs(9), advantages, MASK, WEIGHTS, clip_low=0.2, clip_high=0.2, beta=beta)


def test_ratio_one_has_the_gradient_of_the_policy_gradient() -> None:
    policy = logprobs(0).requires_grad_()
    loss(policy, policy.detach()).loss.backward()
    # d/dx of - sum_i u_i A_i sum_t x_it, worked out by hand.
    expected = torch.where(MASK, -(WEIGHTS * ADVANTAGES)[:, None], torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(policy.grad, expected)


def test_swapping_a_pair_flips_the_sign_without_kl() -> None:
    policy, old = logprobs(0), logprobs(1)
    policy = old + (policy - old).clamp(-0.1, 0.1)  # inside the clip, which is not symmetric
    one, other = loss(policy, old).loss, loss(policy, old, -ADVANTAGES).loss
    assert one.item() == pytest.approx(-other.item(), abs=1e-14)
    assert abs(one.item()) > 1e-3


@pytest.mark.parametrize("shaped", [False, True])
def test_masked_tokens_get_exactly_no_gradient(shaped: bool) -> None:
    policy = torch.where(MASK, logprobs(0), torch.full((3, 4), -900.0, dtype=torch.float64)).requires_grad_()
    garbage = torch.where(MASK, logprobs(1), torch.full((3, 4), float("nan"), dtype=torch.float64))
    terms = hybrid_loss(
        policy, garbage, garbage, ADVANTAGES, MASK, WEIGHTS, clip_low=0.2, clip_high=0.2, beta=0.04, shaped=shaped
    )
    terms.loss.backward()
    assert policy.grad is not None
    assert (policy.grad[~MASK] == 0).all()
    assert (policy.grad[MASK] != 0).any()
    assert (terms.kl[~MASK] == 0).all()


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
    low = clipped_tokens(torch.full((2, 1), 0.5), torch.tensor([1.0, -1.0]), clip_low=0.2, clip_high=0.2)
    assert low.tolist() == [[False], [True]]


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

    def gradient(max_drop: float, beta: float) -> Tensor:
        terms = hybrid_loss(
            policy,
            policy.detach(),
            reference,
            ADVANTAGES,
            MASK,
            WEIGHTS,
            clip_low=0.2,
            clip_high=0.2,
            beta=beta,
            max_drop=max_drop,
        )
        (found,) = torch.autograd.grad(terms.loss, policy)
        return found

    free, bound = gradient(0.0, 0.0), gradient(2.0, 0.0)
    assert free[1, 0] > 0  # without the bound the descent pushes it further down
    assert bound[1, 0] == 0
    assert torch.equal(bound[[0, 2]], free[[0, 2]])
    # With the KL term it is pulled back up: u * beta * d k3 / d policy, by hand.
    expected = WEIGHTS[1] * 0.04 * (1 - math.exp(3.0))
    assert gradient(2.0, 0.04)[1, 0].item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.equal(gradient(3.5, 0.04), gradient(0.0, 0.04))


def test_expectation_of_k3_is_the_kl_divergence() -> None:
    policy, reference = (torch.log_softmax(torch.randn(11, dtype=torch.float64) * 2, 0) for _ in range(2))
    expected = sum(math.exp(p) * (p - r) for p, r in zip(policy.tolist(), reference.tolist(), strict=True))
    assert (policy.exp() * k3(policy, reference)).sum().item() == pytest.approx(expected, abs=1e-12)
    assert k3(policy, reference).min() >= 0


def test_k3_keeps_small_values() -> None:
    tiny = torch.tensor([-1.0], dtype=torch.float32)
    assert k3(tiny, tiny + 2e-4).item() == pytest.approx(2e-8, rel=0.2)


def test_dpo_at_the_reference_is_log_two_and_falls_with_the_margin() -> None:
    chosen = torch.tensor([-4.0, -2.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-5.0, -1.0], dtype=torch.float64, requires_grad=True)
    losses = dpo_loss(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.1)
    assert losses.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-14)
    losses.sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx([-0.05, -0.05])
    assert rejected.grad.tolist() == pytest.approx([0.05, 0.05])


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
    ],
)
def test_wrong_shapes_are_refused_in_prose(call: object) -> None:
    with pytest.raises(ShapeError, match="expected"):
        call()  # type: ignore[operator]
