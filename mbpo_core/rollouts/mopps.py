"""MoPPS: asking what the policy is expected to get right half the time, from what earlier rounds have shown."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from mbpo_core.errors import DataError
from mbpo_core.objectives.beta_posterior import update
from mbpo_core.seeds import derive_seed
from mbpo_core.stage import Reader

FILE = "posterior.json"
"""What is known of every prompt asked so far; the next round goes on from it."""

PRIOR = (1.0, 1.0)

Posterior = Mapping[str, tuple[float, float]]
"""(alpha, beta) of the success rate's Beta distribution, by sample_id; a prompt that is missing has the prior."""


def pick(
    sample_ids: Iterable[str],
    posterior: Posterior,
    *,
    prompts: int,
    pool: int,
    round_index: int,
    seed: int,
    spare: int = 0,
) -> list[int]:
    """Positions of a round's prompts in `sample_ids`, and behind them of those that may stand in.

        candidates: pool * prompts of the ids, without replacement
        g_i ~ Beta(alpha_i, beta_i) of each;    picked: the `prompts` with the smallest (g_i - 1/2)^2

    Groups that are all right or all wrong teach nothing, and a prompt that is right half the time gives them least
    often. A prompt of which little is known has a wide posterior, and so its chance.

    Args:
        sample_ids: N distinct ids, in any order; streamed, only the candidates are kept.
        posterior: what is known of them.
        prompts: prompts a round, >= 1.
        pool: candidates a prompt, >= 1; 1 picks by the round's order alone.
        round_index: r, from 0.
        seed: the run's.
        spare: stand-ins, the next nearest of the candidates; there may be fewer.

    Returns:
        min(prompts, N) positions and up to `spare` more, the nearest to a half first. Every random number belongs to
        round and id: neither the table's order nor the other candidates matter.

    Source: MoPPS arXiv:2507.04632; recipe 4.5.
    """
    keyed = (
        (derive_seed(seed, "rollouts", "candidates", round_index, sample_id), sample_id, position)
        for position, sample_id in enumerate(sample_ids)
    )
    distances = []
    for _, sample_id, position in heapq.nsmallest(pool * prompts, keyed):
        random = Random(derive_seed(seed, "rollouts", "mopps", round_index, sample_id))
        drawn = random.betavariate(*posterior.get(sample_id, PRIOR))
        distances.append(((drawn - 0.5) ** 2, sample_id, position))
    return [position for _, _, position in sorted(distances)[: prompts + spare]]


def learn(posterior: Posterior, groups: Iterable[Mapping[str, Any]], decay: float) -> dict[str, tuple[float, float]]:
    """The posterior after a round: every prompt's that was asked is updated, all others stay.

    Args:
        posterior: before the round.
        groups: rows of `RolloutGroup`, of which sample_id and completions are read.
        decay: d in [0, 1], what is kept of earlier counts; see `beta_posterior.update`.
    """
    learned = dict(posterior)
    for group in groups:
        right = [completion["verdict"] == "correct" for completion in group["completions"]]
        before = learned.get(group["sample_id"], PRIOR)
        learned[group["sample_id"]] = update(*before, sum(right) / len(right), len(right), decay)
    return learned


def read_posterior(before: Reader | None) -> Posterior:
    """What the rollouts of the round before have left; empty where there are none.

    Raises:
        DataError: that round picked its prompts in another way and left nothing.
    """
    if before is None:
        return {}
    if before.manifest.config.get("select") != "mopps":
        raise DataError(
            "the round before did not pick its prompts by mopps, and so has left nothing to go on from",
            where=before.ref.key,
            remedy="Make its rollouts with rollouts.select=mopps first.",
        )
    return {sample_id: (alpha, beta) for sample_id, (alpha, beta) in before.json(FILE).items()}
