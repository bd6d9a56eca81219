"""A killed round ends as if nothing had happened, and a later round goes on where the one before ended."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mbpo_core.errors import DataError
from mbpo_core.training.job import Job, JobRows
from mbpo_core.training.rows import ListTable
from tests.training.conftest import Recorder, Trained, trained
from tests.training.rows import job

SETTINGS = {"pairs_per_step": 1, "groups_per_step": 1, "epochs": 2, "checkpoint_every": 3, "warmup_steps": 10}


def state_tensors(result: Trained) -> dict[str, torch.Tensor]:
    """Weights and moments as the next round gets them."""
    paths = sorted((result.job.result / "state").glob("*.safetensors"))
    return {f"{path.stem}/{name}": tensor for path in paths for name, tensor in load_file(path).items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("stage", [0, 2])
def test_resumed_equals_uninterrupted(rows: JobRows, tmp_path: Path, stage: int) -> None:
    settings = {**SETTINGS, "zero_stage": stage}
    whole = trained(job(tmp_path / "whole", **settings), rows)
    assert len(whole.state.rows) == 8
    killed = job(tmp_path / "killed", **settings)
    for moment in (5, 4):  # in the middle of a checkpoint interval; the second attempt is killed as well
        with pytest.raises(KeyboardInterrupt):
            trained(killed, rows, Recorder(interrupt_at=moment))
    again = trained(killed, rows)
    assert len(again.progress.figures) == 2  # six of eight steps were not made again
    assert again.metrics == whole.metrics
    assert again.summary == whole.summary
    assert_equal(again.weights, whole.weights)
    assert_equal(state_tensors(again), state_tensors(whole))


def test_a_checkpoint_of_other_work_is_not_resumed(rows: JobRows, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(job(tmp_path, **{**SETTINGS, "learning_rate": 1e-3}), rows, Recorder(interrupt_at=4))
    fresh = trained(job(tmp_path, **SETTINGS), rows)
    assert len(fresh.progress.figures) == 8


def test_a_half_written_checkpoint_is_not_resumed(rows: JobRows, tmp_path: Path) -> None:
    work = job(tmp_path, **SETTINGS)
    partial = work.checkpoints / "batch-00000007.partial"
    partial.mkdir(parents=True)
    (partial / "weights-00000.safetensors").write_bytes(b"torn")
    assert len(trained(work, rows).progress.figures) == 8


def second_round(first: Trained, work: Path, **settings: object) -> Job:
    """The round after `first`, from its checkpoint and state."""
    following = job(work, rounds=2, round_index=1, **settings)
    return following.model_copy(
        update={
            "policy": str(first.job.result / "checkpoint"),
            "policy_digest": "round-0",
            "previous": str(first.job.result / "state"),
        }
    )


def test_two_rounds_equal_one_of_two_epochs(rows: JobRows, tmp_path: Path) -> None:
    settings = {"use_online": False, "warmup_steps": 3, "max_grad_norm": 1e9}
    pairs = JobRows(ListTable(rows.pairs.content[:2]))  # one batch an epoch
    whole = trained(job(tmp_path / "whole", epochs=2, **settings), pairs)
    first = trained(job(tmp_path / "0", rounds=2, **settings), pairs)
    second = trained(second_round(first, tmp_path / "1", **settings), pairs)
    assert [row.step for row in whole.state.rows] == [row.step for row in (*first.state.rows, *second.state.rows)]
    for long, short in zip(whole.state.rows, (*first.state.rows, *second.state.rows), strict=True):
        assert short.learning_rate == long.learning_rate
        assert short.kl == pytest.approx(long.kl, rel=1e-3, abs=1e-9)  # to the base model, in both rounds
        assert short.grad_norm == pytest.approx(long.grad_norm, rel=1e-3)
    assert second.summary["optimizer_steps"] == 2
    assert difference(second, whole) < 1e-3
    # Without the state AdamW starts anew, and the second round ends elsewhere.
    forgetful = second_round(first, tmp_path / "2", **settings).model_copy(update={"previous": ""})
    assert difference(trained(forgetful, pairs), whole) > 0.1


def difference(one: Trained, other: Trained) -> float:
    """Between AdamW's first moments, relative."""
    a, b = (
        torch.cat([value.flatten() for name, value in state_tensors(r).items() if name.startswith("exp_avg-")])
        for r in (one, other)
    )
    return float((a - b).norm() / b.norm())


def test_state_of_another_checkpoint_is_refused(plain: Trained, rows: JobRows, tmp_path: Path) -> None:
    foreign = second_round(plain, tmp_path).model_copy(update={"policy": plain.job.policy})
    with pytest.raises(DataError, match=r"optimizer state was saved with another .* than the policy has"):
        trained(foreign, rows)


def test_state_of_another_freeze_map_is_refused(plain: Trained, rows: JobRows, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"differ in \d+ trained parameters"):
        trained(second_round(plain, tmp_path, freeze="none"), rows)
