"""A budget of token positions: what they count, where the plan ends, and that methods get alike of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from mbpo_core.config import TrainingConfig
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.stage import Row
from mbpo_core.training.data import GroupSet
from mbpo_core.training.job import JobRows
from mbpo_core.training.plan import Batch, plan_batches
from mbpo_core.training.reference import read_slips
from mbpo_core.training.rows import ListTable
from mbpo_core.training.world import World
from tests.training.conftest import Recorder, Trained, trained
from tests.training.rows import job
from tests.training.test_resume import assert_equal, state_tensors

PAIRS: dict[str, Any] = {"use_online": False, "pairs_per_step": 2, "micro_groups": 2, "checkpoint_every": 100}


@pytest.fixture(scope="module")
def prompts(demo_policy: Policy, image_rows: JobRows) -> dict[str, int]:
    """Positions of every row's prompt, image included; all pictures of the demo fill equally many."""
    rows = (*image_rows.pairs.content, *image_rows.rollouts.content)  # type: ignore[attr-defined]
    return {
        row["sample_id"]: len(
            demo_policy.prepare(row["prompt"][0]["content"][1]["text"], [open_image(row["images"][0])]).token_ids
        )
        for row in rows
    }


def lengths(policy: Policy, row: Row) -> tuple[int, int]:
    """Tokens of chosen and rejected, the end included."""
    chosen, rejected = (policy.encode_completion(row[side][0]["content"][0]["text"]) for side in ("chosen", "rejected"))
    return len(chosen), len(rejected)


def pair_cost(policy: Policy, row: Row, prompt: int, objective: str) -> int:
    """Counted by hand: each prompt that is looked at, and each completion behind it; the blind one has no image."""
    chosen, rejected = lengths(policy, row)
    image = 36
    return {
        "sft": prompt + chosen,
        "dpo": prompt + chosen + rejected,
        "image": 2 * prompt + 2 * chosen,
        "mfpo": 2 * prompt + 2 * chosen + rejected,
        "p2dpo": 2 * prompt + 2 * chosen + rejected,
        "povid": prompt + chosen + rejected + chosen,
        "vdpo": prompt + chosen + rejected,  # blind passes have no gradient
        "vigil": prompt + chosen + rejected + prompt - image + chosen,
    }[objective]


@pytest.mark.parametrize("objective", ["sft", "dpo", "image", "mfpo", "p2dpo", "povid", "vdpo", "vigil"])
def test_positions_of_pairs_are_those_that_go_through_the_model(
    demo_policy: Policy, image_rows: JobRows, prompts: dict[str, int], tmp_path: Path, objective: str
) -> None:
    """In the metrics of a run, and before it as the budget counts them."""
    rows = image_rows.pairs.content  # type: ignore[attr-defined]
    costs = [pair_cost(demo_policy, row, prompts[row["sample_id"]], objective) for row in rows]
    config = TrainingConfig(objective=objective, use_online=False)
    groups = GroupSet(demo_policy, config)
    read_slips(groups, groups.add_pairs(image_rows.pairs), demo_policy, World(0, 1, demo_policy.device))
    assert [groups.positions(index) for index in range(len(rows))] == costs
    result = trained(job(tmp_path, objective=objective, **PAIRS), image_rows)
    assert sum(row.positions for row in result.state.rows) == sum(costs) == result.summary["positions"]


@pytest.mark.parametrize(("blind", "hidden"), [("mask", 36), ("drop", 36), ("mean", 0), ("black", 0)])
def test_a_hidden_image_has_no_positions_and_a_blank_one_has(
    demo_policy: Policy, image_rows: JobRows, prompts: dict[str, int], blind: Any, hidden: int
) -> None:
    groups = GroupSet(demo_policy, TrainingConfig(objective="vigil", blind=blind))
    groups.add_pairs(image_rows.pairs)
    row = image_rows.pairs.content[0]  # type: ignore[attr-defined]
    chosen, rejected = lengths(demo_policy, row)
    assert groups.positions(0) == 2 * prompts[row["sample_id"]] - hidden + 2 * chosen + rejected


@pytest.mark.parametrize("perception", [0.0, 0.01])
def test_positions_of_groups_count_like_answers_once(
    demo_policy: Policy, image_rows: JobRows, prompts: dict[str, int], tmp_path: Path, perception: float
) -> None:
    """The group of equal rewards is not trained on; with hidden patches every group is looked at twice."""
    expected = 0
    for row in image_rows.rollouts.content:  # type: ignore[attr-defined]
        answers = {tuple(completion["token_ids"]) for completion in row["completions"]}
        assert len(answers) == 2 < len(row["completions"])
        if len({completion["reward"] for completion in row["completions"]}) > 1:
            expected += prompts[row["sample_id"]] + sum(map(len, answers))
    result = trained(job(tmp_path, objective="none", perception_weight=perception), image_rows)
    assert sum(row.positions for row in result.state.rows) == expected * (2 if perception else 1)


