"""Generators on a real store: a bench over some samples, and what it makes of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.models.images import png_bytes
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.mining import Miner
from mbpo_core.negatives.tasks import Task, open_tasks
from mbpo_core.records import Dropped, Image, Negative, Sample
from mbpo_core.store.core import Store
from tests.samples.helpers import commit_rows


def bench_of(policy: Policy, samples: Sequence[Sample], **settings: Any) -> Bench:
    """A bench whose gallery holds these samples."""
    store = Store(f"memory://{uuid.uuid4().hex}")
    reader = store.reader(commit_rows(store, "samples", samples))
    return Bench(policy, NegativesConfig(**{"max_new_tokens": 24, **settings}), seed=0, samples=reader)


def known_of(bench: Bench, samples: Sequence[Sample]) -> list[Known]:
    """The samples, asked about as they are."""
    opened = open_tasks(bench.policy, samples, bench.settings.max_new_tokens)
    return bench.know([task for task in opened if isinstance(task, Task)])


def mine(bench: Bench, samples: Sequence[Sample], window: int = 100) -> tuple[list[Negative], list[Dropped]]:
    """What the stage writes of these samples."""
    miner = Miner(bench)
    negatives: list[Negative] = []
    dropped: list[Dropped] = []
    for start in range(0, len(samples), window):
        opened = open_tasks(bench.policy, samples[start : start + window], bench.settings.max_new_tokens)
        kept, left = miner.mine(opened)
        negatives, dropped = negatives + kept, dropped + left
    return negatives, dropped


def showing(sample: Sample, *pictures: Tensor | Any, **changes: Any) -> Sample:
    """The sample with other pictures: (3, H, W) uint8 tensors or PIL images."""
    tensors = [p if isinstance(p, Tensor) else torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in pictures]
    return sample.model_copy(update={"images": [Image(bytes=png_bytes(tensor)) for tensor in tensors], **changes})
