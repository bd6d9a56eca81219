"""How a token counts in the loss: divisors over the whole step, never over a micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mbpo_core.errors import ShapeError

Normalization = Literal["sequence", "token", "constant"]


def completion_weights(
    lengths: Sequence[Sequence[int]],
    group_weights: Sequence[float],
    mode: Normalization,
    *,
    constant_length: int = 1,
) -> list[list[float]]:
    """What each token of each completion is multiplied by, so that plain sums give the step's mean.

        sequence   u[b, i] = w_b / (W G_b |y_bi|),   W = sum_b w_b        (GRPO, recipe eq. 4)
        token      u[b, i] = w_b / sum_b w_b sum_i |y_bi|                 (DAPO)
        constant   u[b, i] = w_b / (W G_b L)                              (Dr. GRPO)

    The sums run over every group of the step, whichever process or micro-batch it is in: the loss
    sum_b sum_i u[b, i] sum_t f(b, i, t) does not depend on how the step was cut.

    Args:
        lengths: |y_bi|, tokens of each completion (incl. EOS) of each group of the step.
        group_weights: w_b, one a group; a group of weight 0 counts nowhere.
        mode: which divisor.
        constant_length: L, tokens; used by `constant` only.

    Returns:
        One weight a completion, nested as `lengths`.

    Raises:
        ShapeError: a completion is empty, or the two arguments differ in length.

    Source: recipe 1.6, 4.2, 4.3; arXiv:2402.03300, 2503.14476, 2503.20783.
    """
    if len(lengths) != len(group_weights) or any(length < 1 for group in lengths for length in group):
        raise ShapeError(
            f"{len(lengths)} groups, {len(group_weights)} weights, shortest completion "
            f"{min((length for group in lengths for length in group), default=0)} tokens",
            where="objectives.completion_weights",
            expected="one weight a group and completions of at least one token",
        )
    if mode == "token":
        tokens = sum(weight * sum(group) for group, weight in zip(lengths, group_weights, strict=True))
        return [
            [weight / tokens if weight else 0.0] * len(group)
            for group, weight in zip(lengths, group_weights, strict=True)
        ]
    total = sum(group_weights)
    return [
        [
            weight / (total * len(group) * (length if mode == "sequence" else constant_length)) if weight else 0.0
            for length in group
        ]
        for group, weight in zip(lengths, group_weights, strict=True)
    ]
