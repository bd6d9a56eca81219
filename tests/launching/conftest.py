"""A node folder of its own for every test, and stages that workers share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from mbpo_core.launching.trees import TOKEN
from mbpo_core.stage import StageSpec
from mbpo_core.store import Store
from tests.execution.fakes import ANSWERS, DRAWING, STAGES

SHARED_DRAWING = StageSpec(**{**vars(DRAWING), "uses_policy": True, "shared": True})
SHARED_ANSWERS = StageSpec(**{**vars(ANSWERS), "uses_policy": True, "shared": True})


@dataclass
class Recorder:
    """A Progress that keeps what it is told, and may be interrupted by it."""

    on_step: Callable[[], None] = lambda: None
    started: list[tuple[str, int]] = field(default_factory=list)
    older: int = 0
    done: int = 0
    messages: list[str] = field(default_factory=list)

    def start(self, description: str, total: int, done: int = 0) -> None:
        self.started.append((description, total))
        self.older = done

    def advance(self, count: int = 1, **figures: float) -> None:
        self.done += count
        self.on_step()

    def log(self, message: str) -> None:
        self.messages.append(message)


@pytest.fixture(autouse=True)
def node_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node's shared folder, of this test alone."""
    monkeypatch.setenv("MBPO_NODE_FOLDER", str(tmp_path / "node"))
    return tmp_path / "node"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store that workers see."""
    return Store(tmp_path / "store", stages=STAGES)


def tree_members(node_folder: Path) -> list[int]:
    """Processes of any tree that was started with this node folder."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            zombie = process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if TOKEN in environment and environment.get("MBPO_NODE_FOLDER") == str(node_folder) and not zombie:
            found.append(process.pid)
    return found


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while not (true := bool(condition())) and time.monotonic() < deadline:
        time.sleep(0.1)
    return true
