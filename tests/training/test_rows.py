"""A round's rows stay where they lie: what is read, when, and how much of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbpo_core.config import TrainingConfig
from mbpo_core.models.policy import Policy
from mbpo_core.objectives.passes import SAMPLED
from mbpo_core.stage import Row
from mbpo_core.training import reference, steps
from mbpo_core.training import rows as module
from mbpo_core.training.data import GroupSet
from mbpo_core.training.job import JobRows, read_job, write_job
from mbpo_core.training.rows import ListTable, ParquetTable, Picked, without_replaced
from tests.training.conftest import Recorder, Trained, collect, trained
from tests.training.rows import job


@dataclass
class Watched:
    """A table that writes down what is asked of it."""

    table: Any
    streamed: list[tuple[str, ...]] = field(default_factory=list)
    sliced: list[tuple[int, int, tuple[str, ...]]] = field(default_factory=list)

    def count(self) -> int:
        return self.table.count()

    def rows(self, *, columns: Sequence[str]) -> Iterator[Row]:
        self.streamed.append(tuple(columns))
        return self.table.rows(columns=columns)

    def slice(self, start: int, stop: int, *, columns: Sequence[str]) -> list[Row]:
        self.sliced.append((start, stop, tuple(columns)))
        return self.table.slice(start, stop, columns=columns)


@pytest.mark.parametrize(
    ("stand_ins", "kept"),
    [
        ([0, 1, 2, 0, 0, 1], [2, 3, 5]),  # three drawn prompts: two stand-ins, none, one
        ([0, 2, 0], [1, 2]),  # the first stand-in could not be asked
        ([0, 0, 0], [0, 1, 2]),
        ([None, None], [0, 1]),
        ([], []),
    ],
)
def test_of_a_prompt_and_its_stand_ins_the_last_is_trained_on(stand_ins: list[int | None], kept: list[int]) -> None:
    table = ListTable([{"sample_id": str(i), "stand_in": one} for i, one in enumerate(stand_ins)])
    left = without_replaced(table)
    assert [row["sample_id"] for row in left.rows(columns=("sample_id",))] == [str(i) for i in kept]
    assert (left is table) == (len(kept) == len(stand_ins))


def test_pictures_are_read_one_group_at_a_time(rows: JobRows, plain: Trained, tmp_path: Path) -> None:
    watched = JobRows(Watched(rows.pairs), Watched(rows.rollouts))
    result = trained(job(tmp_path), watched)
    assert result.metrics == plain.metrics
    for table in (watched.pairs, watched.rollouts):
        assert isinstance(table, Watched)
        assert not any("images" in columns for columns in table.streamed)
        assert {stop - start for start, stop, _ in table.sliced} == {1}
        assert {columns for _, _, columns in table.sliced} == {("prompt", "images")}
    assert isinstance(watched.rollouts, Watched)
    used = {start for start, _, _ in watched.rollouts.sliced}
    assert len(used) == 3  # the group of equal rewards is never looked at


def test_the_order_of_the_deal_is_that_of_training(rows: JobRows, tmp_path: Path) -> None:
    settings = {"use_online": False, "pairs_per_step": 1}
    content = rows.pairs.content  # type: ignore[attr-defined]
    order = [2, 0, 3, 1]
    given = trained(job(tmp_path / "given", **settings), JobRows(rows.pairs, dealt=order))
    shuffled = JobRows(ListTable([content[place] for place in order]))
    plain = trained(job(tmp_path / "plain", **settings), shuffled)
    assert job(tmp_path).fingerprint(JobRows(rows.pairs, dealt=order)) == job(tmp_path).fingerprint(shuffled)
    assert [row["chosen_logprob"] for row in given.metrics] == pytest.approx(
        [row["chosen_logprob"] for row in plain.metrics], abs=1e-5
    )


def test_some_rows_of_a_table() -> None:
    table = ListTable([{"n": number, "m": -number} for number in range(10)])
    picked = Picked(table, np.array([1, 2, 5, 9]))
    assert picked.count() == 4
    assert list(picked.rows(columns=["n"])) == [{"n": 1}, {"n": 2}, {"n": 5}, {"n": 9}]
    assert picked.slice(1, 3, columns=["m"]) == [{"m": -2}, {"m": -5}]
    assert list(Picked(table, np.array([], dtype=np.int64)).rows(columns=["n"])) == []


def test_a_jobs_file_is_written_and_read_by_small_row_groups(
    rows: JobRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP_ROWS", 3)
    write_job(tmp_path, job(tmp_path / "work"), rows)
    _, read = read_job(tmp_path)
    table = read.pairs
    assert isinstance(table, ParquetTable)
    assert table._file.metadata.num_row_groups == 2
    content = rows.pairs.content  # type: ignore[attr-defined]
    assert [row["images"] for row in table.rows(columns=["images"])] == [row["images"] for row in content]
    assert [row["sample_id"] for row in table.slice(1, 4, columns=["sample_id"])] == [
        row["sample_id"] for row in content[1:4]
    ]
    assert len(table._last[1]) == 1  # of the last row group; the one before is forgotten
    assert table.slice(3, 99, columns=["sample_id"]) == [{"sample_id": content[3]["sample_id"]}]
    assert table.slice(4, 5, columns=["sample_id"]) == []


def test_log_probs_lose_nothing_in_their_arrays(rows: JobRows, demo_policy: Policy) -> None:
    groups = GroupSet(demo_policy, TrainingConfig())
    for index, row in zip(groups.add_rollouts(rows.rollouts), rows.rollouts.content, strict=True):  # type: ignore[attr-defined]
        bare = groups.bare(index)
        assert bare.rollout_logprobs == [completion["logprobs"] for completion in row["completions"]]
        assert bare.completions == [completion["token_ids"] for completion in row["completions"]]
        assert bare.rewards == [completion["reward"] for completion in row["completions"]]
        reference = np.float32([0.1 * place for place in range(sum(groups.lengths(index)))]).tolist()
        groups.set_reference(index, reference)
        kept = groups.reference(index) or {}
        assert [value for completion in kept[SAMPLED] for value in completion] == reference


def test_what_cannot_be_read_stops_at_its_step(rows: JobRows, tmp_path: Path) -> None:
    class Broken(Watched):
        def slice(self, start: int, stop: int, *, columns: Sequence[str]) -> list[Row]:
            if len(self.sliced) == 8:  # 4 for the reference, 1 to compare packed rows with plain ones, then the steps
                raise OSError("gone")
            return super().slice(start, stop, columns=columns)

    progress = Recorder()
    work = job(tmp_path, use_online=False, pairs_per_step=1, micro_groups=1)
    with pytest.raises(OSError, match="gone"):
        trained(work, JobRows(Broken(rows.pairs)), progress)
    assert len(progress.figures) == 3
    assert len(trained(work, rows).state.rows) == 4
    assert collect(work, progress).state.batches_done == 4


def test_working_ahead_changes_no_bit(
    rows: JobRows, plain: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in (steps, reference):
        monkeypatch.setattr(user, "ahead", lambda items, load: nullcontext(map(load, items)))
    alone = trained(job(tmp_path), rows)
    assert alone.metrics == plain.metrics
    assert all(torch.equal(alone.weights[name], plain.weights[name]) for name in plain.weights)
