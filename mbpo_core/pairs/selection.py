"""Which share of each question kind is kept, by gain of the chosen response."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from mbpo_core.pairs.filters import Scores
from mbpo_core.seeds import derive_seed

Select = Literal["top", "bottom", "random", "all"]


def outside_share(candidates: Sequence[Scores], select: Select, share: float, seed: int) -> dict[str, str]:
    """The candidates that are not kept, and why.

    Within each question kind the ceil(share * n) best-ranked of its n candidates are kept: by falling gain
    ("top"), rising gain ("bottom") or a draw that depends on seed and sample_id only ("random");
    "all" keeps everything. Equal gains are ranked by sample_id, so the order of candidates never matters.

    Args:
        candidates: pairs that passed the filters.
        select: how to rank.
        share: in (0, 1].
        seed: the run's seed.

    Returns:
        sample_id -> detail, for each candidate left out.
    """
    if select == "all":
        return {}
    by_kind: dict[str, list[Scores]] = {}
    for candidate in candidates:
        by_kind.setdefault(candidate.question_kind, []).append(candidate)
    left_out: dict[str, str] = {}
    for kind, members in by_kind.items():
        ranked = sorted(members, key=_rank_key(select, seed))
        kept = math.ceil(share * len(ranked) - 1e-9)  # 0.1 * 30 is a little more than 3
        for rank, member in enumerate(ranked[kept:], start=kept + 1):
            left_out[member.sample_id] = (
                f"rank {rank} of {len(ranked)} {kind} pairs ({select}), the first {kept} are kept"
            )
    return left_out


def _rank_key(select: Select, seed: int) -> Callable[[Scores], tuple[Any, str]]:
    if select == "random":
        return lambda scores: (derive_seed(seed, "pairs", "random", scores.sample_id), scores.sample_id)
    sign = -1 if select == "top" else 1
    return lambda scores: (sign * scores.gain_chosen, scores.sample_id)
