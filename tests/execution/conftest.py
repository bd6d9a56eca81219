"""Stores to run the fake stages in."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mbpo_core.execution import execute, plan
from mbpo_core.progress import NullProgress
from mbpo_core.stage import ArtifactRef, StageSpec
from mbpo_core.store import Store
from tests.execution import fakes

Make = Callable[..., ArtifactRef]


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    root = str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return Store(root, stages=fakes.STAGES)


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return Store(tmp_path / "store", stages=fakes.STAGES)


def make(store: Store, spec: StageSpec, inputs: dict[str, ArtifactRef] | None = None, **options: Any) -> ArtifactRef:
    """Plan and execute one stage; options are settings of its section, or of plan()."""
    for_plan = {name: options.pop(name) for name in list(options) if name not in spec.config.model_fields}
    planned = plan(store, spec, spec.config(**options), inputs or {}, **for_plan)
    return execute(store, planned, NullProgress(), spec=spec)


@pytest.fixture
def computed() -> list[int]:
    """Input indices that `drawing` computed in this test."""
    fakes.COMPUTED.clear()
    return fakes.COMPUTED
