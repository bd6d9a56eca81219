"""Training as a stage in a real store: two rounds, baselines, a killed attempt, refusals."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch

from mbpo_core.config import TrainingConfig
from mbpo_core.errors import DataError
from mbpo_core.execution import StagePlan, checkpoint_policy, execute, plan
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


def made(store: Store, spec: Any, config: Any) -> ArtifactRef:
    """Plan and execute one stage."""
    return execute(store, plan(store, spec, config, {}), NullProgress(), spec=spec)


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
        return execute(self.store, self.plan(before, rounds, **settings), progress or NullProgress())

    def plan(self, before: ArtifactRef | None = None, rounds: int = 2, **settings: Any) -> StagePlan:
        """Plan it."""
        config = TrainingConfig(**{**SETTINGS, **settings})
        inputs = {"pairs": self.pairs, "previous": before, "rollouts": self.rollouts}
        if not config.use_online:
            del inputs["rollouts"]
        policy = checkpoint_policy(before, "trained") if before else BASE
        return plan(
            self.store,
            TRAINING,
            config,
            {name: ref for name, ref in inputs.items() if ref},
            {"policy": policy, "reference": BASE},
            POLICY,
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


@pytest.mark.parametrize(
    "settings",
    [{"inner_steps": 2, "checkpoint_every": 3}, {"stop_drop": 1e-9, "stop_window": 1, "learning_rate": 1e-2}],
    ids=["two updates a batch", "stopped"],
)
def test_weights_part_of_the_way_go_on_from_those_at_its_end(settings: dict[str, Any], tmp_path: Path) -> None:
    alone, beside = Pipeline(str(tmp_path / "alone")), Pipeline(str(tmp_path / "beside"))
    anew = alone.train(rounds=1, interpolation=0.5, **settings)
    whole = beside.train(rounds=1, **settings)
    progress = Recorder()
    gone_on = beside.train(rounds=1, interpolation=0.5, progress=progress, **settings)
    assert gone_on.digest == anew.digest != whole.digest
    assert gone_on.content == anew.content != whole.content
    assert any("goes on from " + whole.digest[:12] in message for message in progress.messages)
    made = beside.steps(whole)
    assert made[-1].stopped == ("stop_drop" in settings)
    assert len(progress.figures) == made[-1].stopped, "only the step that was taken back is made again"
    took, before = (beside.store.reader(ref).manifest for ref in (gone_on, whole))
    assert took.seconds > before.seconds
    assert took.cpu_seconds > before.cpu_seconds


def test_a_second_round_part_of_the_way_goes_on_too(pipeline: Pipeline, first: ArtifactRef) -> None:
    pipeline.train(before=first)
    progress = Recorder()
    again = pipeline.train(interpolation=0.5, progress=progress)
    assert again.content == first.content, "only the last round is published part of the way"
    last = pipeline.train(before=again, interpolation=0.5, progress=progress)
    assert progress.figures == []
    assert [row.step for row in pipeline.steps(last)] == [3, 4]


def test_what_was_removed_since_is_trained_anew(tmp_path: Path) -> None:
    own = Pipeline(str(tmp_path / "store"))
    whole = own.train(rounds=1)
    planned = own.plan(rounds=1, interpolation=0.5)
    assert (planned.status, planned.goes_on_from) == ("resumes", whole)
    shutil.rmtree(whole.uri)
    progress = Recorder()
    execute(own.store, planned, progress)
    assert len(progress.figures) == 4
    assert own.plan(rounds=1, interpolation=0.25).status == "runs", "what lies part of the way is no start"


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
