"""Rollouts of another engine: its mismatch is measured, and its tokens are weighed by it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mbpo_core.training.job import JobRows
from mbpo_core.training.rows import ListTable
from tests.training.conftest import Recorder, Trained, trained
from tests.training.rows import job

ONLINE = {"objective": "none", "groups_per_step": 4, "epochs": 2}
"""Two steps, each on all three groups whose rewards differ."""


def shifted(rows: JobRows, by: float) -> JobRows:
    """The rollouts as an engine would have recorded them that thinks every token exp(by) times as likely."""

    def moved(one: dict[str, Any]) -> dict[str, Any]:
        return {**one, "logprobs": [value + by for value in one["logprobs"]]}

    assert isinstance(rows.rollouts, ListTable)
    content = [{**row, "completions": [moved(one) for one in row["completions"]]} for row in rows.rollouts.content]
    return replace(rows, rollouts=ListTable(content))


def assert_same(one: Trained, other: Trained, tolerance: float = 0.0) -> None:
    for name, values in one.weights.items():
        assert torch.allclose(values, other.weights[name], rtol=0, atol=tolerance), name


def test_an_engine_that_agrees_is_weighed_by_one(rows: JobRows, tmp_path: Path) -> None:
    plain, corrected = (trained(job(tmp_path / str(cap), rollout_correction=cap, **ONLINE), rows) for cap in (0.0, 2.0))
    assert_same(plain, corrected, 1e-5)  # AdamW turns noise in the gradient into steps of the rate
    for row in corrected.state.rows:  # the second step too: the policy's own movement is no mismatch
        assert row.rollout_gap == pytest.approx(0, abs=1e-5)
        assert row.importance_weight == pytest.approx(1, abs=1e-5)
        assert row.importance_capped == 0
    first, second = plain.state.rows
    assert first.rollout_gap == pytest.approx(0, abs=1e-5)
    assert second.rollout_gap > 1e-3  # type: ignore[operator]
    assert second.rollout_gap_max > second.rollout_gap  # type: ignore[operator]
    assert first.importance_weight is None
    assert first.importance_capped is None


@pytest.mark.parametrize(("by", "weight", "capped"), [(0.5, math.exp(-0.5), 0.0), (-1.0, 2.0, 1.0)])
def test_a_mismatch_is_measured_and_weighs_the_surrogate(
    rows: JobRows, tmp_path: Path, by: float, weight: float, capped: float
) -> None:
    settings: dict[str, Any] = {**ONLINE, "epochs": 1, "beta": 0.0, "max_drop": 0.0, "max_grad_norm": 1e9}
    right = trained(job(tmp_path / "right", **settings), rows).state.rows[0]
    row = trained(job(tmp_path / "off", rollout_correction=2.0, **settings), shifted(rows, by)).state.rows[0]
    assert row.rollout_gap == pytest.approx(abs(by), abs=1e-5)
    assert row.rollout_gap_max == pytest.approx(abs(by), abs=1e-4)
    assert row.importance_weight == pytest.approx(weight, rel=1e-5)
    assert row.importance_capped == capped
    assert row.grad_norm == pytest.approx(weight * right.grad_norm, rel=1e-4)
    assert row.clip_fraction == 0  # the ratio is against the policy's own log-probs


def test_a_killed_round_weighs_by_the_weights_it_began_with(rows: JobRows, tmp_path: Path) -> None:
    off = shifted(rows, 0.3)
    settings = {**ONLINE, "epochs": 3, "rollout_correction": 2.0, "checkpoint_every": 1, "learning_rate": 1e-3}
    whole = trained(job(tmp_path / "whole", **settings), off)
    killed = job(tmp_path / "killed", **settings)
    with pytest.raises(KeyboardInterrupt):
        trained(killed, off, Recorder(interrupt_at=2))
    again = trained(killed, off)
    assert len(again.progress.figures) < len(whole.state.rows)
    assert again.metrics == whole.metrics
    assert_same(again, whole)
