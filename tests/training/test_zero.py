"""Every ZeRO stage, in one process and two, whole or in pieces, weights or adapters: the same step.

The whole matrix is behind the marker `slow`; what runs by default has every kind of cell once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mbpo_core.training.job import JobRows, write_job
from mbpo_core.training.world import join_world
from tests.training.rows import job
from tests.training.zero import DEVICE, Case, Measured, by_engine, by_torch

Expected = Callable[[Case, int], Measured]
TOLERANCE = 1e-6
MATRIX = [Case(stage, lora, cut) for stage, lora, cut in product(range(4), (False, True), (8, 1))]
REST: list[Case] = [
    Case(stage, lora, 1, content) for stage, lora, content in product(range(4), (False, True), ("mixed", "filtered"))
]
HANGS_AFTER_S = 240


@pytest.fixture(scope="module")
def folder(rows: JobRows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows and settings, where other processes find them; nothing is clipped."""
    place = tmp_path_factory.mktemp("zero")
    write_job(place, job(place / "work", max_grad_norm=1e9, beta=0.04), rows)
    return place


@pytest.fixture(scope="module")
def expected(folder: Path) -> Expected:
    """By plain torch, once for all stages."""
    found: dict[tuple[Case, int], Measured] = {}

    def of(case: Case, processes: int) -> Measured:
        key = replace(case, stage=3 if case.stage == 3 else 0, knobs=()), processes
        if key not in found:
            found[key] = by_torch(key[0], folder, processes)
        return found[key]

    return of


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Norm of the difference over the norm."""
    assert one.keys() == other.keys()
    difference = sum(float((one[name] - other[name]).double().square().sum()) for name in one)
    return (difference / sum(float(tensor.double().square().sum()) for tensor in other.values())) ** 0.5


def assert_equal(measured: Measured, right: Measured, name: str) -> None:
    assert max(float(tensor.abs().max()) for tensor in right.gradients.values()) > 1e-3, name
    assert apart(measured.gradients, right.gradients) < TOLERANCE, name
    assert apart(measured.weights, right.weights) < TOLERANCE, name


def in_two(folder: Path, cases: list[Case]) -> dict[Case, Measured]:
    """What two processes find; one that waits for the other for ever fails the test."""
    names = [case.name for case in cases]
    command = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    command += ["-m", "tests.training.zero", str(folder), *names]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(
        [sys.executable, *command], cwd=root, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, said = launcher.communicate(timeout=HANGS_AFTER_S + 30 * len(cases))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)  # its processes too, where they wait for each other
    assert launcher.returncode == 0, said[-4000:]
    return {case: Measured.load(folder / f"{case.name}.safetensors") for case in cases}


def check_alone(folder: Path, expected: Expected, cases: list[Case]) -> None:
    for case in cases:
        measured = by_engine(case, folder, join_world(torch.device(DEVICE)))
        assert_equal(measured, expected(case, 1), case.name)


def check_together(folder: Path, expected: Expected, cases: list[Case]) -> None:
    for case, measured in in_two(folder, cases).items():
        assert_equal(measured, expected(case, 2), case.name)


def test_one_process_has_the_gradients_and_weights_of_plain_torch(folder: Path, expected: Expected) -> None:
    check_alone(folder, expected, [Case(3), Case(2, lora=True, cut=1)])


@pytest.mark.slow
def test_two_processes_have_the_gradients_and_weights_of_plain_torch(folder: Path, expected: Expected) -> None:
    """Also where one process has pictures and the other has none, or one has no group at all."""
    cases = [Case(2, cut=1, content="mixed"), Case(3, lora=True, cut=1, content="mixed"), Case(3, content="filtered")]
    check_together(folder, expected, cases)


@pytest.mark.slow
def test_the_whole_matrix_in_one_process(folder: Path, expected: Expected) -> None:
    check_alone(folder, expected, [*MATRIX, *REST])


@pytest.mark.slow
def test_the_whole_matrix_in_two_processes(folder: Path, expected: Expected) -> None:
    check_together(folder, expected, [*MATRIX, *REST])
