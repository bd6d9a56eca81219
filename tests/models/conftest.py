"""A tiny random LLaVA."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbpo_core.config import PolicyConfig
from mbpo_core.models.policy import Policy, load_policy
from tests.models.tiny import save_tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny_llava"))


@pytest.fixture(params=["sdpa", "eager"])
def tiny_policy(tiny_folder: Path, request: pytest.FixtureRequest) -> Policy:
    """A fresh random LLaVA whose parameters a test may change, once an attention implementation."""
    return load_policy(tiny_folder, PolicyConfig(attention=request.param, device="cpu"))
