"""How hard a pair is: the reference's own doubt, by which MFPO's curriculum goes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mbpo_core.generation.generate import generate
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import over_vocabulary
from mbpo_core.objectives.entropy import cluster_entropy, token_entropy
from mbpo_core.objectives.passes import CHOSEN
from mbpo_core.prefetch import ahead
from mbpo_core.seeds import derive_seed
from mbpo_core.training.data import GroupSet
from mbpo_core.training.looks import Look
from mbpo_core.training.reference import Shared
from mbpo_core.training.world import World

SAMPLES = 8
"""Answers from whose meanings the semantic entropy is taken."""

_GROUPS = 16
_WORDS = re.compile(r"\w+")


def pair_entropies(
    groups: GroupSet, indices: Sequence[int], reference: Policy, how: str, seed: int, world: World
) -> dict[int, float]:
    """Each pair's entropy under the reference, nats; higher is harder.

        token_entropy      (1 / T) sum_t H_t along the chosen response: one forward pass, no sampling
        semantic_entropy   - sum_c p_c log p_c over clusters of eight answers sampled at temperature 1; answers of
                           equal words are one cluster

    Args:
        groups: the round's groups.
        indices: pairs.
        reference: frozen.
        how: one of the two names.
        seed: the run's; an answer depends on it, the sample, and the longest chosen response of all.
        world: the processes that share the work.

    Source: MFPO arXiv:2410.15334, recipe 2.6, options (A) and (B).
    """
    # Of all pairs, so that an answer does not depend on how they are cut into batches and processes.
    longest = max((groups.lengths(index)[0] for index in indices), default=0)
    measure = _token(reference) if how == "token_entropy" else _semantic(reference, seed, max(2 * longest, 8))
    shared = Shared(indices, [1] * len(indices), world)
    parts = [shared.mine[start : start + _GROUPS] for start in range(0, len(shared.mine), _GROUPS)]
    with ahead(iter(parts), lambda part: groups.looks(part, [CHOSEN])[0]) as loaded:
        for part, look in zip(parts, loaded, strict=True):
            for index, value in zip(part, measure(look), strict=True):
                shared.put(index, torch.tensor([value]))
    return {index: float(value) for index, value in shared.all()}


def group_entropies(policy: Policy, groups: Sequence[PromptGroup]) -> list[list[Tensor]]:
    """The entropy of the next-token distribution at the place of every token of every completion.

        H_t = - sum_v p(v | images, x, y_<t) log p(v | images, x, y_<t)

    Returns:
        [P][K] float32 (T,) on the CPU, nats.

    Source: recipe 2.6, option (A), before the mean.
    """
    return over_vocabulary(policy, groups, token_entropy)


def _token(reference: Policy) -> Callable[[Look], list[float]]:
    return lambda look: [float(entropies.mean()) for (entropies,) in group_entropies(reference, look.groups)]


def _semantic(reference: Policy, seed: int, max_new_tokens: int) -> Callable[[Look], list[float]]:
    def measure(look: Look) -> list[float]:
        answers = generate(
            reference,
            [group.prompt for group in look.groups],
            completions=SAMPLES,
            temperature=1.0,
            max_new_tokens=max_new_tokens,
            seeds=[derive_seed(seed, "training", "semantic", group.sample_id) for group in look.groups],
        )
        clusters = [Counter(" ".join(_WORDS.findall(a.text.casefold())) for a in several) for several in answers]
        return [cluster_entropy(list(counts.values())) for counts in clusters]

    return measure
