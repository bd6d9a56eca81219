from __future__ import annotations

import pytest

from mbpo_core.config import PolicyConfig
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.negatives.items import Item
from mbpo_core.negatives.tasks import Task, open_task
from mbpo_core.records import Sample
from tests.models.tiny import TINY


@pytest.fixture(scope="session")
def items(demo_policy: Policy, offline_samples: list[Sample]) -> list[Item]:
    """Eight demo samples of ragged length, untargeted, each with its own seed."""
    tasks = [open_task(demo_policy, sample, 48) for sample in offline_samples[:8]]
    return [
        Item(task.prompt, task.images, task.chosen, None, seed)
        for seed, task in enumerate(tasks)
        if isinstance(task, Task)
    ]


@pytest.fixture(scope="session", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def qwen(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Policy:
    """A tiny model with random weights whose images are of many sizes."""
    return load_policy(TINY[request.param](tmp_path_factory.mktemp("qwen")), PolicyConfig(device="cpu"))
