"""What a training process is told, in memory or through a folder of plain files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from mbpo_core.config import PolicyConfig, TrainingConfig
from mbpo_core.stage import Row

PAIR_COLUMNS = ("sample_id", "images", "prompt", "chosen", "rejected")
ROLLOUT_COLUMNS = ("sample_id", "images", "prompt", "temperature", "policy_digest", "completions")

_JOB, _PAIRS, _ROLLOUTS = "job.json", "pairs.parquet", "rollouts.parquet"


class Job(BaseModel):
    """One round of training: settings and the folders it reads and writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: TrainingConfig
    policy_config: PolicyConfig
    policy: str  # model folder at the start of this round
    policy_digest: str
    reference: str  # model folder of the frozen base
    reference_digest: str
    previous: str = ""  # optimizer state of the round before; empty in the first
    seed: int
    round_index: int = 0
    rounds: int = 1
    work: str  # folder that outlives a killed attempt

    @property
    def checkpoints(self) -> Path:
        return Path(self.work) / "checkpoints"

    @property
    def result(self) -> Path:
        return Path(self.work) / "result"

    def fingerprint(self, rows: JobRows) -> str:
        """Identity of the work; a resumable checkpoint of other work is not resumed."""
        identity = {
            "config": self.config.identity(),
            "policy": [self.policy_digest, self.reference_digest, self.policy_config.identity()],
            "seed": [self.seed, self.round_index, self.rounds],
            "rows": [[row["sample_id"] for row in table] for table in (rows.pairs, rows.rollouts)],
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class JobRows:
    """The rows of the round's inputs, narrowed to the columns that training reads."""

    pairs: list[Row]
    rollouts: list[Row]


def write_job(folder: Path, job: Job, rows: JobRows) -> None:
    """Hand a job over to other processes; nothing is pickled."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in ((_PAIRS, rows.pairs), (_ROLLOUTS, rows.rollouts)):
        pq.write_table(pa.Table.from_pylist(table), folder / name)
    (folder / _JOB).write_text(job.model_dump_json(), encoding="utf-8")


def read_job(folder: Path) -> tuple[Job, JobRows]:
    """What `write_job` wrote."""
    job = Job.model_validate_json((folder / _JOB).read_text(encoding="utf-8"))
    pairs, rollouts = (pq.read_table(folder / name).to_pylist() for name in (_PAIRS, _ROLLOUTS))
    return job, JobRows(pairs, rollouts)


def narrow(rows: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """Rows with the named columns only."""
    return [{column: row[column] for column in columns} for row in rows]
