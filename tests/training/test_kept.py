"""Kept log-probs of a reference: found again bit by bit, and never where anything they depend on differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from mbpo_core.models.policy import Policy
from mbpo_core.training.data import GroupSet
from mbpo_core.training.job import JobRows
from mbpo_core.training.kept import KeptLogprobs, scored_under
from mbpo_core.training.reference import add_reference_logprobs
from mbpo_core.training.rows import ListTable
from mbpo_core.training.scorer import Scored, Scorer
from mbpo_core.training.world import World
from tests.training.conftest import Recorder, trained
from tests.training.rows import POLICY, job

ALONE = World(0, 1, torch.device("cpu"))
UNDER = scored_under("digest", POLICY, "cpu")


class Counting(Scorer):
    """Counts forward passes."""

    passes = 0

    def forward(self, looks: Sequence[Any], temperature: float = 1.0) -> list[Scored]:
        self.passes += 1
        return super().forward(looks, temperature)


def scored(policy: Policy, rows: JobRows, kept: KeptLogprobs | None, **settings: Any) -> tuple[list[Any], int]:
    """What is then known of each group, and how many forward passes it took."""
    groups = GroupSet(policy, job(Path(), **settings).config)
    indices = [*groups.add_pairs(rows.pairs), *groups.add_rollouts(rows.rollouts)]
    scorer = Counting(policy)
    add_reference_logprobs(groups, indices, scorer, ALONE, kept=kept)
    return [groups.reference(index) for index in indices], scorer.passes


def test_kept_ones_are_read_bit_by_bit_and_nothing_is_scored(
    demo_policy: Policy, rows: JobRows, tmp_path: Path
) -> None:
    plain, passes = scored(demo_policy, rows, None)
    assert passes == 2  # pairs, and groups of another temperature
    assert scored(demo_policy, rows, KeptLogprobs(tmp_path, UNDER)) == (plain, 2)
    assert scored(demo_policy, rows, KeptLogprobs(tmp_path, UNDER)) == (plain, 0)


def test_they_are_parquet_that_says_what_it_was_scored_under(
    demo_policy: Policy, rows: JobRows, tmp_path: Path
) -> None:
    scored(demo_policy, rows, KeptLogprobs(tmp_path, UNDER))
    (path,) = tmp_path.rglob("*.*")
    table = pq.read_table(path)
    assert [len(groups) for groups in table["groups"].to_pylist()] == [4, 4]
    said = table.schema.metadata[b"mbpo.scored_under"].decode()
    for part in ('"policy": "digest"', '"dtype": "float32"', '"attention": "sdpa"', '"torch": "'):
        assert part in said


def _changed(rows: JobRows, change: Callable[[dict[str, Any]], dict[str, Any]]) -> JobRows:
    """The first pair is another."""
    first, *others = rows.pairs.rows(columns=("sample_id", "images", "prompt", "chosen", "rejected"))
    return JobRows(ListTable([{**first, **change(first)}, *others]), rows.rollouts)


@pytest.mark.parametrize(
    "change",
    [
        lambda row: {"rejected": [{"role": "assistant", "content": [{"type": "text", "text": "yes"}]}]},
        lambda row: {"chosen": row["rejected"], "rejected": row["chosen"]},
        lambda row: {"prompt": [{**row["prompt"][0], "content": row["prompt"][0]["content"][::-1]}]},
        lambda row: {"images": [{"bytes": row["images"][0]["bytes"] + b"\\0", "path": None}]},
    ],
    ids=["completion", "sides", "prompt", "picture"],
)
def test_another_row_is_scored(
    demo_policy: Policy, rows: JobRows, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    scored(demo_policy, rows, KeptLogprobs(tmp_path, UNDER))
    other = _changed(rows, change)
    assert scored(demo_policy, other, KeptLogprobs(tmp_path, UNDER)) == (scored(demo_policy, other, None)[0], 1)


@pytest.mark.parametrize(
    "under",
    [
        scored_under("another", POLICY, "cpu"),
        scored_under("digest", POLICY, "cuda"),
        scored_under("digest", POLICY.model_copy(update={"dtype": "bfloat16"}), "cpu"),
        scored_under("digest", POLICY.model_copy(update={"attention": "eager"}), "cpu"),
        scored_under("digest", POLICY.model_copy(update={"group_packing": "plain"}), "cpu"),
        {**UNDER, "torch": "0"},
    ],
    ids=["model", "device", "dtype", "attention", "packing", "version"],
)
def test_other_conditions_find_nothing(
    demo_policy: Policy, rows: JobRows, tmp_path: Path, under: dict[str, Any]
) -> None:
    scored(demo_policy, rows, KeptLogprobs(tmp_path, UNDER))
    assert scored(demo_policy, rows, KeptLogprobs(tmp_path, under))[1] == 2


def test_other_passes_find_nothing(demo_policy: Policy, image_rows: JobRows, tmp_path: Path) -> None:
    objectives: list[tuple[dict[str, Any], int]] = [
        ({"objective": "dpo"}, 2),
        ({"objective": "vdpo"}, 0),  # asks the reference for the same
        ({"objective": "mdpo"}, 1),
        ({"objective": "vigil"}, 1),
        ({"objective": "vigil", "blind": "mean"}, 1),
    ]
    for settings, passes in objectives:
        assert scored(demo_policy, image_rows, KeptLogprobs(tmp_path, UNDER), **settings)[1] == passes, settings


def test_a_file_of_other_conditions_or_a_broken_one_is_passed_over(
    demo_policy: Policy, rows: JobRows, tmp_path: Path
) -> None:
    right, _ = scored(demo_policy, rows, KeptLogprobs(tmp_path, UNDER))
    (path,) = tmp_path.rglob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"mbpo.scored_under": b"{}"}), path)
    assert scored(demo_policy, rows, KeptLogprobs(tmp_path, UNDER)) == (right, 2)
    path.write_bytes(b"PAR1 torn")
    assert scored(demo_policy, rows, KeptLogprobs(tmp_path, UNDER)) == (right, 2)
    assert scored(demo_policy, rows, KeptLogprobs(tmp_path, UNDER)) == (right, 0), "it was written anew"


def test_a_resumed_round_and_one_at_another_rate_do_not_ask_the_reference_again(
    rows: JobRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"kept": str(tmp_path / "kept")}
    plain = trained(job(tmp_path / "plain", epochs=2), rows)
    with pytest.raises(KeyboardInterrupt):
        trained(job(tmp_path / "work", epochs=2).model_copy(update=kept), rows, Recorder(interrupt_at=2))
    monkeypatch.setattr(Scorer, "forward", _only_with_gradient(Scorer.forward))
    resumed = trained(job(tmp_path / "work", epochs=2).model_copy(update=kept), rows)
    assert resumed.metrics == plain.metrics
    trained(job(tmp_path / "other", learning_rate=3e-4).model_copy(update=kept), rows)


def _only_with_gradient(forward: Any) -> Any:
    def checked(self: Scorer, *given: Any) -> Any:
        assert torch.is_grad_enabled(), "the reference was asked"
        return forward(self, *given)

    return checked
