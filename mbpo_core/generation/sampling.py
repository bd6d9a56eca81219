"""Choosing the next token: greedy, or by inverting the cumulative distribution at a row's own uniform number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_uniforms(seeds: Sequence[int], completions: int, steps: int) -> Tensor:
    """The random numbers of all rows, fixed before the first token.

    Each prompt has its own generator, so its numbers depend on its seed alone: neither on the batch, nor on
    which rows have finished, nor on the device.

    Args:
        seeds: P seeds, one a prompt.
        completions: G completions a prompt.
        steps: longest completion.

    Returns:
        (P * G, steps) float64 in [0, 1), on the CPU.
    """
    drawn = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        # Step-major, so that a larger max_new_tokens leaves the first tokens as they were.
        drawn.append(torch.rand(steps, completions, generator=generator, dtype=torch.float64).T)
    return torch.cat(drawn)


def sample(logprobs: Tensor, uniforms: Tensor, top_p: float) -> Tensor:
    """Draw one token a row.

        token = the first v with P(ids <= v) > u

    Args:
        logprobs: (B, V) normalised log-probs, -inf for ids that must not be drawn.
        uniforms: (B,) float64 in [0, 1).
        top_p: keep the fewest most probable ids whose probabilities add up to at least this, renormalised.

    Returns:
        (B,) long.
    """
    probabilities = logprobs.double().exp()
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    cumulative = probabilities.cumsum(-1)
    threshold = uniforms.to(cumulative.device)[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    # u < 1 keeps the threshold below the total except for rounding; the last id with mass is then meant.
    last = (probabilities > 0).cumsum(-1).argmax(-1)
    return torch.minimum(tokens, last)