def total(result: Trained) -> int:
    return sum(row.positions for row in result.state.rows)


@pytest.mark.parametrize("objective", ["dpo", "mfpo", "povid"])
def test_a_budget_is_met_and_overshot_by_less_than_a_batch(image_rows: JobRows, tmp_path: Path, objective: str) -> None:
    """As many epochs as it takes, the last of them cut short."""
    result = trained(job(tmp_path, objective=objective, token_budget=1500, epochs=1, **PAIRS), image_rows)
    spent = [row.positions for row in result.state.rows]
    assert sum(spent) >= 1500 > sum(spent[:-1])
    assert len(spent) > 2, "more than an epoch"


def test_equal_budgets_are_equal_work(image_rows: JobRows, tmp_path: Path) -> None:
    """An objective of three passes gets about as many positions as one of two, and fewer steps."""
    both = [
        trained(job(tmp_path / name, objective=name, token_budget=1500, **PAIRS), image_rows)
        for name in ("dpo", "mfpo")
    ]
    apart = abs(total(both[0]) - total(both[1]))
    assert apart < max(row.positions for result in both for row in result.state.rows)
    assert len(both[0].state.rows) > 1.5 * len(both[1].state.rows)


def test_several_updates_of_a_batch_spend_it_several_times(image_rows: JobRows, tmp_path: Path) -> None:
    result = trained(job(tmp_path, objective="dpo", token_budget=1500, inner_steps=3, **PAIRS), image_rows)
    spent = [row.positions for row in result.state.rows]
    assert len(spent) % 3 == 0
    assert sum(spent) >= 1500 > sum(spent[:-3])


def planned(groups: GroupSet, batches: list[Batch]) -> list[int]:
    return [sum(groups.positions(index) for index in (*batch.offline, *batch.online)) for batch in batches]


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("staged", [False, True])
def test_a_budget_is_shared_by_rounds_and_stages(
    demo_policy: Policy, image_rows: JobRows, rounds: int, staged: bool
) -> None:
    """Shares add up to the budget; a stage of hard pairs gets no more than one of easy ones, whatever its length."""
    config = TrainingConfig(objective="mfpo", token_budget=10_001, pairs_per_step=1, groups_per_step=1)
    groups = GroupSet(demo_policy, config)
    pairs, online = groups.add_pairs(image_rows.pairs), groups.add_rollouts(image_rows.rollouts)
    entropies = {index: float(index) for index in pairs} if staged else None
    limits = []
    for number in range(rounds):
        batches = plan_batches(groups, pairs, online, config, 3, number, rounds=rounds, entropies=entropies)
        share = 10_001 * (number + 1) // rounds - 10_001 * number // rounds
        limits.append(share)
        terciles = [[0], [1], [2, 3]] if staged else [[0, 1, 2, 3]]
        for place, tercile in enumerate(terciles):
            mine = [batch for batch in batches if set(batch.offline) & set(tercile)]
            rest = [b for b in batches if not b.offline]
            assert not rest, "every batch has a pair here"
            limit = share * (place + 1) // len(terciles) - share * place // len(terciles)
            costs = planned(groups, mine)
            assert sum(costs) >= limit > sum(costs[:-1])
            assert all(set(batch.offline) <= set(tercile) for batch in mine)
    assert sum(limits) == 10_001


def test_a_budget_that_nothing_can_spend_ends(demo_policy: Policy, image_rows: JobRows) -> None:
    """Groups of equal rewards cost nothing: without a limit to such batches the plan would never end."""
    rollouts = image_rows.rollouts.content[:1]  # type: ignore[attr-defined]
    config = TrainingConfig(objective="none", token_budget=1000)
    groups = GroupSet(demo_policy, config)
    online = groups.add_rollouts(ListTable(rollouts))
    assert not groups.trains(0)
    assert {b.online for b in plan_batches(groups, [], online, config, 3, 0)} == {()}
    assert plan_batches(groups, [], [], config, 3, 0) == []


def test_a_run_on_a_budget_resumes_where_it_was(image_rows: JobRows, tmp_path: Path) -> None:
    settings = {**PAIRS, "checkpoint_every": 2, "objective": "mfpo", "token_budget": 1200}
    whole = trained(job(tmp_path / "whole", **settings), image_rows)
    killed = job(tmp_path / "killed", **settings)
    steps = len(whole.state.rows)
    assert steps > 4
    with pytest.raises(KeyboardInterrupt):
        trained(killed, image_rows, Recorder(interrupt_at=3))
    again = trained(killed, image_rows)
    assert len(again.progress.figures) == steps - 2
    assert again.metrics == whole.metrics
    assert_equal(again.weights, whole.weights)
    assert_equal(state_tensors(again), state_tensors(whole))
    assert math.isfinite(whole.state.rows[-1].loss)
