"""The keywords of a response: its content words, ranked by a graph of where they stand and how alike they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.negatives.words import Topic

DAMPING = 0.85
ITERATIONS = 50


@dataclass(frozen=True)
class Keyword:
    """A content word that was chosen; the higher its score, the more the response turns on it."""

    topic: Topic
    score: float

    @property
    def text(self) -> str:
        """The word in lower case."""
        return self.topic.text


def choose_keywords(topics: Sequence[Topic], vectors: Tensor, settings: NegativesConfig) -> list[Keyword]:
    """The at most `settings.keywords` words of highest rank, best first; of equal ranks the earlier word.

    Args:
        topics: n content words of one response.
        vectors: (n, D) what they mean; zeros for a word of which nothing is known.
        settings: keywords, position_power, similarity_weight, position_decay.

    Source: MFPO arXiv:2410.15334, recipe 2.3.
    """
    if not topics:
        return []
    positions = [topic.positions for topic in topics]
    weights = edges(
        influence(positions, settings.position_power),
        similarity(vectors),
        torch.tensor([float(min(places)) for places in positions], dtype=torch.float64),
        gamma=settings.similarity_weight,
        decay=settings.position_decay,
    )
    scores: list[float] = rank(weights).tolist()
    # Scores that differ by rounding alone are equal: the order must not hang on it.
    best = sorted(range(len(topics)), key=lambda place: (-round(scores[place], 9), place))[: settings.keywords]
    return [Keyword(topics[place], scores[place]) for place in best]


def influence(positions: Sequence[Sequence[int]], power: float) -> Tensor:
    """How near words stand to one another, over all pairs of their occurrences.

        theta_ij = sum_{p in l_i} sum_{q in l_j} 1 / (1 + |p - q|^phi),    theta_ii = 0

    Args:
        positions: n lists of word positions, each of at least one.
        power: phi >= 0.

    Returns:
        (n, n) float64, symmetric.
    """
    count = len(positions)
    theta = torch.zeros(count, count, dtype=torch.float64)
    for i in range(count):
        for j in range(i):
            here, there = (torch.tensor(positions[k], dtype=torch.float64) for k in (i, j))
            distance = (here[:, None] - there[None, :]).abs()
            theta[i, j] = theta[j, i] = (1 / (1 + distance**power)).sum()
    return theta


def similarity(vectors: Tensor) -> Tensor:
    """S_ij = v_i . v_j / (|v_i| |v_j|), (n, n) float64; 0 where either vector is zero."""
    wide = vectors.detach().cpu().double()
    units: Tensor = wide / wide.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return units @ units.T


def edges(theta: Tensor, similar: Tensor, first: Tensor, *, gamma: float, decay: float) -> Tensor:
    """Weights of the word graph; w_ij is what word i gives to word j.

        w_ij = kappa_j (theta_ij + gamma max(S_ij, 0)),    kappa_j = exp(-lambda l_j),    w_ii = 0

    Words of unlike meaning (S_ij < 0) count as unrelated: a negative weight would be no share of a vote, and the
    ranks could then grow without bound.

    Args:
        theta, similar: (n, n) of `influence` and `similarity`.
        first: (n,) l_j, the first position of each word.
        gamma: weight of similarity, >= 0.
        decay: lambda >= 0, per word.
    """
    kappa = torch.exp(first * -decay)
    weights = kappa * (theta + gamma * similar.clamp_min(0.0))
    weights.fill_diagonal_(0.0)
    return weights


def rank(weights: Tensor, damping: float = DAMPING, iterations: int = ITERATIONS) -> Tensor:
    """Weighted PageRank from s = 1.

        s_i <- (1 - d) + d sum_j w_ji / (sum_k w_jk) s_j

    A word without edges gives its share to none.

    Args:
        weights: (n, n) >= 0.

    Returns:
        (n,) float64; the mean is 1 where every word has an edge.

    Source: TextRank (Mihalcea and Tarau 2004), eq. (2).
    """
    total = weights.sum(1, keepdim=True)
    shares = torch.where(total > 0, weights / total.clamp_min(torch.finfo(weights.dtype).tiny), 0.0)
    scores = torch.ones(len(weights), dtype=weights.dtype)
    for _ in range(iterations):
        scores = (1 - damping) + damping * (shares.T @ scores)
    return scores
