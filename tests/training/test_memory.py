"""The estimate of a round against what its tensors take, and the warning made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.meter import Meter
from mbpo_core.memory.terms import GIB
from mbpo_core.models.policy import Policy
from mbpo_core.records import Sample
from mbpo_core.training.loop import _plan
from mbpo_core.training.memory import estimator_of, shortage
from mbpo_core.training.world import join_world
from tests.training.conftest import trained
from tests.training.rows import job, job_rows


@pytest.mark.parametrize("stage", [0, 2])
def test_a_round_takes_about_what_the_estimate_says(
    stage: int, policy: Policy, samples: list[Sample], tmp_path: Path
) -> None:
    work = job(tmp_path, zero_stage=stage, micro_groups=4, pairs_per_step=4, groups_per_step=4)
    rows = job_rows(policy, samples)
    meter = Meter()
    with meter:
        trained(work, rows)
    world = join_world(policy.device)
    groups, batches, _ = _plan(policy, policy, work, rows, world)
    estimator = replace(estimator_of(policy, work, groups, batches, world), on_cpu=True, runtime=0.0)
    expected = estimator.training().size
    # The meter also counts pictures in the host's memory, and weights while they are read from their file.
    assert meter.peak == pytest.approx(expected, rel=0.2)
    assert shortage(estimator, expected) is None
    line = shortage(estimator, 0.9 * expected)
    assert line is not None
    assert line.startswith(f"training may not fit: about {expected / GIB:.3g} GiB are needed")
    assert "would save" in line
