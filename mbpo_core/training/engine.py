"""The DeepSpeed engine, and every trap of it: no other file knows DeepSpeed.

A hybrid step has several backward passes (offline and online micro-batches) before one optimizer step. With
DeepSpeed's own accumulation (gradient_accumulation_steps = 1) ZeRO-1 and ZeRO-2 then silently keep the last
backward pass only. Accumulation is therefore unmanaged: `backward` only adds, `step` is the boundary.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from mbpo_core.config import TrainingConfig
from mbpo_core.errors import ModelError, TrainingDiverged
from mbpo_core.models.adapters import adapter_names
from mbpo_core.models.policy import Policy
from mbpo_core.training.looks import Look
from mbpo_core.training.scorer import Scored, Scorer
from mbpo_core.training.world import World

_LARGEST_BUCKET = 500_000_000
"""Elements that gradients are reduced in; DeepSpeed allocates a bucket whole, so a small model asks for less."""

DIVERGED_REMEDY = "Lower training.learning_rate, raise training.beta, or set training.offline_ratio: reference."

Moment = Literal["exp_avg", "exp_avg_sq"]
MOMENTS: tuple[Moment, ...] = ("exp_avg", "exp_avg_sq")


class TrainingEngine:
    """A policy under AdamW in a DeepSpeed engine, ZeRO stage 0 to 3.

    The model stays in eval mode: dropout off, so that training sees the distribution that was sampled from, and
    no random number is drawn during training.

    Args:
        policy: its parameters are frozen as `config.freeze` says; changed in place by training.
        config: optimizer and ZeRO settings.
        world: the processes that train together.
        reference: a frozen model that divergences are measured from; None where nobody asks for them.
    """

    def __init__(self, policy: Policy, config: TrainingConfig, world: World, reference: Policy | None = None) -> None:
        deepspeed = _import_deepspeed(world)
        self.world = world
        self.trainable = adapter_names(policy.model) or policy.unfreeze(config.freeze)
        if not self.trainable:
            raise ModelError(f"training.freeze is {config.freeze!r}, which leaves no parameter to train")
        self._dtype = policy.dtype
        self._max_grad_norm = config.max_grad_norm
        self._parameters = dict(policy.model.named_parameters())
        trained = [self._parameters[name] for name in self.trainable]
        # Counted now: what is partitioned has no elements.
        self.count, self.trained = (sum(p.numel() for p in several) for several in (self._parameters.values(), trained))
        self._optimizer = self._make_optimizer(trained, config)
        self._surroundings = ExitStack()
        self._surroundings.enter_context(_local_rank())
        # ZeRO-3 puts its own in this place, which holds on to no gathered weight, and leaves it there.
        self._surroundings.callback(setattr, torch.nn.functional, "linear", torch.nn.functional.linear)
        self._engine, *_ = deepspeed.initialize(
            model=Scorer(policy, reference, in_step=True),
            optimizer=self._optimizer,
            config=_deepspeed_config(config, policy, self.count, self.trained),
        )
        self._engine.eval()
        if config.gradient_checkpointing:
            _checkpoint_layers(policy.model)
        self._plain, self._partitioned = self._engine.optimizer is self._optimizer, config.zero_stage == 3
        self._norm, self._where = math.nan, ""
        if self._plain:  # without ZeRO DeepSpeed reports no gradient norm
            self._optimizer.register_step_pre_hook(lambda *_: self._clip())
        self._prime_moments()

    def score(self, looks: Sequence[Look], temperature: float) -> list[Scored]:
        """Log-probs with gradient, a result for each look; see `Scorer.forward`."""
        scored: list[Scored] = self._engine(looks, temperature)
        return scored

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one micro-batch's share of the step's loss. A collective operation under ZeRO-2."""
        # DeepSpeed averages over processes; the shares are to be summed.
        self._engine.backward(loss * self.world.size, scale_wrt_gas=False)

    def step(self, rate: float, *, where: str = "") -> float:
        """Clip, update, forget the gradients.

        Args:
            rate: learning rate of this update.
            where: the step's name in an error.

        Returns:
            The global gradient norm before clipping.

        Raises:
            TrainingDiverged: the norm is not finite.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._where = where
        self._engine.step()
        norm = self._norm if self._plain else float(self._engine.get_global_grad_norm())
        self._refuse_infinite(norm)  # ZeRO skips such an update without a word
        return norm

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The trained parameters in float32, by name, whole; a collective operation."""
        return ((name, self.weight(name)) for name in self.trainable)

    def weight(self, name: str) -> Tensor:
        """One of them, on the CPU; a collective operation."""
        from deepspeed.utils import safe_get_full_fp32_param

        parameter = self._parameters[name]
        whole: Tensor = parameter.detach() if self._plain else safe_get_full_fp32_param(parameter)
        return whole.float().cpu()

    def moments(self, key: Moment) -> Iterator[tuple[str, Tensor]]:
        """AdamW's running moments in float32, by parameter name, whole; a collective operation."""
        from deepspeed.utils import safe_get_full_optimizer_state

        for name in self.trainable:
            parameter = self._parameters[name]
            value = (
                self._optimizer.state[parameter][key] if self._plain else safe_get_full_optimizer_state(parameter, key)
            )
            yield name, value.float().cpu()

    def set_weight(self, name: str, value: Tensor) -> None:
        """Put a trained parameter back, on every process alike."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        parameter = self._parameters[name]
        with torch.no_grad(), self._gathered([parameter], write=True):
            parameter.copy_(value)
        if self._partitioned:
            safe_set_local_fp32_param(parameter, self._share(parameter, value))
        elif not self._plain:
            safe_set_full_fp32_param(parameter, value.to(parameter.device))

    def rounded(self, value: Tensor) -> Tensor:
        """A weight as the published checkpoint holds it: in the policy's dtype, read back in float32."""
        return value.to(self._dtype).float()

    def set_moment(self, name: str, key: Moment, value: Tensor) -> None:
        """Put one of AdamW's running moments back, on every process alike."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        parameter = self._parameters[name]
        if self._plain:
            self._optimizer.state[parameter][key].copy_(value)
        elif self._partitioned:
            safe_set_local_optimizer_state(parameter, self._share(parameter, value), key)
        else:
            safe_set_full_optimizer_state(parameter, value.to(parameter.device), key)

    def set_optimizer_steps(self, count: int) -> None:
        """Tell AdamW how many updates its moments have seen."""
        for state in self._optimizer.state.values():
            state["step"].fill_(float(count))

    def close(self) -> None:
        """Take DeepSpeed's hooks off the model."""
        self._engine.destroy()
        self._surroundings.close()

    def whole(self) -> AbstractContextManager[None]:
        """While it lasts, every process has all parameters whole, to read; a collective operation at both ends."""
        return self._gathered(list(self._parameters.values()))

    def _make_optimizer(self, trained: list[torch.nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
        return torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)

    def _prime_moments(self) -> None:
        # AdamW makes its state on the first update; made now, it can be read and restored at any time.
        updated = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        if self._partitioned:  # the optimizer is given these one after the other
            updated = self._engine.optimizer.fp32_partitioned_groups_flat
        for parameter in updated:
            self._optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                **{key: torch.zeros_like(parameter, memory_format=torch.preserve_format) for key in MOMENTS},
            }
        if not self._plain and not self._partitioned:
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _gathered(self, parameters: list[torch.nn.Parameter], *, write: bool = False) -> AbstractContextManager[None]:
        if not self._partitioned:
            return nullcontext()
        from deepspeed.runtime.zero import GatheredParameters

        context: AbstractContextManager[None] = GatheredParameters(parameters, modifier_rank=0 if write else None)
        return context

    def _share(self, parameter: Any, value: Tensor) -> Tensor:
        """This process's part of a partitioned parameter; the last one is filled up with zeros."""
        size, begin = parameter.ds_tensor.numel(), self.world.rank * parameter.ds_tensor.numel()
        part = value.flatten()[begin : begin + size]
        return torch.nn.functional.pad(part, (0, size - len(part)))

    def _clip(self) -> None:
        parameters = [self._parameters[name] for name in self.trainable]
        self._norm = float(torch.nn.utils.clip_grad_norm_(parameters, self._max_grad_norm))
        self._refuse_infinite(self._norm)

    def _refuse_infinite(self, norm: float) -> None:
        if not math.isfinite(norm):
            raise TrainingDiverged(f"the gradient norm is {norm}", where=self._where, remedy=DIVERGED_REMEDY)


