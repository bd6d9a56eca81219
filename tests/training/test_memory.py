"""The estimate of a round against what its tensors take, and the warning made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.meter import Meter
from mbpo_core.memory.terms import GIB
from mbpo_core.models.policy import Policy
from mbpo_core.records import Sample
from mbpo_core.training.loop import _plan
from mbpo_core.training.memory import estimator_of, shortage
from mbpo_core.training.world import join_world
from tests.training.conftest import trained
from tests.training.rows import job, job_rows


def test_a_round_takes_about_what_the_estimate_says(
    demo_policy: Policy, offline_samples: list[Sample], tmp_path: Path
) -> None:
    work = job(tmp_path, zero_stage=2, micro_groups=4, pairs_per_step=4, groups_per_step=4)
    rows = job_rows(demo_policy, offline_samples)
    meter = Meter()
    with meter:
        trained(work, rows)
    world = join_world(demo_policy.device)
    groups, batches, _ = _plan(demo_policy, demo_policy, work, rows, world)
    estimator = replace(estimator_of(demo_policy, work, groups, batches, world), on_cpu=True, runtime=0.0)
    expected = estimator.training().size
    # All completions count as distinct and as long as the longest; here some are neither.
    assert 0.75 * expected < meter.peak < 1.05 * expected
    assert shortage(estimator, expected) is None
    line = shortage(estimator, 0.9 * expected)
    assert line is not None
    assert line.startswith(f"training may not fit: about {expected / GIB:.3g} GiB are needed")
    assert "would save" in line
