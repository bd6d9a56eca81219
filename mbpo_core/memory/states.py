"""Weights, gradients, optimizer and DeepSpeed's buffers on one process's device.

ZeRO (arXiv:1910.02054, section 3) with N processes, A parameters of which T are trained, w bytes a number of the
model's dtype. In bfloat16: 2 A weights, 2 T gradients, 12 T for a float32 copy and AdamW's two moments; stage 1
divides the last by N, stage 2 gradients too, stage 3 weights too. In float32, stage 0: 4 A + 4 T + 8 T. Other than in
the paper:

- ZeRO keeps a float32 copy of what it trains in float32 too, 4 T / N (DeepSpeed 0.19, stages 1 to 3).
- Under stage 2 a second partition of gradients is alive while one is added to what was added up before (unmanaged
  accumulation, `training.engine`).
- With adapters (training.lora_rank) the weights stay, and T counts the adapters alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from mbpo_core.config import TrainingConfig
from mbpo_core.memory.architecture import Architecture
from mbpo_core.memory.terms import Term, amount
from mbpo_core.models.families import FROZEN_PARTS

_FLOAT = 4
_MOMENTS = 8
BUCKET = 500_000_000
"""Elements that gradients are reduced in, as `training.engine` sets it; a smaller model asks for less."""
_LIVE, _AHEAD = 1_000_000_000, 50_000_000
"""Elements of gathered weights that stage 3 keeps at most, and those it gathers ahead; a smaller model has less."""
_SUB_GROUP = 1_000_000_000
"""Elements that stage 3 updates at a time (DeepSpeed's sub_group_size)."""


@dataclass(frozen=True)
class States:
    """What training holds whatever goes through the model.

    Attributes:
        parameters, trained: A and T.
        largest: elements of the largest tensor, which is gathered whole whatever else is.
        processes: N.
        width: w.
        stage: of ZeRO.
        offload: of `training.offload`.
    """

    parameters: int
    trained: int
    largest: int
    processes: int
    width: int
    stage: int
    offload: str = "none"

    @property
    def _share(self) -> float:
        return self.trained / self.processes

    @property
    def _off(self) -> bool:
        return self.offload != "none" and self.stage > 0

    @property
    def _weights_off(self) -> bool:
        return self.offload == "all" and self.stage == 3

    def weights(self) -> list[Term]:
        """Of the policy: w A; under stage 3 w A / N, and what is gathered for the moment, where it is not here anyway.

        That is w (max(min(A / 10, 1 billion), the largest tensor) + min(A / 10, 50 million)), as `training.engine`
        sets DeepSpeed's max_live_parameters and prefetch_bucket_size.
        """
        whole = self.width * self.parameters
        if self.stage < 3:
            return [Term("weights", whole, f"{amount(self.parameters)} parameters of {self.width} bytes")]
        tenth = self.parameters // 10
        live = max(min(tenth, _LIVE), self.largest) + min(tenth, _AHEAD)
        gathers = self.processes > 1 or self._weights_off
        kept = 0.0 if self._weights_off else whole / self.processes
        why = f"{amount(self.parameters)} parameters of {self.width} bytes, 1/{self.processes}"
        return [
            Term("weights", kept, "in the host's memory" if self._weights_off else why),
            Term("gathered weights", self.width * live * gathers, f"{amount(live)} parameters at a time"),
        ]

    def gradients(self) -> Term:
        """While a micro-batch goes backward: w T; w T / N under stages 2 and 3.

        Twice that under stage 2 where the bucket is smaller than what is trained: gradients are then reduced before
        the last of them is made.
        """
        if self.stage < 2:
            return Term("gradients", self.width * self.trained, f"{amount(self.trained)} trained, whole")
        if self._off:
            return Term("gradients", 0.0, "in the host's memory")
        pieces = 2 if self.stage == 2 and self.trained > BUCKET else 1
        return Term(
            "gradients",
            pieces * self.width * self._share,
            f"{amount(self.trained)} trained, {pieces} x 1/{self.processes}",
        )

    def optimizer(self) -> Term:
        """AdamW's moments and, under ZeRO, the float32 copy: (8 + 4) T / N; 8 T without."""
        if self._off:
            return Term("optimizer", 0.0, "in the host's memory")
        if not self.stage:
            return Term("optimizer", _MOMENTS * self.trained, "two moments in float32")
        why = f"float32 weights and two moments, 1/{self.processes}"
        return Term("optimizer", (_MOMENTS + _FLOAT) * self._share, why)

    def bucket(self) -> Term:
        """What gradients are reduced in: w min(T, 500 million) under ZeRO; without, only between the passes."""
        size = self.width * min(self.trained, BUCKET) if self.stage else 0.0
        return Term("buffers", size, "DeepSpeed's bucket for reducing gradients")

    def update(self, *, on_cpu: bool) -> list[Term]:
        """While the weights are updated; no activation is alive then.

        Under ZeRO the partition's gradients in float32 and AdamW's temporaries, 4 T / N + 4 T / N (on a CPU 8 T / N);
        or, before that, the bucket and what it is emptied into: w T / N (stage 1, with w T still whole) or 2 w T / N
        (stage 2). Stage 3 updates 1 billion numbers at a time. Without ZeRO the gradients and a copy to reduce them.
        """
        if self._off:
            return [self.bucket()]
        if not self.stage:
            flat = self.width * min(self.trained, BUCKET)
            temporary = _FLOAT * self.trained * (not on_cpu)
            why = "gradients flattened for reducing, or AdamW's temporaries"
            return [self.gradients(), Term("update", max(flat, temporary), why)]
        share = min(self._share, _SUB_GROUP) if self.stage == 3 else self._share
        adam = _FLOAT * share * (3 if on_cpu else 2)
        own, bucket = self.width * self._share, self.bucket().size
        if self.stage == 3:
            return [self.gradients(), Term("update", adam, "a part's gradients in float32 and AdamW's temporaries")]
        raised = own + (_FLOAT * self._share if self.width != _FLOAT else 0.0)
        added = 2 * own + bucket if self.stage == 2 else self.width * self.trained + bucket + own
        return [Term("update", max(adam, added, raised + own), "gradients in float32 and AdamW's temporaries")]

    def host(self) -> float:
        """Bytes in the host's memory, a process: float32 weights, moments and gradients, and the weights."""
        kept = (_MOMENTS + 2 * _FLOAT + self.width) * self._share if self._off else 0.0
        return kept + self.width * self.parameters / self.processes * self._weights_off


def trained_parameters(architecture: Architecture, config: TrainingConfig) -> int:
    """T: of the parts that `training.freeze` leaves; or, of adapters, r (inputs + outputs) a linear layer."""
    if config.lora_rank:
        return config.lora_rank * architecture.adapted
    frozen = FROZEN_PARTS[config.freeze]
    mine = {"embedding": "language", "head": "language"}
    return sum(n for part, n in architecture.parameters.items() if mine.get(part, part) not in frozen)


def states_of(architecture: Architecture, config: TrainingConfig, *, width: int, processes: int) -> States:
    """What training under these settings holds."""
    trained = trained_parameters(architecture, config)
    adapters = trained if config.lora_rank else 0
    return States(
        architecture.total + adapters,
        trained,
        architecture.head,
        processes,
        width,
        config.zero_stage,
        config.offload,
    )
