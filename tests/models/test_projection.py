"""Log-probs in chunks of the vocabulary against a dense projection in float64, and the memory they take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mbpo_core.models.projection import Head, target_logprobs, token_divergences

N, D, V = 23, 8, 101


class Largest(TorchDispatchMode):
    """The most elements that any tensor made under it has, also those that only live for a moment."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


def _limit(chunk: int, rows: int = N) -> float:
    """MiB under which `chunk` ids are projected at once."""
    return 4 * rows * chunk / 2**20


def _problem(dtype: torch.dtype = torch.float32, *, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator).to(dtype).requires_grad_(True)
    weight = torch.randn(V, D, generator=generator).to(dtype).requires_grad_(True)
    offset = torch.randn(V, generator=generator).to(dtype).requires_grad_(True) if bias else None
    targets = torch.randint(20, V, (N,), generator=generator)
    targets[:2] = torch.tensor([20, V - 1])
    return hidden, weight, offset, targets


def _slow(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, banned: list[int], temperature: float
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Values, greedy flags and gradients of the sum weighted by `_upstream`, row by row in float64."""
    leaves = [x.detach().double().requires_grad_(True) for x in (hidden, weight, bias) if x is not None]
    allowed = [token for token in range(len(weight)) if token not in banned]
    values, greedy = [], []
    for row, target in enumerate(targets.tolist()):
        logits = leaves[1] @ leaves[0][row] + (leaves[2] if bias is not None else 0)
        kept = logits[allowed] / temperature
        values.append(logits[target] / temperature - kept.exp().sum().log())
        greedy.append(target == allowed[int(kept.argmax())])
    found = torch.stack(values)
    return found.detach(), torch.tensor(greedy), torch.autograd.grad((found * _upstream().double()).sum(), leaves)


def _upstream() -> Tensor:
    return torch.randn(N, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
@pytest.mark.parametrize("banned", [[], [3, 100], list(range(20))], ids=["none", "some", "whole chunks"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("chunk", [1, 7, 100, V])
def test_values_flags_and_gradients_equal_a_slow_softmax(
    chunk: int, bias: bool, banned: list[int], temperature: float
) -> None:
    hidden, weight, offset, targets = _problem(bias=bias)
    targets[targets == 100] = 50 if 100 in banned else 100
    with torch.no_grad():  # half of the targets are the most probable ids
        best = Head(weight, offset, banned, math.inf).logits(hidden, 1.0).argmax(-1)
    targets[::2] = best[::2]
    head = Head(weight, offset, banned, _limit(chunk))
    assert head.chunk(N) == chunk
    found, greedy = target_logprobs(hidden, targets, head, temperature)
    expected, flags, gradients = _slow(hidden, weight, offset, targets, banned, temperature)
    assert found.dtype == torch.float32
    assert not greedy.requires_grad
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-6)
    assert torch.equal(greedy, flags)
    assert 0 < int(flags.sum()) < N
    leaves = [x for x in (hidden, weight, offset) if x is not None]
    ours = torch.autograd.grad(found, leaves, _upstream())
    for gradient, other in zip(ours, gradients, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient.double(), other, atol=1e-5, rtol=1e-5)


def test_only_what_asks_for_a_gradient_gets_one() -> None:
    hidden, weight, offset, targets = _problem()
    for leaf in (weight, offset):
        assert leaf is not None
        leaf.requires_grad_(False)
    chunked, _ = target_logprobs(hidden, targets, Head(weight, offset, [], _limit(9)), 1.0)
    (gradient,) = torch.autograd.grad(chunked.sum(), hidden)
    dense, _ = target_logprobs(hidden, targets, Head(weight, offset, [], math.inf), 1.0)
    torch.testing.assert_close(gradient, torch.autograd.grad(dense.sum(), hidden)[0])
    with torch.no_grad():
        assert not target_logprobs(hidden, targets, Head(weight, offset, [], _limit(9)), 1.0)[0].requires_grad


def test_a_tied_embedding_gets_both_gradients() -> None:
    """One matrix is embedding and projection, as in small Qwen models."""
    _, weight, _, targets = _problem(bias=False)
    gradients = []
    for limit in (_limit(9), math.inf):
        scored, _ = target_logprobs(weight[targets.flip(0)], targets, Head(weight, None, [2], limit), 1.0)
        gradients.append(torch.autograd.grad(scored.sum(), weight)[0])
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_extreme_logits_stay_finite() -> None:
    hidden, weight, offset, targets = _problem()
    for scale in (1e4, 1e-6):
        for limit in (_limit(9), math.inf):
            leaf = (hidden.detach() * scale).requires_grad_(True)
            scored, _ = target_logprobs(leaf, targets, Head(weight, offset, [0, 1], limit), 1.0)
            (gradient,) = torch.autograd.grad(scored.sum(), leaf)
            assert scored.isfinite().all()
            assert gradient.isfinite().all()


def test_bfloat16_is_as_good_chunked_as_dense() -> None:
    hidden, weight, offset, targets = _problem(torch.bfloat16)
    expected, _, gradients = _slow(hidden, weight, offset, targets, [3], 1.0)
    for limit in (_limit(9), math.inf):
        found, _ = target_logprobs(hidden, targets, Head(weight, offset, [3], limit), 1.0)
        assert found.dtype == torch.float32
        assert (found.double() - expected).abs().max() < 0.05
        ours = torch.autograd.grad(found, [hidden, weight, offset], _upstream())
        for gradient, other in zip(ours, gradients, strict=True):
            assert gradient.dtype == torch.bfloat16
            assert (gradient.double() - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("limit", [1e-9, math.inf])
def test_no_rows_have_no_logprobs(limit: float) -> None:
    hidden, weight, offset, targets = _problem()
    found, greedy = target_logprobs(hidden[:0], targets[:0], Head(weight, offset, [3], limit), 1.0)
    assert found.shape == greedy.shape == (0,)
    gradient, by_weight = torch.autograd.grad(found.sum(), [hidden, weight])
    assert not gradient.any()
    assert not by_weight.any()


def test_second_derivatives_are_refused() -> None:
    """The chunked backward pass cannot be differentiated again, and must not pretend to be."""
    hidden, weight, offset, targets = _problem()
    found, _ = target_logprobs(hidden, targets, Head(weight, offset, [], _limit(9)), 1.0)
    (gradient,) = torch.autograd.grad(found.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_chunks_respect_the_limit() -> None:
    weight = torch.empty(152_064, 1)
    head = Head(weight, None, [], 256.0)
    rows = 8 * 256
    assert head.chunk(rows) * rows * 4 <= 256 * 2**20 < (head.chunk(rows) + 1) * rows * 4
    assert head.chunk(rows) < len(weight) / 4
    assert head.chunk(1) == head.chunk(0) == len(weight)
    assert head.chunk(10**9) == 1


def test_no_tensor_of_rows_times_vocabulary_is_made() -> None:
    """Forward and backward, 64 rows and 5,000 ids; the dense way makes them, so the watch works."""
    rows, width, vocabulary = 64, 16, 5_000
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, width, generator=generator, requires_grad=True)
    targets = torch.randint(vocabulary, (rows,), generator=generator)

    def largest(limit: float) -> int:
        with Largest() as watch:
            scored, _ = target_logprobs(hidden, targets, Head(weight, None, [7], limit), 1.0)
            scored.sum().backward()
        return watch.elements

    assert largest(math.inf) == rows * vocabulary
    assert largest(_limit(500, rows)) == weight.numel() < rows * vocabulary / 3
    assert largest(_limit(2_000, rows)) == rows * 2_000


def test_what_is_kept_for_the_backward_pass_is_small() -> None:
    hidden, weight, offset, targets = _problem()
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    unpack: Callable[[Tensor], Tensor] = lambda tensor: tensor  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, unpack):
        target_logprobs(hidden, targets, Head(weight, offset, [], _limit(9)), 1.0)
    assert sorted(kept) == sorted([N, N, N * D, V * D]), "targets, normalisers, hidden states, the weight itself"


def _two_models(dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], list[Tensor]]:
    """Hidden states, weight and bias of a policy, and of a reference beside it; all ask for gradients."""
    policy = [x for x in _problem(dtype)[:3] if x is not None]
    generator = torch.Generator().manual_seed(7)
    frozen = [(x.detach() + 0.3 * torch.randn(x.shape, generator=generator)).to(dtype) for x in policy]
    return policy, [x.requires_grad_(True) for x in frozen]


def _divergences(
    policy: list[Tensor], frozen: list[Tensor], banned: list[int], limit: float, temperature: float
) -> Tensor:
    heads = [Head(weight, bias, banned, limit) for _, weight, bias in (policy, frozen)]
    with torch.no_grad():
        reference = frozen[0] * 1.0
    return token_divergences(policy[0], heads[0], reference, heads[1], temperature)


def _slow_divergences(
    policy: list[Tensor], frozen: list[Tensor], banned: list[int], temperature: float
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Values and the policy's gradients of the sum weighted by `_upstream`: row by row, id by id, in float64."""
    mine = [x.detach().double().requires_grad_(True) for x in policy]
    theirs = [x.detach().double() for x in frozen]
    allowed = [token for token in range(V) if token not in banned]
    values = []
    for row in range(N):
        log_q, log_p = (
            ((weight @ hidden[row] + bias)[allowed] / temperature).log_softmax(0)
            for hidden, weight, bias in (mine, theirs)
        )
        values.append(sum(p.exp() * (p - q) for p, q in zip(log_p, log_q, strict=True)))
    found = torch.stack(values)
    return found.detach(), torch.autograd.grad((found * _upstream().double()).sum(), mine)


def _few_rows(rows: int) -> float:
    """MiB under which as many rows of logits live at once."""
    return 4 * rows * V / 2**20


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("banned", [[], [3, 100]], ids=["none", "some"])
@pytest.mark.parametrize("limit", [_few_rows(1), _few_rows(5), _few_rows(N), math.inf], ids=["1", "5", "all", "free"])
def test_divergences_and_gradients_equal_a_slow_sum(limit: float, banned: list[int], temperature: float) -> None:
    """However few rows are taken at a time; banned ids have no probability, no term and no NaN."""
    policy, frozen = _two_models()
    expected, gradients = _slow_divergences(policy, frozen, banned, temperature)
    found = _divergences(policy, frozen, banned, limit, temperature)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    ours = torch.autograd.grad(found, policy, _upstream())
    for gradient, other in zip(ours, gradients, strict=True):
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient.double(), other, atol=1e-5, rtol=1e-4)
    if banned:
        assert not ours[1][banned].any()
        assert not ours[2][banned].any()


