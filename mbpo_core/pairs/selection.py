"""Which share of each question kind is kept, by gain of the chosen response."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mbpo_core.pairs.filters import Scores
from mbpo_core.seeds import derive_seed

Select = Literal["top", "bottom", "random", "all"]

_CHUNK = 4096


@dataclass(frozen=True)
class Ranking:
    """Each candidate's place within its question kind.

    Attributes:
        ranks: (N,) int32 by row number, 1 for the best of a kind, 0 for a row that is no candidate.
        totals: candidates of each kind.
    """

    select: Select
    share: float
    ranks: npt.NDArray[np.int32]
    totals: dict[str, int]

    def outside(self, number: int, kind: str) -> str | None:
        """Why the pair in row `number` is not kept; None if it is among the first of its kind."""
        if self.select == "all" or not self.ranks[number]:
            return None
        total, rank = self.totals[kind], int(self.ranks[number])
        kept = math.ceil(self.share * total - 1e-9)  # 0.1 * 30 is a little more than 3
        if rank <= kept:
            return None
        return f"rank {rank} of {total} {kind} pairs ({self.select}), the first {kept} are kept"


def rank_pairs(candidates: Iterable[Scores | None], select: Select, share: float, seed: int) -> Ranking:
    """Rank the pairs that passed the filters within their question kinds.

    Of the n candidates of a kind the ceil(share * n) best are kept: by falling gain ("top"), rising gain ("bottom")
    or a draw that depends on seed and sample_id only ("random"); "all" keeps everything. Equal gains are ranked by
    sample_id, so the order of candidates never matters.

    Args:
        candidates: in row order, None where a filter dropped the pair; streamed. About 30 bytes a row and the id are
            kept until all are ranked, then 4.
        select: how to rank.
        share: in (0, 1].
        seed: the run's seed.
    """
    columns = _Columns(array("q" if select == "random" else "d"))
    for candidate in candidates:
        columns.add(candidate, 0 if candidate is None else _key(candidate, select, seed))
    ranks = np.zeros(columns.count, dtype=np.int32)
    totals = dict.fromkeys(columns.kinds, 0)
    if len(columns.rows):
        order, kinds = columns.order("descending" if select == "top" else "ascending")
        sizes = np.bincount(kinds, minlength=len(totals))
        starts = np.cumsum(sizes) - sizes
        ranks[np.frombuffer(columns.rows, dtype=np.int64)[order]] = np.arange(len(order)) - starts[kinds[order]] + 1
        totals = {kind: int(sizes[code]) for kind, code in columns.kinds.items()}
    return Ranking(select, share, ranks, totals)


@dataclass
class _Columns:
    """What the candidates are sorted by, in arrays."""

    keys: array[Any]
    count: int = 0  # of all rows, candidates or not
    rows: array[int] = field(default_factory=lambda: array("q"))
    codes: array[int] = field(default_factory=lambda: array("q"))
    kinds: dict[str, int] = field(default_factory=dict)
    ids: list[Any] = field(default_factory=list)  # Arrow arrays
    pending: list[str] = field(default_factory=list)

    def add(self, candidate: Scores | None, key: float | int) -> None:
        self.count += 1
        if candidate is None:
            return
        self.keys.append(key)
        self.rows.append(self.count - 1)
        self.codes.append(self.kinds.setdefault(candidate.question_kind, len(self.kinds)))
        self.pending.append(candidate.sample_id)
        if len(self.pending) == _CHUNK:
            self._pack()

    def order(self, direction: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(candidates by kind, key and id, best first; kind codes by candidate)."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self._pack()
        kinds = np.frombuffer(self.codes, dtype=np.int64)
        table = pa.table({"kind": kinds, "key": np.asarray(self.keys), "id": pa.chunked_array(self.ids, pa.string())})
        keys = [("kind", "ascending"), ("key", direction), ("id", "ascending")]
        return pc.sort_indices(table, sort_keys=keys).to_numpy().astype(np.int64), kinds

    def _pack(self) -> None:
        import pyarrow as pa

        self.ids.append(pa.array(self.pending, pa.string()))
        self.pending = []


def _key(candidate: Scores, select: Select, seed: int) -> float | int:
    return derive_seed(seed, "pairs", "random", candidate.sample_id) if select == "random" else candidate.gain_chosen
