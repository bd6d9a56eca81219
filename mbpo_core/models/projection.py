"""From hidden states to log-probs without the full logits tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Head:
    """The vocabulary projection.

    Attributes:
        weight: (V, D), and bias (V,) where there is one.
        banned: ids that take part in no softmax.
        limit_mib: a (N, V) float32 tensor larger than this is never made; the vocabulary is then cut in chunks.
    """

    weight: Tensor
    bias: Tensor | None
    banned: Sequence[int]
    limit_mib: float

    def chunk(self, rows: int) -> int:
        """How many ids are projected at once for `rows` hidden states."""
        return max(1, int(min(len(self.weight), self.limit_mib * 2**20 / (4 * max(rows, 1)))))

    def logits(self, hidden: Tensor, temperature: float, start: int = 0, stop: int | None = None) -> Tensor:
        """(N, stop - start) float32 logits / temperature of hidden (N, D); banned ids are -inf."""
        bias = None if self.bias is None else self.bias[start:stop]
        scaled = torch.nn.functional.linear(hidden, self.weight[start:stop], bias).float().div_(temperature)
        here = [token - start for token in self.banned if start <= token < (stop or len(self.weight))]
        if here:
            scaled = scaled.index_fill_(-1, torch.tensor(here, device=scaled.device), -math.inf)
        return scaled


def target_logprobs(hidden: Tensor, targets: Tensor, head: Head, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of one id a hidden state, and whether no other id is more probable.

        l_n = z_n[y_n] - log sum_v exp z_n[v],    z_n = (W h_n + b) / temperature,  v not banned

    Softmax in float32. In chunks of the vocabulary the sum runs as a streaming log-sum-exp, and the backward pass
    makes each chunk's probabilities anew: dl/dz_v = 1[v = y] - exp(z_v - logsumexp).

    Args:
        hidden: (N, D) in the model's dtype.
        targets: (N,) long, none of them banned.
        head: the projection.
        temperature: > 0.

    Returns:
        (N,) float32 nats, and (N,) bool without gradient.
    """
    if head.chunk(len(hidden)) >= len(head.weight):
        logits = head.logits(hidden, temperature)
        picked = logits.gather(-1, targets[:, None])[:, 0]
        return picked - logits.logsumexp(-1), picked.detach() >= logits.detach().amax(-1)
    logprobs, greedy = _Chunked.apply(hidden, head.weight, head.bias, targets, head, temperature)  # type: ignore[no-untyped-call]
    return logprobs, greedy


def token_divergences(
    hidden: Tensor, head: Head, reference_hidden: Tensor, reference_head: Head, temperature: float
) -> Tensor:
    """How far the policy's next-token distribution has moved from the reference's, over the whole vocabulary.

        D_n = sum_v p_ref(v) [ log p_ref(v) - log p(v) ]

    Rows are taken a few at a time, so that no tensor exceeds the head's limit; the backward pass makes them anew.

    Args:
        hidden: (N, D) the policy's, with gradient.
        reference_hidden: (N, D) the reference's, without.
        head, reference_head: their projections.
        temperature: > 0, of both.

    Returns:
        (N,) float32 nats, >= 0.

    Source: CHiP arXiv:2501.16629 (as TDPO arXiv:2404.11999).
    """

    def few(mine: Tensor, frozen: Tensor) -> Tensor:
        policy = head.logits(mine, temperature).log_softmax(-1)
        reference = reference_head.logits(frozen, temperature).log_softmax(-1)
        # Banned ids are -inf under both: no probability, and no term.
        terms = reference.exp() * (reference - policy)
        return torch.where(reference.isneginf(), torch.zeros_like(terms), terms).sum(-1)

    size = (
        max(1, int(head.limit_mib * 2**20 / (4 * len(head.weight)))) if math.isfinite(head.limit_mib) else len(hidden)
    )
    if size >= len(hidden):
        return few(hidden, reference_hidden)
    pieces = zip(torch.split(hidden, size), torch.split(reference_hidden, size), strict=True)
    return torch.cat([checkpoint(few, *piece, use_reentrant=False) for piece in pieces])


class _Chunked(torch.autograd.Function):
    """`target_logprobs` over chunks of the vocabulary; nothing of size N x V lives at any time."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: Head, temperature: float
    ) -> tuple[Tensor, Tensor]:
        # The smallest number and not -inf: a chunk may hold banned ids alone, and inf - inf is nothing.
        peak = torch.full((len(hidden),), torch.finfo(torch.float32).min, device=hidden.device)
        total, picked = torch.zeros_like(peak), torch.zeros_like(peak)
        size = head.chunk(len(hidden))
        for start in range(0, len(weight), size):
            logits = head.logits(hidden, temperature, start, start + size)
            higher = torch.maximum(peak, logits.amax(-1))
            total = total * (peak - higher).exp() + (logits - higher[:, None]).exp_().sum(-1)
            peak = higher
            here = (targets >= start) & (targets < start + size)
            picked[here] = logits[here, targets[here] - start]
        normaliser = peak + total.log()
        ctx.save_for_backward(hidden, weight, targets, normaliser)
        ctx.head, ctx.temperature, ctx.size = head, temperature, size
        greedy = picked >= peak
        ctx.mark_non_differentiable(greedy)
        return picked - normaliser, greedy

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, normaliser = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        by_hidden = torch.zeros_like(hidden, dtype=torch.float32) if wants_hidden else None
        by_weight = torch.empty_like(weight) if wants_weight else None
        by_bias = torch.empty_like(ctx.head.bias) if wants_bias else None
        scale = (upstream / ctx.temperature)[:, None]
        for start in range(0, len(weight), ctx.size):
            stop = min(start + ctx.size, len(weight))
            logits = ctx.head.logits(hidden, ctx.temperature, start, stop)
            by_logits = logits.sub_(normaliser[:, None]).exp_().mul_(-scale)
            here = (targets >= start) & (targets < stop)
            by_logits[here, targets[here] - start] += scale[here, 0]
            by_logits = by_logits.to(hidden.dtype)
            if by_hidden is not None:
                by_hidden += by_logits @ weight[start:stop]
            if by_weight is not None:
                torch.mm(by_logits.T, hidden, out=by_weight[start:stop])
            if by_bias is not None:
                by_bias[start:stop] = by_logits.sum(0)
        return None if by_hidden is None else by_hidden.to(hidden.dtype), by_weight, by_bias, None, None, None
