"""What a training process is told, in memory or through a folder of plain files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from mbpo_core.config import PolicyConfig, TrainingConfig
from mbpo_core.records import PreferencePair, RolloutGroup
from mbpo_core.tables import arrow_schema
from mbpo_core.training.monitoring import Monitors
from mbpo_core.training.rows import ListTable, ParquetTable, Table, write_table

_JOB, _PAIRS, _ROLLOUTS, _ORDER = "job.json", "pairs.parquet", "rollouts.parquet", "order.json"


class Job(BaseModel):
    """One round of training: settings and the folders it reads and writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: TrainingConfig
    policy_config: PolicyConfig
    policy: str  # model folder at the start of this round
    policy_digest: str
    reference: str  # model folder of the frozen base
    reference_digest: str
    second_reference: str = ""  # model folder, where the objective has a second reference
    second_reference_digest: str = ""
    previous: str = ""  # optimizer state of the round before; empty in the first
    seed: int
    round_index: int = 0
    rounds: int = 1
    work: str  # folder that outlives a killed attempt
    kept: str = ""  # folder of log-probs under references, shared with other trainings; empty keeps none
    monitors: Monitors = Monitors()

    @property
    def checkpoints(self) -> Path:
        return Path(self.work) / "checkpoints"

    @property
    def result(self) -> Path:
        return Path(self.work) / "result"

    def fingerprint(self, rows: JobRows) -> str:
        """Identity of the work; a resumable checkpoint of other work is not resumed.

        How far along the published weights lie is no part of it: the steps are the same.
        """
        tables = (rows.pairs, rows.rollouts)
        ids = [[row["sample_id"] for row in table.rows(columns=("sample_id",))] for table in tables]
        identity = {
            "config": self.config.model_copy(update={"interpolation": 1.0}).identity(),
            "policy": [
                self.policy_digest,
                self.reference_digest,
                self.second_reference_digest,
                self.policy_config.identity(),
            ],
            "seed": [self.seed, self.round_index, self.rounds],
            "rows": [[ids[0][place] for place in rows.order], ids[1]],
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class JobRows:
    """The rows of the round's inputs.

    Attributes:
        pairs, rollouts: where they are read; nothing is kept of them here.
        dealt: the order in which pairs were dealt, as row numbers of `pairs`; None for the table's own.
    """

    pairs: Table = field(default_factory=ListTable)
    rollouts: Table = field(default_factory=ListTable)
    dealt: Sequence[int] | None = None

    @property
    def order(self) -> Sequence[int]:
        """Row numbers of `pairs` as dealt."""
        return range(self.pairs.count()) if self.dealt is None else self.dealt


def write_job(folder: Path, job: Job, rows: JobRows) -> None:
    """Hand a job over to other processes; nothing is pickled, and rows pass through memory a few at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / _PAIRS, rows.pairs, _pairs_schema(job.config))
    write_table(folder / _ROLLOUTS, rows.rollouts, _rollouts_schema())
    (folder / _ORDER).write_text(json.dumps(list(rows.order)), encoding="utf-8")
    (folder / _JOB).write_text(job.model_dump_json(), encoding="utf-8")


def read_job(folder: Path) -> tuple[Job, JobRows]:
    """What `write_job` wrote; rows are read when they are asked for."""
    job = Job.model_validate_json((folder / _JOB).read_text(encoding="utf-8"))
    order = json.loads((folder / _ORDER).read_text(encoding="utf-8"))
    return job, JobRows(ParquetTable(folder / _PAIRS), ParquetTable(folder / _ROLLOUTS), order)


def _pairs_schema(config: TrainingConfig) -> Any:
    names = ["sample_id", "images", "prompt", "chosen", "rejected"]
    names += ["rejected_images"] if config.wants_rejected_images else []
    return pa.schema([arrow_schema(PreferencePair).field(name) for name in names])


def _rollouts_schema() -> Any:
    """Of the completions only what training reads."""
    schema = arrow_schema(RolloutGroup)
    completion = schema.field("completions").type.value_type
    read = pa.struct([completion.field(name) for name in ("token_ids", "logprobs", "reward")])
    fields = [schema.field(name) for name in ("sample_id", "images", "prompt", "temperature")]
    return pa.schema([*fields, pa.field("completions", pa.list_(read))])
