"""Following one row through the artifacts of a run, by its sample_id; pictures are never read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mbpo_core.errors import MbpoError
from mbpo_core.records import message_text
from mbpo_core.store.core import Store
from mbpo_core.store.lineage import published
from mbpo_core.store.manifest import DROPPED
from mbpo_core.store.reader import ArtifactReader
from mbpo_core.tables import Row

_ID = "sample_id"

# What is worth knowing of a row, by record.
_SHOWN: Mapping[str, tuple[str, ...]] = {
    "Sample": ("split", "kind", "question", "answer", "source"),
    "Negative": ("kind", "chosen", "rejected", "clean_answer", "flipped"),
    "PreferencePair": ("negative_kind", "chosen", "rejected", "gain_chosen", "gain_rejected"),
    "RolloutGroup": ("answer", "zero_variance", "completions"),
    "Prediction": ("policy", "probe", "answer", "text", "verdict", "blind_text"),
    "Dropped": ("reason", "detail"),
}


class Sighting(BaseModel):
    """A row of the sample in one table of one artifact."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(description="The run's pointer.")
    digest: str
    table: str
    row: dict[str, Any] = Field(description="The columns worth knowing; conversations as plain text.")


class Followed(BaseModel):
    """Where a row of a run was met."""

    model_config = ConfigDict(frozen=True)

    run: str
    sample_id: str
    sightings: list[Sighting]
    looked: dict[str, int] = Field(description="Rows that were looked through, by the run's pointer.")
    unread: dict[str, str] = Field(description="Pointers whose artifact cannot be read, and why.")

    @property
    def absent(self) -> list[str]:
        """Pointers whose artifact does not have the row."""
        return [key for key in self.looked if key not in {sighting.key for sighting in self.sightings}]


def follow_row(store: Store, run: str, sample_id: str) -> Followed:
    """Every row of a sample in what the run's pointers name now, dropped rows included."""
    sightings: list[Sighting] = []
    looked: dict[str, int] = {}
    unread: dict[str, str] = {}
    for key, ref in store.run(run).pointers().items():
        if published(key):
            continue
        try:
            reader = store.reader(ref)
            for table, columns in _tables(reader).items():
                looked[key] = looked.get(key, 0) + reader.count(table)
                sightings += [
                    Sighting(key=key, digest=ref.digest, table=table, row=_told(row))
                    for row in _rows_of(reader, table, sample_id, columns)
                ]
        except MbpoError as error:
            unread[key] = str(error)
    return Followed(run=run, sample_id=sample_id, sightings=sightings, looked=looked, unread=unread)


def _tables(reader: ArtifactReader) -> dict[str, list[str]]:
    """The artifact's tables that hold rows of samples, with the columns worth knowing."""
    tables = {
        name: [column for column in _SHOWN.get(info.record, ()) if column in info.columns]
        for name, info in reader.manifest.tables.items()
        if _ID in info.columns
    }
    return tables | ({DROPPED: list(_SHOWN["Dropped"])} if reader.manifest.dropped else {})


def _rows_of(reader: ArtifactReader, table: str, sample_id: str, columns: list[str]) -> list[Row]:
    numbers = [number for number, row in enumerate(reader.rows(table, [_ID])) if row[_ID] == sample_id]
    return [row for number in numbers for row in reader.slice(number, number + 1, table, columns)]


def _told(row: Row) -> dict[str, Any]:
    """Conversations as text, and of each completion what was said and what it earned."""
    told = dict(row)
    for side in ("chosen", "rejected"):
        if isinstance(told.get(side), list):
            told[side] = message_text(told[side])
    if "completions" in told:
        told["completions"] = [
            {name: completion[name] for name in ("text", "verdict", "reward")} for completion in told["completions"]
        ]
    return told
