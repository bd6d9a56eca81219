"""The large model, read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbpo_core.config import load_config
from mbpo_core.memory.architecture import Architecture, read_architecture
from mbpo_core.memory.stages import Estimator
from mbpo_core.memory.workload import read_prompts
from tests.memory.published import write_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def architecture(folder: Path) -> Architecture:
    return read_architecture(folder)


@pytest.fixture(scope="session")
def estimator(folder: Path, architecture: Architecture) -> Estimator:
    """Of deployments/qwen2_5_vl_7b.yaml."""
    config = load_config(ROOT / "deployments" / "qwen2_5_vl_7b.yaml")
    return Estimator(architecture, config, read_prompts(folder, architecture, (1024, 768), 64))
