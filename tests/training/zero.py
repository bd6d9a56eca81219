"""One step's gradients and three steps' weights by the engine, in any number of processes, and by plain torch.

As a program (`python -m tests.training.zero FOLDER CASE...` under torchrun) it measures cases in several processes and
leaves what the first of them found in the folder. The optimizer is SGD with momentum, whose buffer after the first
step is the gradient itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mbpo_core.config import PolicyConfig, TrainingConfig
from mbpo_core.models.adapters import adapter_names, add_adapters
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.training.data import GroupSet
from mbpo_core.training.engine import TrainingEngine, _import_deepspeed
from mbpo_core.training.job import JobRows, read_job
from mbpo_core.training.losses import micro_loss
from mbpo_core.training.micro import MicroBatch, collate
from mbpo_core.training.plan import Batch, batch_weights, micro_batches
from mbpo_core.training.reference import add_reference_logprobs
from mbpo_core.training.rows import ListTable
from mbpo_core.training.scorer import Scorer, settle_packing
from mbpo_core.training.world import World, join_world

STEPS, RATE, MOMENTUM = 3, 1e-3, 0.9
RANK = 4  # of adapters
DEVICE = os.environ.get("MBPO_ZERO_DEVICE", "cpu")

Content = Literal["hybrid", "mixed", "filtered"]


@dataclass(frozen=True)
class Case:
    """One cell of the matrix.

    Attributes:
        stage: of ZeRO.
        lora: adapters are trained, and not the weights.
        cut: groups a forward pass; 1 makes a backward pass of every group.
        content: hybrid: pairs and rollouts; mixed: pairs, every other one without a picture; filtered: one rollout
            group, so that a second process has none of its own.
        knobs: further settings of how it is done.
    """

    stage: int
    lora: bool = False
    cut: int = 8
    content: Content = "hybrid"
    knobs: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        parts = [f"zero{self.stage}", "lora" if self.lora else "full", f"cut{self.cut}", self.content]
        return "-".join([*parts, *(f"{name}={value}" for name, value in self.knobs)])

    @classmethod
    def of(cls, name: str) -> Case:
        stage, lora, cut, content, *knobs = name.split("-")
        read = {"True": True, "False": False}
        pairs = [knob.split("=") for knob in knobs]
        return cls(
            int(stage[-1]),
            lora == "lora",
            int(cut[3:]),
            content,
            tuple((k, read.get(v, v)) for k, v in pairs),  # type: ignore[arg-type]
        )


class Momentum(TrainingEngine):
    """The engine with another optimizer."""

    def _make_optimizer(self, trained: list[torch.nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
        return torch.optim.SGD(trained, lr=RATE, momentum=MOMENTUM)

    def _prime_moments(self) -> None:
        """The first step makes the buffer."""


@dataclass(frozen=True)
class Measured:
    """By parameter name: gradients of the first step, and weights after the last."""

    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]

    def save(self, path: Path) -> None:
        tensors = {f"g/{n}": t for n, t in self.gradients.items()} | {f"w/{n}": t for n, t in self.weights.items()}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Measured:
        found = load_file(path)
        parts = [{n[2:]: t for n, t in found.items() if n.startswith(kind)} for kind in ("g/", "w/")]
        return cls(*parts)


def by_engine(case: Case, folder: Path, world: World) -> Measured:
    """What a DeepSpeed engine makes of a case."""
    policy, config = _policy(folder, case)
    micros = _micros(policy, config, folder, case, [world.rank], world.size)
    engine = Momentum(policy, config, world)
    try:
        for step in range(STEPS):
            for micro in micros:
                loss, _ = micro_loss(micro, engine.score(micro.looks, micro.temperature), config)
                engine.backward(loss)
            engine.step(RATE)
            if not step:
                gradients = {name: value.clone() for name, value in engine.moments("momentum_buffer")}  # type: ignore[arg-type]
        return Measured(gradients, {name: value.clone() for name, value in engine.weights()})
    finally:
        engine.close()


def by_torch(case: Case, folder: Path, processes: int) -> Measured:
    """The same in plain torch: all processes' losses summed in one, and one backward pass."""
    policy, config = _policy(folder, case)
    names = adapter_names(policy.model) or policy.unfreeze(config.freeze)
    trained = {name: policy.model.get_parameter(name).requires_grad_(True) for name in names}
    micros = _micros(policy, config, folder, case, range(processes), processes)
    optimizer = torch.optim.SGD(trained.values(), lr=RATE, momentum=MOMENTUM)
    with pytest.MonkeyPatch.context() as patch:
        if case.stage == 3:  # its linear layer multiplies in another order: 2e-6 away from torch's, in float32
            _import_deepspeed(World(0, 1, policy.device))
            patch.setattr(
                "torch.nn.functional.linear", import_module("deepspeed.runtime.zero.linear").zero3_linear_wrap
            )
        for step in range(STEPS):
            optimizer.zero_grad()
            looks = [Scorer(policy)(micro.looks, micro.temperature) for micro in micros]
            torch.stack([micro_loss(*one, config)[0] for one in zip(micros, looks, strict=True)]).sum().backward()
            if not step:
                gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in trained.items()}
            optimizer.step()
    return Measured(gradients, {name: parameter.detach().clone() for name, parameter in trained.items()})


