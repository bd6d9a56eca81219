"""kill -9 at seeded random moments of every stage, then the same command again: the end is always the same."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mbpo_core.store import Store
from tests.flows.environment import command
from tests.service.conftest import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "smoke"
MOMENTS = 20
PATIENCE_S = 300.0
CONFIG = ["mbpo", "run", "--config", "deployments/smoke.yaml"]

# Small parts and a checkpoint a step, so that a kill in the middle of a stage leaves something to go on from.
KNOBS = {
    "samples.part_rows": 8,
    "negatives.batch_size": 1,
    "negatives.part_rows": 4,
    "pairs.batch_size": 2,
    "pairs.part_rows": 2,
    "rollouts.batch_size": 2,
    "rollouts.part_rows": 2,
    "training.checkpoint_every": 1,
    "evaluation.batch_size": 4,
    "evaluation.part_rows": 4,
}


@dataclass(frozen=True)
class Finished:
    """An uninterrupted run: its store, what came out under each key, and how long each took."""

    store: Path
    content: dict[str, str]
    seconds: dict[str, float]


def _words() -> list[str]:
    return CONFIG + [word for name, value in KNOBS.items() for word in ("--set", f"{name}={value}")]


def _content(store: Path) -> dict[str, str]:
    return {key: ref.content for key, ref in Store(store).run(RUN).pointers().items()}


@pytest.fixture(scope="module")
def finished(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("uninterrupted")
    command(_words(), folder, service.environment | {"MBPO_STORE": str(folder / "runs")})
    store = Store(folder / "runs")
    pointers = store.run(RUN).pointers()
    seconds = {key: store.reader(ref).manifest.seconds for key, ref in pointers.items()}
    return Finished(folder / "runs", _content(folder / "runs"), seconds)


def _moments() -> Iterator[tuple[int, float]]:
    """Number of the stage, in turn, and how far into it: seeded, so that a failure can be had again."""
    chance = random.Random(20250611)
    for number in range(MOMENTS):
        yield number, chance.random()


def _without(finished: Finished, key: str, place: Path) -> Path:
    """A copy of the finished store that stands just before a stage: it and what comes after is gone."""
    shutil.copytree(finished.store, place)
    store = Store(place)
    keys = list(finished.content)
    for later in keys[keys.index(key) :]:
        ref = store.run(RUN).pointers()[later]
        store.files.remove(store.base(ref.stage, ref.digest))
    shutil.rmtree(place / "scratch", ignore_errors=True)
    return place


def _wait_for_lease(store: Path, stage: str, process: subprocess.Popen[bytes]) -> None:
    """Until somebody makes an artifact of that stage."""
    deadline = time.monotonic() + PATIENCE_S
    while not list((store / "artifacts" / stage).glob("*/*/lease.json")):
        assert process.poll() is None, "the run ended before its stage began"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "share"), list(_moments()))
def test_a_killed_run_ends_as_an_uninterrupted_one(
    service: Service, finished: Finished, tmp_path: Path, number: int, share: float
) -> None:
    keys = list(finished.content)
    key = keys[number % len(keys)]
    store = _without(finished, key, tmp_path / "runs")
    environment = service.environment | {"MBPO_STORE": str(store)}
    with (tmp_path / "killed.log").open("wb") as log:
        killed = subprocess.Popen(_words(), cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        _wait_for_lease(store, key.split("/")[0], killed)
        time.sleep(share * finished.seconds[key])
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    command(_words(), tmp_path, environment)
    assert _content(store) == finished.content
    assert Store(store).check(*_address(store, key)) is not None


def _address(store: Path, key: str) -> tuple[str, str]:
    ref = Store(store).run(RUN).pointers()[key]
    return ref.stage, ref.digest


def test_moments_lie_in_every_stage(finished: Finished) -> None:
    keys = list(finished.content)
    assert {keys[number % len(keys)] for number, _ in _moments()} == set(keys)