def _checkpoint_layers(model: Any) -> None:
    """Let every layer keep its input alone. Layers do so in training mode only, which nothing else in them looks at."""
    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
            module.gradient_checkpointing = module.training = True


def _deepspeed_config(config: TrainingConfig, policy: Policy, elements: int, trained: int) -> dict[str, Any]:
    bucket = min(trained, _LARGEST_BUCKET)
    half = policy.dtype == torch.bfloat16
    host = {"device": "cpu", "pin_memory": policy.device.type == "cuda"}
    offload = {"offload_optimizer": host} if config.offload != "none" else {}
    offload |= {"offload_param": host} if config.offload == "all" else {}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.max_grad_norm if config.zero_stage or half else 0.0,
        "zero_allow_untested_optimizer": True,  # torch's AdamW; DeepSpeed's own is a compiled operation
        "zero_force_ds_cpu_optimizer": False,  # likewise
        "zero_optimization": {
            "stage": config.zero_stage,
            "overlap_comm": False,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            # DeepSpeed's own numbers, or less, so that a small model is cut up as a large one is.
            "stage3_param_persistence_threshold": min(100_000, elements // 1000),
            "stage3_prefetch_bucket_size": min(50_000_000, elements // 10),
            "stage3_max_live_parameters": min(1_000_000_000, elements // 10),
            "stage3_max_reuse_distance": min(1_000_000_000, elements // 10),
            **offload,
        },
        "bf16": {"enabled": half},
        "steps_per_print": sys.maxsize,
    }


def _import_deepspeed(world: World) -> Any:
    # Asked for by name, DeepSpeed does not guess the accelerator, and does not print that it guessed.
    os.environ.setdefault("DS_ACCELERATOR", world.device.type)
    # Collectives under names that torch has renamed, said anew in every step.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    import deepspeed
    import deepspeed.ops
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    # DeepSpeed finds out what it could compile by compiling, and the first engine then builds deepspeed_shm_comm:
    # minutes, a compiler, and a lock that outlives a kill. Told that nothing can be compiled it does neither.
    deepspeed.ops.__compatible_ops__ = dict.fromkeys(ALL_OPS, False)
    for handler in deepspeed.utils.logger.handlers:
        if type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.__stdout__):
            handler.setStream(sys.stderr)  # standard output belongs to the caller
    return deepspeed


@contextmanager
def _local_rank() -> Iterator[None]:
    """DeepSpeed asks for LOCAL_RANK even where no launcher set it."""
    missing = "LOCAL_RANK" not in os.environ
    os.environ.setdefault("LOCAL_RANK", "0")
    try:
        yield
    finally:
        if missing:
            del os.environ["LOCAL_RANK"]
