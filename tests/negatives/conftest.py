from __future__ import annotations

import pytest

from mbpo_core.models.policy import Policy
from mbpo_core.negatives.items import Item
from mbpo_core.negatives.tasks import Task, open_task
from mbpo_core.records import Sample


@pytest.fixture(scope="session")
def items(demo_policy: Policy, offline_samples: list[Sample]) -> list[Item]:
    """Eight demo samples of ragged length, untargeted, each with its own seed."""
    tasks = [open_task(demo_policy, sample, 48) for sample in offline_samples[:8]]
    return [
        Item(task.prompt, task.images, task.chosen, None, seed)
        for seed, task in enumerate(tasks)
        if isinstance(task, Task)
    ]
