"""What every test may use: one thread, demo policy, samples and pictures, and a tiny policy of every family."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from mbpo_core.models.families import FAMILIES

# Two threads on a busy small machine are slower than one; set before torch is imported anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from mbpo_core.models.policy import Policy
    from mbpo_core.records import Sample


@pytest.fixture(scope="session")
def demo_policy() -> Policy:
    """The shipped absolute-prior checkpoint on the CPU in float32; leave its parameters as they are."""
    from mbpo_core.config import PolicyConfig
    from mbpo_core.models.policy import load_policy
    from mbpo_core.models.resolve import resolve_model

    config = PolicyConfig(model="demo:absolute", device="cpu")
    return load_policy(resolve_model(config), config)


@pytest.fixture(scope="session")
def offline_samples() -> list[Sample]:
    """24 offline questions of the uniform demo pool, a mixture of kinds."""
    from mbpo_core.demo.pools import DemoCounts, demo_samples

    none: dict[str, Any] = {"online": 0, "eval_probe": 0, "eval_small_probe": 0, "dev_probe": 0, "dev_small_probe": 0}
    samples = demo_samples(setting="uniform", seed=7, counts=DemoCounts(offline=24, **none))
    return [sample for sample in samples if sample.split == "offline"]


@pytest.fixture(scope="session")
def demo_images(offline_samples: list[Sample]) -> list[Image]:
    """The pictures of `offline_samples`, 48 px RGB."""
    from mbpo_core.models.images import open_image

    return [open_image(sample.images[0]) for sample in offline_samples]


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def family_folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A tiny random model, once a family."""
    from tests.models.tiny import TINY

    return TINY[request.param](tmp_path_factory.mktemp(request.param))


EAGER = ("gemma3", "llava")
"""Families whose eager attention is tried in every run of the tests: with masks of their own, and without."""

COUSINS = ("llava_onevision", "qwen2_vl", "qwen3_vl_moe", "smolvlm")
"""Families that differ little from another one; `make test-all` has their turn."""


@pytest.hookimpl(tryfirst=True)  # before marks are looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave cousins, and eager attention of the other families, to `make test-all`."""
    for item in items:
        chosen = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        family = chosen.get("family_folder")
        if family in COUSINS or (chosen.get("family_policy") == "eager" and family not in EAGER):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=["sdpa", "eager"])
def family_policy(family_folder: Path, request: pytest.FixtureRequest) -> Policy:
    """A fresh random policy of every family under every attention implementation."""
    from mbpo_core.config import PolicyConfig
    from mbpo_core.models.policy import load_policy

    return load_policy(family_folder, PolicyConfig(attention=request.param, device="cpu"))


PICTURE_SIZES = ((48, 48), (30, 47), (70, 33), (10, 60))
"""Heights and widths of `pictures`: one that passes unchanged, and ones that are resized or cropped."""


@pytest.fixture(scope="session")
def pictures() -> list[Image]:
    """Noise, one picture for each of `PICTURE_SIZES`."""
    import numpy as np
    from PIL.Image import fromarray

    random = np.random.default_rng(0)
    return [fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in PICTURE_SIZES]
