"""Resumable state: trained weights, AdamW's moments, the position in the plan, the metrics so far.

Plain safetensors by parameter name and one JSON file: nothing is pickled, and another number of processes or another
ZeRO stage can read it. There is no random state to keep, because the plan is drawn up from the seed and training draws
no random number. A checkpoint is written beside its place and renamed once every process is done: what exists is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mbpo_core.errors import DataError
from mbpo_core.records import TrainingStep
from mbpo_core.training.engine import MOMENTS, TrainingEngine

_STATE = "state.json"
_WEIGHTS = "weights"
_SHARD_BYTES = 1 << 30


class TrainState(BaseModel):
    """Where training stands."""

    model_config = ConfigDict(extra="forbid")

    fingerprint: str = Field(default="", description="Identity of the work; see Job.fingerprint.")
    batches_done: int = Field(default=0, description="Entries of the plan that are behind us.")
    optimizer_steps: int = Field(default=0, description="Updates that the weights have seen, all rounds.")
    next_step: int = Field(default=1, description="Number of the next row of metrics, all rounds.")
    fired_step: int | None = Field(default=None, description="Step at which the stop rule fired, obeyed or not.")
    rollout_gap: float | None = Field(
        default=None, description="Mean |policy - recorded| log-prob of sampled tokens before the first update, nats."
    )
    rows: list[TrainingStep] = Field(default_factory=list, description="Metrics of this round.")


def save_checkpoint(checkpoints: Path, engine: TrainingEngine, state: TrainState) -> Path:
    """Write a checkpoint and remove older ones; every process calls it.

    Args:
        checkpoints: folder of this work's checkpoints.
        engine: whose weights and moments are kept.
        state: where training stands.

    Returns:
        The checkpoint's folder.
    """
    place = _place(checkpoints, state)
    partial = place.with_suffix(".partial")
    first = engine.world.rank == 0
    if first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    _write(partial, _WEIGHTS, engine.weights(), first)
    for key in MOMENTS:
        _write(partial, key, engine.moments(key), first)
    engine.world.barrier()
    if first:
        write_state(partial, state)
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
        for other in checkpoints.iterdir():
            if other != place:
                shutil.rmtree(other, ignore_errors=True)
    engine.world.barrier()
    return place


def latest_checkpoint(checkpoints: Path, fingerprint: str) -> Path | None:
    """The newest whole checkpoint of the same work, if any."""
    places = sorted(checkpoints.glob("batch-????????"), reverse=True)
    return next((place for place in places if read_state(place).fingerprint == fingerprint), None)


def read_state(place: Path) -> TrainState:
    """Where training stood when this checkpoint was written."""
    return TrainState.model_validate_json((place / _STATE).read_text(encoding="utf-8"))


def write_state(place: Path, state: TrainState) -> None:
    """Write the JSON part of a checkpoint."""
    (place / _STATE).write_text(state.model_dump_json(), encoding="utf-8")


def adopt(checkpoints: Path, published: Path, rows: Sequence[TrainingStep], inner_steps: int) -> None:
    """Put the state that a finished round published where a killed one would have left it.

    Metrics beyond the published weights, which the stop rule took back, are made again.

    Args:
        checkpoints: folder of the work's checkpoints.
        published: the finished round's state.
        rows: its metrics.
        inner_steps: rows a batch.
    """
    state = read_state(published)
    kept = list(rows[: state.batches_done * inner_steps])
    beyond = len(rows) - len(kept)
    place = _place(checkpoints, state)
    partial = place.with_suffix(".partial")
    for folder in (partial, place):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(published, partial)
    fired = None if beyond else state.fired_step
    write_state(
        partial, state.model_copy(update={"rows": kept, "next_step": state.next_step - beyond, "fired_step": fired})
    )
    partial.rename(place)


def _place(checkpoints: Path, state: TrainState) -> Path:
    return checkpoints / f"batch-{state.batches_done:08d}"


def restore(place: Path, engine: TrainingEngine) -> TrainState:
    """Put weights, moments and AdamW's count back as they were; every process calls it.

    Raises:
        DataError: the checkpoint holds other parameters than the engine trains.
    """
    _check_names(place, engine)
    for name, value in _read(place, _WEIGHTS):
        engine.set_weight(name, value)
    return _restore_optimizer(place, engine)


def carry_over(place: Path, engine: TrainingEngine) -> TrainState:
    """Go on with the optimizer state of the round before, on the checkpoint that it published.

    Raises:
        DataError: the state belongs to other weights than the policy that was loaded.
    """
    _check_names(place, engine)
    for name, value in _read(place, _WEIGHTS):
        if not torch.equal(engine.weight(name), engine.rounded(value)):
            raise DataError(
                f"the optimizer state was saved with another {name} than the policy has",
                where=str(place),
                expected="the state and the checkpoint of one and the same round",
                remedy="Run the training of the round before again.",
            )
        engine.set_weight(name, value)
    return _restore_optimizer(place, engine)


def _restore_optimizer(place: Path, engine: TrainingEngine) -> TrainState:
    for key in MOMENTS:
        for name, value in _read(place, key):
            engine.set_moment(name, key, value)
    state = read_state(place)
    engine.set_optimizer_steps(state.optimizer_steps)
    return state


def _check_names(place: Path, engine: TrainingEngine) -> None:
    names = {name for name, _ in _read(place, _WEIGHTS, names_only=True)}
    if other := sorted(names.symmetric_difference(engine.trainable)):
        raise DataError(
            f"the state and the policy differ in {len(other)} trained parameters, first {other[0]}",
            where=str(place),
            remedy="Keep training.freeze and policy.model the same over all rounds.",
        )


def _write(folder: Path, prefix: str, tensors: Iterator[tuple[str, Tensor]], first: bool) -> None:
    shard: dict[str, Tensor] = {}
    count = size = 0
    for name, tensor in tensors:  # every process walks along: the tensors are gathered
        if not first:
            continue
        shard[name] = tensor.contiguous()
        size += tensor.numel() * tensor.element_size()
        if size >= _SHARD_BYTES:
            save_file(shard, folder / f"{prefix}-{count:05d}.safetensors")
            shard, count, size = {}, count + 1, 0
    if shard:
        save_file(shard, folder / f"{prefix}-{count:05d}.safetensors")


def _read(folder: Path, prefix: str, *, names_only: bool = False) -> Iterator[tuple[str, Tensor]]:
    for path in sorted(folder.glob(f"{prefix}-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict: it cannot be iterated)
                yield name, torch.empty(0) if names_only else file.get_tensor(name)
