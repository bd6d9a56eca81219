"""Trees of files to test on."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from mbpo_core.store.files import Files
from mbpo_core.store.roots import open_files


@pytest.fixture(params=["local", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """An empty tree of each kind."""
    return open_files(tmp_path / "tree" if request.param == "local" else f"memory://{uuid.uuid4().hex}/deep")
