"""The stop rule: when it fires, and what is published then."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mbpo_core.training.job import JobRows
from mbpo_core.training.stop import StopRule
from tests.training.conftest import trained, weights
from tests.training.rows import job

# Ascent on the rejected responses: what a run that goes wrong looks like, in a few steps.
WRONG_WAY = {
    "reward_chosen": 0.0,
    "reward_rejected": 2.0,
    "use_online": False,
    "beta": 0.0,
    "pairs_per_step": 1,
    "learning_rate": 3e-4,
    "epochs": 5,
    "checkpoint_every": 3,
}


def test_rule_waits_for_its_window_and_skips_steps_without_pairs() -> None:
    rule = StopRule(drop=0.1, window=2)
    assert not rule.fires(-5.0)
    assert not rule.fires(None)
    assert rule.fires(-5.0)
    assert not StopRule(drop=0.1, window=1).fires(-0.1)
    assert StopRule(drop=0.1, window=1).fires(-0.1001)
    rule = StopRule(drop=0.1, window=3)
    rule.replay([-5.0, None, -5.0])
    assert not rule.fires(11.0)
    assert rule.fires(-20.0)


def test_stop_publishes_the_last_checkpoint_before_it_fired(rows: JobRows, tmp_path: Path) -> None:
    free = trained(job(tmp_path / "free", **WRONG_WAY), rows)
    drifts = [row.chosen_drift for row in free.state.rows]
    assert all(drift is not None for drift in drifts)
    # A bound that the run crosses for the first time after its second checkpoint.
    means = [sum(drifts[i - 2 : i]) / 2 for i in range(2, len(drifts) + 1)]  # type: ignore[arg-type]
    fired = next(step for step, mean in enumerate(means, start=2) if step > 7 and mean < min(means[: step - 2]))
    bound = -(means[fired - 2] + min(means[: fired - 2])) / 2
    settings = {**WRONG_WAY, "stop_rule": True, "stop_drop": bound, "stop_window": 2}
    stopped = trained(job(tmp_path / "stopped", **settings), rows)
    published = (fired - 1) // 3 * 3
    assert stopped.summary["stopped"] is True
    assert stopped.summary["fired_step"] == fired == len(stopped.state.rows)
    assert stopped.summary["published_step"] == stopped.summary["optimizer_steps"] == published
    assert [row.stopped for row in stopped.state.rows] == [False] * (fired - 1) + [True]
    assert "stop rule fired" in stopped.progress.messages[0]
    free_again = trained(job(tmp_path / "off", **{**settings, "stop_rule": False}), rows)
    assert (free_again.summary["stopped"], free_again.summary["fired_step"]) == (False, fired)
    # The published weights are those of a run that simply ends there.
    with pytest.MonkeyPatch.context() as patch:
        from mbpo_core.training import loop

        original = loop.plan_batches
        patch.setattr(loop, "plan_batches", lambda *a, **more: original(*a, **more)[:published])
        shorter = trained(job(tmp_path / "shorter", **WRONG_WAY), rows)
    for name, tensor in shorter.weights.items():
        assert torch.equal(tensor, stopped.weights[name]), name


def test_stop_before_any_checkpoint_publishes_the_start(rows: JobRows, tmp_path: Path) -> None:
    settings = {**WRONG_WAY, "stop_rule": True, "stop_drop": 1e-6, "stop_window": 2, "checkpoint_every": 100}
    result = trained(job(tmp_path, **settings), rows)
    assert result.summary["stopped"] is True
    assert result.summary["published_step"] == 0
    start = weights(Path(result.job.policy))
    assert all(torch.equal(start[name], tensor) for name, tensor in result.weights.items())
