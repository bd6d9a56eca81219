"""What a run publishes: the decisions about its checkpoints, and the pointers that follow from them.

`mbpo_core.promotion` decides; here it is written down, in promotions/<run>.json. The file is the truth and the run's
pointers `promoted` and `promoted/evaluation` follow it, because only one file can be changed at once.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field

from mbpo_core.errors import StoreError
from mbpo_core.stage import ArtifactRef
from mbpo_core.store.core import Store
from mbpo_core.store.lineage import PROMOTED
from mbpo_core.store.manifest import Document

EVALUATION = f"{PROMOTED}/evaluation"


class Comparison(Document):
    """One metric of the new checkpoint against the promoted one."""

    metric: str
    label: str = Field(description="For people.")
    better: Literal["higher", "lower", ""] = Field(description="Which way is an improvement.")
    promoted: float | None
    candidate: float | None
    difference: float | None = Field(description="Candidate minus promoted.")
    low: float | None = Field(description="Interval of the difference.")
    high: float | None
    p: float | None = Field(default=None, description="McNemar's, where each question is simply right or wrong.")
    verdict: Literal["passes", "worse", "unknown"] = Field(description="unknown: the candidate has no such number.")


class Decision(Document):
    """What the gate decided about one checkpoint, and from what."""

    time: str = Field(description="UTC, ISO 8601.")
    promotes: bool
    reason: str
    candidate: ArtifactRef = Field(description="The checkpoint.")
    evaluation: ArtifactRef
    against: ArtifactRef | None = Field(default=None, description="The checkpoint promoted until then.")
    against_evaluation: ArtifactRef | None = None
    confidence: float
    questions: int = Field(default=0, description="Questions that both answered.")
    comparisons: list[Comparison] = Field(default_factory=list)

    @property
    def worse(self) -> list[Comparison]:
        """What speaks against the candidate."""
        return [entry for entry in self.comparisons if entry.verdict != "passes"]


class Decisions(Document):
    """What promotions/<run>.json says: all that was decided for a run, oldest first."""

    run: str
    decisions: list[Decision] = Field(default_factory=list)


def record(store: Store, run: str, decision: Decision) -> None:
    """Write a decision down, unless it is the last one again."""
    with store.files.locked():
        told = decisions(store, run)
        if not told or told[-1].model_copy(update={"time": decision.time}) != decision:
            document = Decisions(run=run, decisions=[*told, decision])
            store.files.write(_place(run), document.model_dump_json(indent=1).encode())


def publish(store: Store, run: str) -> None:
    """Let the run's pointers name what was promoted last, also where a process died before it did."""
    last = promoted(store, run)
    if last is not None:
        store.run(run).point(PROMOTED, last.candidate)
        store.run(run).point(EVALUATION, last.evaluation)


def promoted(store: Store, run: str) -> Decision | None:
    """The last decision that promoted; None before the first, or once its checkpoint is gone from the store."""
    last = next((told for told in reversed(decisions(store, run)) if told.promotes), None)
    return last if last and store.is_committed(last.candidate.stage, last.candidate.digest) else None


def decisions(store: Store, run: str) -> list[Decision]:
    """All that was decided for a run, oldest first.

    Raises:
        StoreError: the file is not what was written.
    """
    try:
        return Decisions.model_validate(json.loads(store.files.read(_place(run)))).decisions
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise StoreError(
            f"the run's decisions are not what was written: {str(error).splitlines()[0]}",
            where=f"{store.root}/{_place(run)}",
            remedy="Move the file away; the next evaluation then promotes without a comparison.",
        ) from error


def _place(run: str) -> str:
    return f"promotions/{run}.json"
