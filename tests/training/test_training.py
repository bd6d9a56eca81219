"""What a round of training does to the weights, and what its metrics say."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mbpo_core.config import TrainingConfig
from mbpo_core.errors import ConfigError, TrainingDiverged
from mbpo_core.models.families import FROZEN_PARTS
from mbpo_core.models.llava import LlavaFamily
from mbpo_core.training.job import JobRows
from mbpo_core.training.rows import ListTable
from tests.training.conftest import Trained, trained, weights
from tests.training.rows import job


def moved(result: Trained) -> set[str]:
    """Names of the weights that are not bit-equal to those at the start."""
    before = weights(Path(result.job.policy))
    assert before.keys() == result.weights.keys()
    return {name for name in before if not torch.equal(before[name], result.weights[name])}


def part(name: str) -> str:
    return LlavaFamily.part_of(None, name)  # type: ignore[arg-type]


def test_every_trainable_tensor_moves_and_every_frozen_one_stays(plain: Trained) -> None:
    expected = {name for name in plain.weights if part(name) not in FROZEN_PARTS["vision"]}
    assert 0 < len(expected) < len(plain.weights)
    assert moved(plain) == expected
    assert plain.summary["trainable_parameters"] == sum(plain.weights[name].numel() for name in expected)


def test_the_last_round_publishes_weights_part_of_the_way(plain: Trained, rows: JobRows, tmp_path: Path) -> None:
    base = weights(Path(plain.job.policy))
    part_way = trained(job(tmp_path / "last", interpolation=0.25), rows)
    assert part_way.metrics == plain.metrics, "training itself is the same"
    for name, start in base.items():
        expected = (start.double() + 0.25 * (plain.weights[name].double() - start.double())).float()
        torch.testing.assert_close(part_way.weights[name], expected, rtol=0, atol=1e-7)
    assert moved(part_way) == moved(plain)
    first = trained(job(tmp_path / "first", interpolation=0.25, rounds=2), rows)
    whole = trained(job(tmp_path / "whole", rounds=2), rows)
    assert all(torch.equal(first.weights[name], whole.weights[name]) for name in base), "the next round goes on whole"


def test_weights_all_the_way_are_what_they_were_before_there_was_a_choice() -> None:
    assert "interpolation" not in TrainingConfig().identity()
    assert TrainingConfig(interpolation=0.5).identity()["interpolation"] == 0.5


def test_freezing_the_language_model_trains_the_rest(rows: JobRows, tmp_path: Path) -> None:
    parts = {part(name) for name in moved(trained(job(tmp_path, freeze="language"), rows))}
    assert parts == {"vision", "projector"}


def test_metrics_tell_what_was_trained_on(plain: Trained) -> None:
    first, second = plain.state.rows
    assert [row.step for row in (first, second)] == [1, 2]
    assert first.groups_offline + second.groups_offline == 4
    assert first.groups_online + second.groups_online == 3
    assert first.groups_zero_variance + second.groups_zero_variance == 1
    # Before the first update the policy is the reference and the sampler: no drift, no KL, ratio one.
    assert first.kl == pytest.approx(0, abs=1e-9)
    assert first.chosen_drift == pytest.approx(0, abs=1e-6)
    assert first.loss == pytest.approx(0, abs=1e-6)
    assert first.clip_fraction == 0
    assert second.kl > 1e-6
    assert all(row.grad_norm > 0.1 and row.learning_rate == 1e-4 and row.cpu_seconds > 0 for row in (first, second))
    assert first.advantage_abs == pytest.approx(1.0, abs=0.2)
    assert plain.summary["rollout_gap"] == pytest.approx(0, abs=1e-5)
    assert plain.summary["zero_variance_groups"] == 1
    assert plain.summary["published_step"] == plain.summary["steps"] == 2
    assert plain.progress.started == [("training round 1/1", 2)]
    assert plain.progress.figures[1]["kl"] == second.kl


def test_swapping_the_pairs_mirrors_the_first_step(rows: JobRows, tmp_path: Path) -> None:
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows.pairs.content]
    settings: dict[str, Any] = {"use_online": False, "beta": 0.0, "pairs_per_step": 4, "zero_stage": 0}
    one = trained(job(tmp_path / "one", **settings), rows)
    other = trained(job(tmp_path / "other", **settings), replace(rows, pairs=ListTable(swapped)))
    before = weights(Path(one.job.policy))
    # AdamW's first step is the sign of the gradient times the rate: opposite pairs, opposite steps.
    steps = [torch.cat([(r.weights[n] - before[n]).flatten() for n in moved(r)]) for r in (one, other)]
    assert torch.nn.functional.cosine_similarity(steps[0], steps[1], dim=0) < -0.98
    assert one.state.rows[0].chosen_logprob == pytest.approx(other.state.rows[0].rejected_logprob, abs=1e-5)


def test_training_raises_chosen_over_rejected(rows: JobRows, tmp_path: Path) -> None:
    for objective in ("grpo", "dpo", "sft"):
        settings = {"objective": objective, "use_online": False, "epochs": 4, "pairs_per_step": 4}
        rows_of = trained(job(tmp_path / objective, **settings), rows).state.rows
        first, last = rows_of[0], rows_of[-1]
        if objective == "sft":
            assert last.loss < first.loss
            assert last.rejected_logprob is None
            assert last.chosen_logprob > first.chosen_logprob  # type: ignore[operator]
        else:
            margins = [row.chosen_logprob - row.rejected_logprob for row in (first, last)]  # type: ignore[operator]
            assert margins[1] > margins[0] + 0.5
        if objective == "dpo":
            assert first.loss == pytest.approx(math.log(2), abs=1e-5)
        assert last.groups_online == 0


def test_the_three_offline_ratios_agree_at_the_reference_and_part_afterwards(rows: JobRows, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"use_online": False, "epochs": 2, "learning_rate": 5e-4, "max_drop": 0.0}
    runs = {
        mode: trained(job(tmp_path / mode, offline_ratio=mode, **settings), rows)
        for mode in ("on_policy", "reference", "shaped")
    }
    first = {mode: run.state.rows[0] for mode, run in runs.items()}
    # At the reference both (a) and (b) have ratio one; (c) weighs chosen tokens by f(p) A instead.
    assert first["on_policy"].grad_norm == pytest.approx(first["reference"].grad_norm, rel=1e-4)
    assert first["shaped"].grad_norm != pytest.approx(first["on_policy"].grad_norm, rel=1e-2)
    last = {mode: run.state.rows[-1] for mode, run in runs.items()}
    # On policy nothing ever saturates; cached at the reference the clip has closed on some tokens.
    assert last["on_policy"].clip_fraction == 0
    assert last["reference"].clip_fraction > 0.1


def test_max_drop_bounds_what_is_done_to_rejected_tokens(rows: JobRows, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"use_online": False, "epochs": 6, "learning_rate": 1e-3, "beta": 0.0}
    free, bound = (
        trained(job(tmp_path / str(drop), max_drop=drop, **settings), rows).state.rows[-1] for drop in (0.0, 1.0)
    )
    assert free.clip_fraction == 0
    assert bound.clip_fraction > 0
    assert bound.kl < free.kl / 2


def test_later_updates_of_a_batch_keep_the_first_ones_denominator(rows: JobRows, tmp_path: Path) -> None:
    result = trained(job(tmp_path, inner_steps=3, learning_rate=5e-4, use_online=False), rows)
    clipped = [row.clip_fraction for row in result.state.rows]
    assert len(clipped) == 6
    assert clipped[0] == clipped[3] == 0
    assert clipped[2] > 0
    assert clipped[5] > 0


def test_groups_of_equals_change_nothing(rows: JobRows, tmp_path: Path) -> None:
    flat = [r for r in rows.rollouts.content if len({c["reward"] for c in r["completions"]}) == 1]
    result = trained(job(tmp_path, objective="none"), JobRows(rollouts=ListTable(flat)))
    assert moved(result) == set()
    row = result.state.rows[0]
    assert (row.groups_zero_variance, row.groups_online, row.tokens, row.grad_norm) == (1, 0, 0, 0.0)
    assert row.reward == pytest.approx(0.2)


def test_divergence_names_step_and_number(rows: JobRows, tmp_path: Path) -> None:
    spoiled = [
        {**row, "completions": [{**c, "logprobs": [-1e4] * len(c["logprobs"])} for c in row["completions"]]}
        for row in rows.rollouts.content
    ]
    with pytest.raises(TrainingDiverged, match=r"loss_online is .*round 0, step 1.*learning_rate"):
        trained(job(tmp_path, objective="none"), JobRows(rollouts=ListTable(spoiled)))


@pytest.mark.parametrize("stage", [0, 2])
def test_infinite_gradients_are_refused_before_the_update(rows: JobRows, tmp_path: Path, stage: int) -> None:
    # The loss is finite, its gradient is not.
    from mbpo_core.training import steps

    original = steps.micro_loss

    def overflowing(*arguments: Any) -> Any:
        loss, sums = original(*arguments)
        return loss * 1e38 * 1e38, sums

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "micro_loss", overflowing)
        with pytest.raises(TrainingDiverged, match=r"gradient norm is .*round 0, step 1"):
            trained(job(tmp_path, zero_stage=stage), rows)


def test_settings_that_cannot_work_are_refused_before_loading(rows: JobRows, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reward_chosen.*both 1"):
        trained(job(tmp_path, reward_chosen=1, reward_rejected=1), rows)
    half = job(tmp_path, zero_stage=0)
    half = half.model_copy(update={"policy_config": half.policy_config.model_copy(update={"dtype": "bfloat16"})})
    with pytest.raises(ConfigError, match="zero_stage"):
        trained(half, rows)


def test_no_reference_is_scored_where_nothing_depends_on_it(
    rows: JobRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Online groups alone, no KL term, no floor: the weights are those of a floor that is never reached."""
    settings: dict[str, Any] = {"objective": "none", "beta": 0.0, "epochs": 2}
    floored = trained(job(tmp_path / "floored", max_drop=1e6, **settings), rows)
    monkeypatch.setattr("mbpo_core.training.loop.add_reference_logprobs", None)  # would fail
    free = trained(job(tmp_path / "free", max_drop=0.0, **settings), rows)
    assert all(torch.equal(free.weights[name], value) for name, value in floored.weights.items())
    assert {row.kl for row in free.state.rows} == {None}
    assert free.summary["kl_max"] is None
    assert all(row.kl is not None for row in floored.state.rows)
