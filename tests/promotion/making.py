"""Checkpoints of one file, and evaluations with the answers that a test wants."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mbpo_core.config import PipelineConfig, Section
from mbpo_core.execution import checkpoint_policy, execute, plan
from mbpo_core.progress import NullProgress
from mbpo_core.stage import ArtifactRef, PolicyRef, StageContext, StageSpec
from mbpo_core.stages import EVALUATION, TRAINING
from mbpo_core.store import Store
from tests.evaluation.rows import prediction

_GIVEN: dict[str, Any] = {}


def config(*metrics: str, **more: Any) -> PipelineConfig:
    """Settings of run "r" that promote by these metrics."""
    promotion = {"metrics": list(metrics or ["accuracy"])}
    return PipelineConfig.model_validate(
        {"run": "r", "method": "mbpo", "promotion": promotion, "evaluation": {"bootstrap": 200}} | more
    )


def checkpoint(store: Store, name: str) -> PolicyRef:
    """A training artifact whose content is its name."""
    _GIVEN["text"] = name
    ref = _make(store, TRAINING, {}, seed=sum(name.encode()))
    return checkpoint_policy(ref, "trained")


def evaluate(store: Store, policy: PolicyRef, rows: Sequence[Mapping[str, Any]], *, seed: int = 0) -> ArtifactRef:
    """An evaluation in which the checkpoint gave these answers, and the base model the first of them."""
    base = PolicyRef(folder="base", digest="base")
    trained = [dict(row) | {"policy": "trained"} for row in rows]
    _GIVEN["rows"] = [trained[0] | {"policy": "base"}, *trained]
    return _make(store, EVALUATION, {"base": base, "trained": policy}, seed=seed)


def answers(right: int, wrong: int, *, first: int = 0, **columns: Any) -> list[dict[str, Any]]:
    """So many questions answered rightly, then so many wrongly, numbered from `first`."""
    verdicts = ["correct"] * right + ["wrong"] * wrong
    return [prediction(first + number, verdict, **columns) for number, verdict in enumerate(verdicts)]


def _make(store: Store, stage: StageSpec, policies: dict[str, PolicyRef], seed: int) -> ArtifactRef:
    record = None if stage is TRAINING else stage.record
    entry = f"{__name__}:write_{stage.name}"
    spec = dataclasses.replace(stage, entry=entry, record=record, inputs=(), uses_policy=False)
    settings: Section = spec.config()
    return execute(store, plan(store, spec, settings, {}, policies, seed=seed, force=True), NullProgress(), spec=spec)


def write_training(context: StageContext) -> None:
    context.output.add_text("model.txt", _GIVEN["text"])


def write_evaluation(context: StageContext) -> None:
    rows = _GIVEN["rows"]
    for part in context.output.parts(len(rows), 100):
        part.finish(rows[part.start : part.stop])
