"""Training as a stage in a real store: two rounds, baselines, a killed attempt, refusals."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
import torch

from mbpo_core.config import TrainingConfig
from mbpo_core.errors import DataError
from mbpo_core.execution import checkpoint_policy, execute, plan
from mbpo_core.models.resolve import resolve_model
from mbpo_core.progress import NullProgress
from mbpo_core.records import TrainingStep
from mbpo_core.stage import ArtifactRef, PolicyRef, Progress
from mbpo_core.stages import TRAINING
from mbpo_core.store import Store
from tests.training import feeding
from tests.training.conftest import Recorder, weights
from tests.training.rows import DIGEST, POLICY

BASE = PolicyRef(folder=str(resolve_model(POLICY)), digest=DIGEST)
SETTINGS: dict[str, Any] = {"learning_rate": 1e-4, "pairs_per_step": 1, "groups_per_step": 2, "checkpoint_every": 1}


def made(store: Store, spec: Any, config: Any, progress: Progress | None = None, **options: Any) -> ArtifactRef:
    """Plan and execute one stage."""
    inputs = options.pop("inputs", {})
    return execute(store, plan(store, spec, config, inputs, **options), progress or NullProgress(), spec=spec)


class Pipeline:
    """Pairs and rollouts in one store, and training on them."""

    def __init__(self, root: str) -> None:
        self.store = Store(root)
        self.pairs = made(self.store, feeding.PAIRS, feeding.CountConfig())
        self.rollouts = made(self.store, feeding.ROLLOUTS, feeding.CountConfig())

    def train(
        self, before: ArtifactRef | None = None, progress: Progress | None = None, rounds: int = 2, **settings: Any
    ) -> ArtifactRef:
        """One round, from the base or from the artifact of the round before."""
        config = TrainingConfig(**{**SETTINGS, **settings})
        inputs = {"pairs": self.pairs, "previous": before, "rollouts": self.rollouts}
        if not config.use_online:
            del inputs["rollouts"]
        policy = checkpoint_policy(before, "trained") if before else BASE
        return made(
            self.store,
            TRAINING,
            config,
            progress,
            inputs={name: ref for name, ref in inputs.items() if ref},
            policies={"policy": policy, "reference": BASE},
            policy_config=POLICY,
            round_index=1 if before else 0,
            rounds=rounds,
        )

    def steps(self, ref: ArtifactRef) -> list[TrainingStep]:
        """Metrics of a training artifact."""
        return [TrainingStep.model_validate(row) for row in self.store.reader(ref).rows()]


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(f"memory://{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def first(pipeline: Pipeline) -> ArtifactRef:
    return pipeline.train()


def test_two_rounds_share_pairs_optimizer_and_reference(pipeline: Pipeline, first: ArtifactRef) -> None:
    second = pipeline.train(before=first)
    rows = [*pipeline.steps(first), *pipeline.steps(second)]
    assert [(row.round_index, row.step) for row in rows] == [(0, 1), (0, 2), (1, 3), (1, 4)]
    assert sum(row.groups_offline for row in rows) == 4  # each pair once over the rounds
    assert rows[2].kl > 1e-6  # the reference is the base, which the second round no longer is
    summary = pipeline.store.reader(second).json("summary.json")
    assert summary["optimizer_steps"] == 4
    folders = [pipeline.store.reader(ref).folder("checkpoint") for ref in (first, second)]
    one, other = map(weights, folders)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_content_does_not_tell_how_often_it_was_killed(pipeline: Pipeline, first: ArtifactRef, tmp_path: Path) -> None:
    other = Pipeline(str(tmp_path / "store"))
    with pytest.raises(KeyboardInterrupt):
        other.train(progress=Recorder(interrupt_at=2))
    progress = Recorder()
    again = other.train(progress=progress)
    assert len(progress.figures) == 1
    assert again.digest == first.digest
    assert again.content == first.content


@pytest.mark.parametrize("objective", ["dpo", "sft"])
def test_baselines_need_no_rollouts(pipeline: Pipeline, objective: str) -> None:
    rows = pipeline.steps(pipeline.train(rounds=1, objective=objective, use_online=False, pairs_per_step=4))
    assert len(rows) == 1
    assert rows[0].groups_offline == 4
    assert rows[0].reward is None
    assert rows[0].online_loss is None


def test_rollouts_of_another_policy_are_named(pipeline: Pipeline, first: ArtifactRef) -> None:
    progress = Recorder()
    pipeline.train(before=first, progress=progress, learning_rate=2e-4)
    assert any("sampled by another policy" in message for message in progress.messages)


def test_a_round_without_any_group_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(DataError, match=r"neither pairs nor rollouts .*round 0 of 100"):
        pipeline.train(rounds=100, use_online=False)