def test_a_divergence_is_zero_from_itself_and_never_negative() -> None:
    policy, frozen = _two_models()
    for limit in (_few_rows(5), math.inf):
        assert _divergences(policy, policy, [3], limit, 1.0).abs().max() < 1e-6
        assert _divergences(policy, frozen, [3], limit, 1.0).min() > 0


def test_extreme_logits_have_finite_divergences() -> None:
    """An id that either model has given up for lost: a huge divergence, no NaN, and a gradient."""
    policy, frozen = _two_models()
    for scale in (1e4, 1e-6):
        for limit in (_few_rows(5), math.inf):
            leaf = (policy[0].detach() * scale).requires_grad_(True)
            found = _divergences([leaf, *policy[1:]], frozen, [0, 1], limit, 1.0)
            assert found.isfinite().all()
            assert torch.autograd.grad(found.sum(), leaf)[0].isfinite().all()


def test_divergences_make_no_tensor_of_all_rows_times_the_vocabulary() -> None:
    """Forward and backward; the whole way makes one, so the watch works."""
    rows, width, vocabulary = 64, 16, 5_000
    generator = torch.Generator().manual_seed(0)
    hidden, other = (torch.randn(rows, width, generator=generator) for _ in range(2))
    weight = torch.randn(vocabulary, width, generator=generator)

    def largest(limit: float) -> int:
        head, leaf = Head(weight, None, [7], limit), hidden.clone().requires_grad_(True)
        with Largest() as watch:
            token_divergences(leaf, head, other, head, 1.0).sum().backward()
        return watch.elements

    assert largest(math.inf) == rows * vocabulary
    assert largest(4 * 20 * vocabulary / 2**20) == 20 * vocabulary


def test_divergences_of_bfloat16_are_taken_in_float32() -> None:
    policy, frozen = _two_models(torch.bfloat16)
    expected, gradients = _slow_divergences(policy, frozen, [3], 1.0)
    for limit in (_few_rows(5), math.inf):
        found = _divergences(policy, frozen, [3], limit, 1.0)
        assert found.dtype == torch.float32
        assert (found.double() - expected).abs().max() < 0.05 * expected.max()
        ours = torch.autograd.grad(found, policy, _upstream())
        for gradient, other in zip(ours, gradients, strict=True):
            assert gradient.dtype == torch.bfloat16
            assert (gradient.double() - other).norm() < 0.05 * other.norm()
