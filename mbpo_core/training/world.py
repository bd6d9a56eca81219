"""The processes that train together, and the few things they say to one another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

_PATIENCE = timedelta(days=7)
"""How long a collective operation may take; the supervisor ends the processes when one is gone, and at its time-out."""

_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """This process's number among `size` processes; each has one accelerator or some CPU threads."""

    rank: int
    size: int
    device: torch.device

    def sum(self, values: Tensor) -> Tensor:
        """The elementwise sum over all processes, on the CPU."""
        if self.size == 1:
            return values
        moved = values.to(self.device)
        dist.all_reduce(moved)
        return moved.cpu()

    def sum_figures(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Sums of named numbers in float64; every process must give the same names."""
        names = sorted(figures)
        total = self.sum(torch.tensor([figures[name] for name in names], dtype=torch.float64))
        return dict(zip(names, total.tolist(), strict=True))

    def largest_figures(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The largest of each over all processes; every process must give the same names."""
        names = sorted(figures)
        values = torch.tensor([figures[name] for name in names], dtype=torch.float64, device=self.device)
        if self.size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return dict(zip(names, values.tolist(), strict=True))

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def join_world(device: torch.device) -> World:
    """Join the processes that torchrun or the DeepSpeed launcher started, or stand alone.

    A lone process meets itself in memory, so that it opens no port and needs no host name. It stays in that
    world for its lifetime, because DeepSpeed keeps hold of it.

    Args:
        device: where this process's model is.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    if not dist.is_initialized():
        if dist.is_torchelastic_launched() or all(name in os.environ for name in _LAUNCHED):
            dist.init_process_group(backend, timeout=_PATIENCE)
        else:
            store = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=_PATIENCE)
    return World(rank=dist.get_rank(), size=dist.get_world_size(), device=device)
