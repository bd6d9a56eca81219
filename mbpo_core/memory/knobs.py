"""Which setting to change where a stage does not fit: the estimate is made again with each knob turned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from mbpo_core.config import PipelineConfig
from mbpo_core.memory.stages import Estimator
from mbpo_core.memory.terms import StageEstimate

_BATCHED = ("negatives", "pairs", "rollouts", "evaluation")


@dataclass(frozen=True)
class Turn:
    """One setting changed.

    Attributes:
        stage: whose need it lowers.
        change: as --set takes it.
        size: bytes that the stage needs then.
        saving: bytes less than before.
        fits: whether that is enough.
        changes_result: whether other weights or rows come out (then artifacts are made anew).
    """

    stage: str
    change: str
    size: float
    saving: float
    fits: bool
    changes_result: bool


def turns(estimator: Estimator, stage: str, device: float) -> list[Turn]:
    """Every knob that lowers a stage's need, what helps most first; those that are enough come before the others.

    Args:
        estimator: of the run as it is.
        stage: that does not fit.
        device: bytes of one device.
    """
    before = _of(estimator, stage).size
    found = []
    for change, config, changes_result in _changed(estimator.config, stage):
        size = _of(replace(estimator, config=config), stage).size
        if size < before:
            found.append(Turn(stage, change, size, before - size, size <= device, changes_result))
    return sorted(found, key=lambda turn: (not turn.fits, turn.changes_result and turn.fits, -turn.saving))


def _changed(config: PipelineConfig, stage: str) -> Iterator[tuple[str, PipelineConfig, bool]]:
    """(change, the config with it, whether other results come out), each knob turned one step from where it is."""
    if stage in _BATCHED:
        yield from _halved(config, stage, "batch_size")
    yield from _halved(config, "policy", "logits_mib")
    if config.policy.dtype == "float32":
        yield "policy.dtype=bfloat16", _with(config, "policy", dtype="bfloat16"), True
    if config.policy.attention == "eager":
        yield "policy.attention=sdpa", _with(config, "policy", attention="sdpa"), True
    if stage == "rollouts":
        for name, changed, _ in _halved(config, "rollouts", "group_size", least=2):
            yield name, changed, True
    if stage != "training":
        return
    yield from _halved(config, "training", "micro_groups")
    training = config.training
    yield "launch.processes=" + str(more := 2 * config.launch.processes), _with(config, "launch", processes=more), False
    if not training.gradient_checkpointing:
        yield "training.gradient_checkpointing=true", _with(config, "training", gradient_checkpointing=True), False
    for stage_of_zero in range(training.zero_stage + 1, 4):
        yield f"training.zero_stage={stage_of_zero}", _with(config, "training", zero_stage=stage_of_zero), True
    if training.offload == "none" and training.zero_stage:
        yield "training.offload=optimizer", _with(config, "training", offload="optimizer"), False
    if training.offload != "all" and training.zero_stage == 3:
        yield "training.offload=all", _with(config, "training", offload="all"), False
    if not training.lora_rank:
        yield "training.lora_rank=16", _with(config, "training", lora_rank=16), True


def _halved(
    config: PipelineConfig, section: str, field: str, least: int = 1
) -> Iterator[tuple[str, PipelineConfig, bool]]:
    now = getattr(getattr(config, section), field)
    half = now / 2 if isinstance(now, float) else now // 2
    if half >= least:
        yield f"{section}.{field}={half:g}", _with(config, section, **{field: half}), False


def _with(config: PipelineConfig, section: str, **changes: Any) -> PipelineConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=changes)})


def _of(estimator: Estimator, stage: str) -> StageEstimate:
    made: StageEstimate = getattr(estimator, stage)()
    return made
