"""The nouns of an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GIB = 2**30


def amount(count: float) -> str:
    """A number as people say it: 8.29 billion, 1.56 million, 800."""
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count:.0f}"


@dataclass(frozen=True)
class Term:
    """Something that takes memory of one process's device.

    Attributes:
        name: what it is.
        size: bytes.
        why: where the number comes from, in words.
    """

    name: str
    size: float
    why: str


@dataclass(frozen=True)
class Phase:
    """A time at which a stage's memory may peak, and all that is held then."""

    name: str
    terms: Sequence[Term]

    @property
    def size(self) -> float:
        """Bytes."""
        return sum(term.size for term in self.terms)

    @property
    def largest(self) -> Term:
        """The term that takes most."""
        return max(self.terms, key=lambda term: term.size)


@dataclass(frozen=True)
class StageEstimate:
    """What one process of a stage needs.

    Attributes:
        stage: its name.
        phases: of which the largest decides.
        host: bytes that lie in the host's memory instead, a process.
    """

    stage: str
    phases: Sequence[Phase]
    host: float = 0.0

    @property
    def peak(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.size)

    @property
    def size(self) -> float:
        """Bytes at the peak."""
        return self.peak.size
