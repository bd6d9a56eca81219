"""What generators are given, made for a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mbpo_core.config import NegativesConfig
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.generators import generator
from mbpo_core.negatives.items import Made
from mbpo_core.negatives.tasks import Task, open_task
from mbpo_core.records import Sample


def known_samples(bench: Bench, samples: Sequence[Sample]) -> list[Known]:
    """The samples with what the model says of them; all must be readable."""
    tasks = [open_task(bench.policy, sample, bench.settings.max_new_tokens) for sample in samples]
    assert all(isinstance(task, Task) for task in tasks)
    return bench.know([task for task in tasks if isinstance(task, Task)])


def make(policy: Policy, samples: Sequence[Sample], **settings: Any) -> list[tuple[Known, Made]]:
    """Each sample beside what the generator of `settings` makes of it; it must make something of all of them."""
    bench = Bench(policy, NegativesConfig(**settings), seed=0)
    several = known_samples(bench, samples)
    made = generator(bench.settings.method)(bench, several)
    assert all(isinstance(one, Made) for one in made)
    return [(known, one) for known, one in zip(several, made, strict=True) if isinstance(one, Made)]
