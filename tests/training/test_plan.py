"""Dealing, mixing and cutting: every group where it belongs, exactly as often as asked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mbpo_core.config import TrainingConfig
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.policy import Policy
from mbpo_core.objectives.passes import CHOSEN, REJECTED, SAMPLED
from mbpo_core.records import Sample
from mbpo_core.training.data import GroupSet
from mbpo_core.training.plan import GroupWeights, batch_weights, deal_pairs, micro_batches, plan_batches
from mbpo_core.training.rows import ListTable
from mbpo_core.training.schedule import learning_rate
from tests.training.rows import job, pair_rows, rollout_rows


@pytest.fixture(scope="module")
def groups(demo_policy: Policy, offline_samples: list[Sample]) -> GroupSet:
    """Ten pairs (0-9) and six rollout groups (10-15), two of them of equal rewards (10, 11)."""
    groups = GroupSet(demo_policy, TrainingConfig())
    assert groups.add_pairs(ListTable(pair_rows(offline_samples, 10))) == range(10)
    assert groups.add_rollouts(ListTable(rollout_rows(demo_policy, offline_samples, 6, flat=2))) == range(10, 16)
    return groups


def test_every_pair_is_dealt_once_over_the_rounds() -> None:
    shares = [deal_pairs(11, 5, round_index, 3) for round_index in range(3)]
    dealt = [index for share in shares for index in share]
    assert sorted(map(len, shares)) == [3, 4, 4]
    assert sorted(dealt) == list(range(11))
    assert dealt != list(range(11))
    assert deal_pairs(11, 5, 0, 3) == shares[0] != deal_pairs(11, 6, 0, 3)
    assert sorted(index for r in range(4) for index in deal_pairs(2, 5, r, 4)) == [0, 1]


def test_epochs_pass_over_all_groups_and_mix_both_kinds(groups: GroupSet) -> None:
    config = TrainingConfig(pairs_per_step=3, groups_per_step=3, epochs=3)
    batches = plan_batches(groups, range(10), range(10, 16), config, 0, 0)
    assert len(batches) == 3 * 4  # ten pairs need four steps of at most three
    for epoch in range(3):
        part = batches[epoch * 4 : epoch * 4 + 4]
        assert sorted(i for b in part for i in b.offline) == list(range(10))
        assert sorted(i for b in part for i in (*b.online, *b.zero_variance)) == list(range(10, 16))
        assert sorted(i for b in part for i in b.zero_variance) == [10, 11]
        assert all(2 <= len(b.offline) <= 3 and 1 <= len(b.online) + len(b.zero_variance) <= 2 for b in part)
    assert batches[0] != batches[4]
    assert batches == plan_batches(groups, range(10), range(10, 16), config, 0, 0)
    assert batches != plan_batches(groups, range(10), range(10, 16), config, 0, 1)


@pytest.mark.parametrize("count", [1, 2, 5, 7, 8])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_a_batch_in_equally_many_passes(count: int, world: int) -> None:
    shares = [micro_batches(range(count), 2, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    counted = Counter(i for share in shares for part in share for i, flag in part if flag)
    assert counted == Counter(range(count))
    assert all(0 < len(part) <= 2 for share in shares for part in share)
    assert micro_batches([], 2, 0, world) == []


def test_weights_add_up_over_the_whole_batch(groups: GroupSet) -> None:
    config = TrainingConfig(pairs_per_step=10, groups_per_step=6, offline_weight=0.5)
    (batch,) = plan_batches(groups, range(10), range(10, 16), config, 0, 0)
    weights = batch_weights(groups, batch, config)
    assert weights.keys() == {*range(10), *range(12, 16)}  # groups of equals are out of the denominator
    mass = {i: sum(u * n for u, n in zip(weights[i].completions, groups.lengths(i), strict=True)) for i in weights}
    total = 10 * 0.5 + 4
    assert mass == pytest.approx({i: (0.5 if i < 10 else 1.0) / total for i in weights})
    assert {i: weight.group for i, weight in weights.items()} == pytest.approx(mass)
    dpo = batch_weights(groups, batch, TrainingConfig(objective="dpo", offline_weight=0.5))
    assert dpo[0] == GroupWeights(0.5 / total, [])  # a pair has one loss, whatever its length
    mass = {i: sum(u * n for u, n in zip(dpo[i].completions, groups.lengths(i), strict=True)) for i in range(12, 16)}
    assert mass == pytest.approx(dict.fromkeys(range(12, 16), 1 / total))


def test_groups_hold_what_rows_say(groups: GroupSet, demo_policy: Policy, offline_samples: list[Sample]) -> None:
    sample, pair = offline_samples[0], groups.looks([0], [CHOSEN, REJECTED])[0].groups[0]
    rollout = groups.looks([12], [SAMPLED])[0].groups[0]
    assert demo_policy.decode(pair.completions[0]) == sample.answer
    assert pair.completions[0][-1] in demo_policy.eos_token_ids
    bare = groups.bare(0)
    assert (bare.source, bare.rewards, bare.rollout_logprobs) == ("offline", [2.0, 0.0], None)
    assert bare.completions == pair.completions == pair.targets
    assert isinstance(pair.prompt, Prompt)
    assert pair.prompt.images[0].pixel_values.shape[0] == 3
    assert isinstance(rollout, PromptGroup)
    assert (rollout.source, rollout.temperature) == ("online", 0.8)
    assert rollout.rollout_logprobs is not None
    assert [len(row) for row in rollout.rollout_logprobs] == groups.lengths(12)
    assert groups.bare(12).prompt.token_ids == []


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.5, 1.0, 1.0, 1.0]), ("linear", [0.5, 0.75, 0.5, 0.0]), ("cosine", [0.5, 0.853553, 0.5, 0.0])],
)
def test_learning_rate(schedule: str, expected: list[float], tmp_path: Path) -> None:
    config = job(tmp_path, learning_rate=1.0, schedule=schedule, warmup_steps=2).config
    rates = [learning_rate(config, step, progress) for step, progress in enumerate((0.0, 0.25, 0.5, 1.0))]
    assert rates == pytest.approx(expected, abs=1e-6)
