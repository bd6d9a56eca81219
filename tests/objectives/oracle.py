"""The objectives once more, slowly: plain Python floats and loops, written from the recipe's equations alone."""

from __future__ import annotations

import math

Rows = list[list[float]]


def advantages(rewards: list[float], *, scale: bool, eps: float) -> list[float]:
    mean = sum(rewards) / len(rewards)
    spread = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    if all(r == rewards[0] for r in rewards):
        return [0.0] * len(rewards)
    return [(r - mean) / (spread + eps) if scale else r - mean for r in rewards]


def surrogate(ratio: float, advantage: float, low: float, high: float) -> float:
    clipped = min(max(ratio, 1 - low), 1 + high)
    return min(ratio * advantage, clipped * advantage)


def k3(policy: float, reference: float) -> float:
    return math.exp(reference - policy) - (reference - policy) - 1


def objective(
    groups: list[dict],
    *,
    low: float,
    high: float,
    beta: float,
    normalization: str = "sequence",
    constant: int = 1,
    shaped: bool = False,
) -> float:
    """J of equation (4): groups are dicts of weight, advantages, policy, old, reference (lists of token lists)."""
    numerator = 0.0
    for group in groups:
        for a, policy, old, reference in zip(
            group["advantages"], group["policy"], group["old"], group["reference"], strict=True
        ):
            tokens = 0.0
            for p, o, r in zip(policy, old, reference, strict=True):
                if shaped and a > 0:
                    earned = math.exp(p) / (math.exp(p) + 0.1) * a
                else:
                    earned = surrogate(math.exp(p) / math.exp(o), a, low, high)
                tokens += earned - beta * k3(p, r)
            divisor = {
                "sequence": len(policy) * len(group["policy"]),
                "token": 1,
                "constant": constant * len(group["policy"]),
            }
            numerator += group["weight"] * tokens / divisor[normalization]
    if normalization == "token":
        return numerator / sum(g["weight"] * sum(len(row) for row in g["policy"]) for g in groups)
    return numerator / sum(g["weight"] for g in groups)


def dpo(policy_w: Rows, policy_l: Rows, reference_w: Rows, reference_l: Rows, beta: float) -> list[float]:
    losses = []
    for pw, pl, rw, rl in zip(policy_w, policy_l, reference_w, reference_l, strict=True):
        z = beta * ((sum(pw) - sum(rw)) - (sum(pl) - sum(rl)))
        losses.append(math.log(1 + math.exp(-z)))
    return losses


def gain(seen: list[float], blind: list[float]) -> float:
    total = 0.0
    for a, b in zip(seen, blind, strict=True):
        total += a - b
    return total / len(seen)