def _policy(folder: Path, case: Case) -> tuple[Policy, TrainingConfig]:
    job, _ = read_job(folder)
    settings = {"zero_stage": case.stage, "micro_groups": case.cut, **dict(case.knobs)}
    # The vocabulary in chunks: their backward pass reads the projection a second time.
    policy = load_policy(Path(job.policy), PolicyConfig(device=DEVICE, logits_mib=0.01))
    if case.lora:
        add_adapters(policy, rank=RANK, alpha=2.0 * RANK, targets=[], seed=1)
    return policy, TrainingConfig.model_validate(job.config.model_dump() | settings)


def _micros(
    policy: Policy, config: TrainingConfig, folder: Path, case: Case, ranks: Iterable[int], size: int
) -> list[MicroBatch]:
    """Forward passes of one step, of some of several processes."""
    job, rows = read_job(folder)
    groups = GroupSet(policy, config)
    batch = CONTENTS[case.content](groups, rows)
    used = [*batch.offline, *batch.online]
    add_reference_logprobs(
        groups, used, Scorer(load_policy(Path(job.policy), PolicyConfig(device=DEVICE))), World(0, 1, policy.device)
    )
    settle_packing(policy, groups, [batch])
    weights = batch_weights(groups, batch, config)
    return [
        collate(part, groups, weights, config).to(policy.device)
        for rank in ranks
        for source in (batch.offline, batch.online)
        for part in micro_batches(source, config.micro_groups, rank, size)
    ]


def _hybrid(groups: GroupSet, rows: JobRows) -> Batch:
    pairs, online = groups.add_pairs(rows.pairs), groups.add_rollouts(rows.rollouts)
    return Batch(tuple(pairs)[:3], tuple(index for index in online if groups.trains(index)), ())


def _mixed(groups: GroupSet, rows: JobRows) -> Batch:
    table = []
    for place, row in enumerate(
        rows.pairs.slice(0, 4, columns=("sample_id", "images", "prompt", "chosen", "rejected"))
    ):
        if place % 2:  # the second process's, of two
            text = [part for part in row["prompt"][0]["content"] if part["type"] == "text"]
            row = {**row, "images": [], "prompt": [{"role": "user", "content": text}]}
        table.append(row)
    return Batch(tuple(groups.add_pairs(ListTable(table))), (), ())


def _filtered(groups: GroupSet, rows: JobRows) -> Batch:
    online = [index for index in groups.add_rollouts(rows.rollouts) if groups.trains(index)]
    return Batch((), tuple(online[:1]), ())


CONTENTS: dict[str, Callable[[GroupSet, JobRows], Batch]] = {"hybrid": _hybrid, "mixed": _mixed, "filtered": _filtered}


def main(folder: Path, cases: list[str]) -> None:
    if DEVICE == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    world = join_world(torch.device(DEVICE))
    for name in cases:
        measured = by_engine(Case.of(name), folder, world)
        if world.rank == 0:
            measured.save(folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
