"""Dropped rows: a closed set of reasons, counted, with a limit on how many may be unusable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mbpo_core.errors import DataError, StoreError, TooManyDropped
from mbpo_core.stage import StageSpec
from mbpo_core.store.manifest import PartInfo, Sidecar
from mbpo_core.tables import Row

_EXAMPLES = 3  # of each reason, in messages


class DroppedRows:
    """Counts of an attempt.

    Args:
        limit: largest share of input rows that may be dropped for "bad" reasons; None for no limit.
    """

    def __init__(self, spec: StageSpec, limit: float | None) -> None:
        self._spec, self._limit = spec, limit
        self.counts: Counter[str] = Counter()
        self.total = 0  # input rows: of the largest table, because further tables are made from the same rows
        self._examples: dict[str, list[str]] = {}

    def expect(self, total: int) -> None:
        """Say how many input rows a table is made from."""
        self.total = max(self.total, total)

    def check_reasons(self, letters: Sequence[Row]) -> None:
        """Raise StoreError for a reason outside the stage's closed set: a bug in the stage."""
        for letter in letters:
            if letter["reason"] not in self._spec.reasons:
                raise StoreError(
                    f"unknown reason {letter['reason']!r} for dropping {letter['sample_id']}",
                    where=f"stage {self._spec.name}",
                    expected=f"one of {', '.join(self._spec.reasons) or 'none: this stage drops nothing'}",
                    remedy="Declare it in mbpo_core/stages.py.",
                )

    @staticmethod
    def count(letters: Sequence[Row]) -> dict[str, int]:
        """Rows by reason."""
        return dict(Counter(letter["reason"] for letter in letters))

    @staticmethod
    def examples(letters: Sequence[Row]) -> dict[str, list[str]]:
        """A few rows of each reason as "id: detail"."""
        chosen: dict[str, list[str]] = {}
        for letter in letters:
            chosen.setdefault(letter["reason"], []).append(f"{letter['sample_id']}: {letter['detail']}"[:200])
        return {reason: lines[:_EXAMPLES] for reason, lines in chosen.items()}

    def add(self, part: PartInfo | Sidecar) -> None:
        """Count a finished part.

        Raises:
            TooManyDropped: whatever the remaining parts bring, the limit is passed.
        """
        self.counts.update(part.reasons)
        for reason, lines in getattr(part, "examples", {}).items():
            known = self._examples.setdefault(reason, [])
            known += lines[: _EXAMPLES - len(known)]
        bad = {reason: n for reason, n in self.counts.items() if self._spec.reasons.get(reason) == "bad"}
        if self._limit is None or sum(bad.values()) <= self._limit * self.total:
            return
        raise TooManyDropped(
            f"{sum(bad.values())} of {self.total} rows are unusable: {self._told(bad)}",
            where=f"stage {self._spec.name}",
            expected=f"at most {self._limit:.3g} of the rows (max_dropped_share)",
            remedy=f"Mend the input, or raise {self._spec.name}.max_dropped_share.",
        )

    def settle(self, kept: int | None) -> None:
        """Raise DataError if the main table holds no row (None: the stage has no main table)."""
        if kept == 0 and not self.total:
            raise DataError(
                "there is no input row", where=f"stage {self._spec.name}", remedy="Look at the stage before this one."
            )
        if kept == 0:
            raise DataError(
                f"no row is left of {self.total}" + (f": {self._told(self.counts)}" if self.counts else ""),
                where=f"stage {self._spec.name}",
                expected="at least one row",
                remedy="Mend the input, or loosen the filters that dropped it.",
            )

    def _told(self, counts: dict[str, int]) -> str:
        lines = []
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5]:
            examples = "; ".join(self._examples.get(reason, [])[:_EXAMPLES])
            lines.append(f"{reason} {count} ({examples})" if examples else f"{reason} {count}")
        return ", ".join(lines)
