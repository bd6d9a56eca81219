"""Rows to train on, and one run of the defaults that several tests look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from mbpo_core.models.policy import Policy
from mbpo_core.records import Sample
from mbpo_core.training.checkpoint import TrainState
from mbpo_core.training.job import Job, JobRows
from tests.training.rows import job_rows


@dataclass
class Recorder:
    """A Progress that keeps what it is told; `interrupt_at` raises as a killed process would end."""

    interrupt_at: int = 0
    started: list[tuple[str, int]] = field(default_factory=list)
    figures: list[dict[str, float]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def start(self, description: str, total: int, done: int = 0) -> None:
        self.started.append((description, total))

    def advance(self, count: int = 1, **figures: float) -> None:
        if figures:
            self.figures.append(figures)
        if self.interrupt_at and len(self.figures) == self.interrupt_at:
            raise KeyboardInterrupt

    def log(self, message: str) -> None:
        self.messages.append(message)


@dataclass
class Trained:
    """What a round of training left behind."""

    job: Job
    state: TrainState
    summary: dict[str, Any]
    progress: Recorder
    weights: dict[str, Tensor]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Rows of metrics without what a clock measured."""
        return [row.model_dump(exclude={"seconds", "cpu_seconds"}) for row in self.state.rows]


def trained(job: Job, rows: JobRows, progress: Recorder | None = None) -> Trained:
    """Train one round in this process."""
    from mbpo_core.training.loop import train

    progress = progress or Recorder()
    train(job, rows, progress)
    return collect(job, progress)


def collect(job: Job, progress: Recorder) -> Trained:
    """Read what a round left in its folder."""
    from mbpo_core.training.loop import read_result

    state, summary = read_result(job)
    return Trained(job, state, summary, progress, weights(job.result / "checkpoint"))


def weights(folder: Path) -> dict[str, Tensor]:
    """Weights of a model folder, by name."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="session")
def rows(demo_policy: Policy, offline_samples: list[Sample]) -> JobRows:
    """Four pairs, and four rollout groups of which one has equal rewards."""
    return job_rows(demo_policy, offline_samples)


@pytest.fixture(scope="session")
def plain(rows: JobRows, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One round of hybrid training with the tests' settings: two steps of two pairs and two groups."""
    from tests.training.rows import job

    return trained(job(tmp_path_factory.mktemp("plain")), rows)


@pytest.fixture(scope="session")
def image_rows(demo_policy: Policy, offline_samples: list[Sample]) -> JobRows:
    """`rows` whose pairs have another sample's picture as their rejected image."""
    return job_rows(demo_policy, offline_samples, rejected_images=True)
