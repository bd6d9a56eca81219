"""The objectives once more, slowly: plain Python floats and loops, written from the recipe's equations alone."""

from __future__ import annotations

import math

Rows = list[list[float]]


def advantages(rewards: list[float], *, scale: str, eps: float) -> list[float]:
    mean = sum(rewards) / len(rewards)
    divisor = {"population": len(rewards), "sample": len(rewards) - 1, "none": 1}[scale]
    spread = math.sqrt(sum((r - mean) ** 2 for r in rewards) / divisor)
    if all(r == rewards[0] for r in rewards):
        return [0.0] * len(rewards)
    return [r - mean if scale == "none" else (r - mean) / (spread + eps) for r in rewards]


def surrogate(ratio: float, advantage: float, low: float, high: float) -> float:
    clipped = min(max(ratio, 1 - low), 1 + high)
    return min(ratio * advantage, clipped * advantage)


def soft(ratio: float, advantage: float) -> float:
    tau = 1.0 if advantage > 0 else 1.05
    return 4 / (tau * (1 + math.exp(-tau * (ratio - 1)))) * advantage


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
    kind: str = "token",
) -> float:
    """J of equation (4): groups are dicts of weight, advantages, policy, old, reference (lists of token lists)."""
    numerator = 0.0
    for group in groups:
        for a, policy, old, reference in zip(
            group["advantages"], group["policy"], group["old"], group["reference"], strict=True
        ):
            tokens = 0.0
            product = math.prod(math.exp(p) / math.exp(o) for p, o in zip(policy, old, strict=True))
            for p, o, r in zip(policy, old, reference, strict=True):
                ratio = math.exp(p) / math.exp(o)
                if shaped and a > 0:
                    earned = math.exp(p) / (math.exp(p) + 0.1) * a
                elif kind == "sequence":
                    earned = surrogate(product ** (1 / len(policy)), a, low, high)
                elif kind == "soft":
                    earned = soft(ratio, a)
                elif kind == "cispo":
                    earned = min(ratio, 1 + high) * a * p
                else:
                    earned = surrogate(ratio, a, low, high)
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


def gain(seen: list[float], blind: list[float]) -> float:
    total = 0.0
    for a, b in zip(seen, blind, strict=True):
        total += a - b
    return total / len(seen)


# The preference family: one pair, its log-ratios as numbers. Each is minus the log of a product of probabilities.


def ratio(policy: list[float], reference: list[float]) -> float:
    total = 0.0
    for p, r in zip(policy, reference, strict=True):
        total += math.log(math.exp(p) / math.exp(r))
    return total


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def dpo(c: float, r: float, beta: float) -> float:
    return -math.log(math.exp(beta * c) / (math.exp(beta * c) + math.exp(beta * r)))


def ipo(c: float, r: float, beta: float) -> float:
    distance = c - r - 0.5 / beta
    return distance * distance


def image(c: float, wrong: float, beta: float, cap: float) -> float:
    return -math.log(sigmoid(beta * (cap if 0 < cap < c - wrong else c - wrong)))


def anchor(c: float, beta: float, margin: float) -> float:
    return math.log(1 + math.exp(margin - beta * c))


def mdpo(c: float, r: float, wrong: float, beta: float, delta: float) -> float:
    return -math.log(sigmoid(beta * (c - r)) * sigmoid(beta * (c - wrong)) * sigmoid(beta * c - delta))


def mfpo(c: float, r: float, wrong: float, beta: float, eta: float, weights: tuple[float, float, float]) -> float:
    total = 0.0
    for weight, z in zip(weights, (beta * c - beta * r, beta * c - beta * wrong, beta * c - eta), strict=True):
        total += weight * math.log(1 + math.exp(-z))
    return total


def chip(c: float, r: float, wrong: float, kl_c: float, kl_r: float, beta: float, weight: float) -> float:
    return -math.log(sigmoid(beta * (2 * c - r - wrong - weight * (kl_r - kl_c))))


def adavip(c: float, r: float, wrong: float, beta: float) -> float:
    mass = [math.exp(beta * x) for x in (c, r, wrong)]
    return -math.log(mass[0] / sum(mass))


def rdpo(c: float, r: float, wrong: float, beta: float) -> float:
    return -math.log(sigmoid(beta * (c - r)) * sigmoid(beta * (c - wrong)))


def povid(c: float, r: float, slip: float, beta: float) -> float:
    return -math.log(math.sqrt(sigmoid(beta * (c - r)) * sigmoid(beta * (c - slip))))


def bco(c: float, r: float, shift: float, beta: float) -> float:
    return -math.log(sigmoid(beta * c - shift) * (1 - sigmoid(beta * r - shift)))


def mpo(c: float, r: float, nll: float, shift: float, beta: float, weights: tuple[float, float, float]) -> float:
    return weights[0] * dpo(c, r, beta) + weights[1] * bco(c, r, shift, beta) + weights[2] * nll


def decoupling(seen: float, reference: float, beta: float, mean: float, std: float) -> float:
    gate = 1 - sigmoid((seen - mean) / std)
    return gate * math.log(1 + math.exp(-beta * (seen - reference)))


def calibration(c: float, c_degraded: float, r: float, r_degraded: float, beta: float) -> float:
    return -math.log(sigmoid(beta * (c - c_degraded - r + r_degraded)))


def combined(first: float, second: float, share: float) -> float:
    return math.log(1 / (share / math.exp(second) + (1 - share) / math.exp(first)))


def entropy(scores: list[float]) -> float:
    mass = [math.exp(s) for s in scores]
    return -sum(m / sum(mass) * math.log(m / sum(mass)) for m in mass if m > 0)
