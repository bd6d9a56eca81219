"""MFPO's curriculum: how hard a pair is, and that training goes from easy to hard."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from mbpo_core.config import TrainingConfig
from mbpo_core.generation.generate import generate
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.resolve import resolve_model
from mbpo_core.records import Sample
from mbpo_core.seeds import derive_seed
from mbpo_core.stage import Row
from mbpo_core.training import difficulty
from mbpo_core.training.data import GroupSet
from mbpo_core.training.difficulty import SAMPLES, pair_entropies
from mbpo_core.training.job import JobRows
from mbpo_core.training.plan import Batch, plan_batches
from mbpo_core.training.rows import ListTable
from mbpo_core.training.world import World
from tests.training.conftest import Recorder, trained
from tests.training.oracle import SlowModel
from tests.training.rows import POLICY, job, pair_row, pair_rows, rollout_rows
from tests.training.test_resume import assert_equal, state_tensors

ALONE = World(0, 1, torch.device("cpu"))
HOW = ("token_entropy", "semantic_entropy")


@pytest.fixture(scope="module")
def pairs(offline_samples: list[Sample]) -> list[Row]:
    """Eleven pairs of all kinds; chosen has 2 to 20 tokens, and the last one's is shorter than what is usually said."""
    described = offline_samples[11]
    return [*pair_rows(offline_samples, 10), pair_row(described, chosen="red", rejected="green")]


def entropies(policy: Policy, pairs: list[Row], how: str, seed: int = 3) -> list[float]:
    """Of each pair, in order."""
    groups = GroupSet(policy, TrainingConfig(objective="dpo"), seed)
    indices = groups.add_pairs(ListTable(pairs))
    found = pair_entropies(groups, indices, policy, how, seed, ALONE)
    assert list(found) == list(indices)
    return list(found.values())


def question(row: Row) -> str:
    text: str = row["prompt"][0]["content"][1]["text"]
    return text


def test_token_entropy_is_the_mean_over_chosen(demo_policy: Policy, pairs: list[Row]) -> None:
    """Against a plain float64 pass over each row, the sum over the vocabulary written out."""
    slow = SlowModel(demo_policy)
    expected = []
    for row in pairs:
        prompt = slow.prompt(question(row), open_image(row["images"][0]))
        with torch.no_grad():
            whole = slow.vocabulary(prompt, demo_policy.encode_completion(row["chosen"][0]["content"][0]["text"]))
        places = [-sum(math.exp(p) * p for p in place if p > -math.inf) for place in whole.tolist()]
        expected.append(sum(places) / len(places))
    found = entropies(demo_policy, pairs, "token_entropy")
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert max(found) > 2 * min(found) > 0


def test_semantic_entropy_counts_answers_of_equal_words(demo_policy: Policy, pairs: list[Row]) -> None:
    found = entropies(demo_policy, pairs, "semantic_entropy")
    longest = max(len(demo_policy.encode_completion(row["chosen"][0]["content"][0]["text"])) for row in pairs)
    for row, value in zip(pairs, found, strict=True):
        (answers,) = generate(
            demo_policy,
            [demo_policy.prepare(question(row), [open_image(row["images"][0])])],
            completions=SAMPLES,
            temperature=1.0,
            max_new_tokens=2 * longest,
            seeds=[derive_seed(3, "training", "semantic", row["sample_id"])],
        )
        texts = Counter(answer.text.rstrip(".").lower() for answer in answers)
        assert sum(texts.values()) == 8
        assert value == pytest.approx(-sum(n / 8 * math.log(n / 8) for n in texts.values()), abs=1e-6)
    assert max(found) > 0.5


def test_answers_that_all_agree_have_none(pairs: list[Row]) -> None:
    """With its projection stretched the model is always sure; then no pair is harder than another."""
    sure = load_policy(resolve_model(POLICY), POLICY)
    with torch.no_grad():
        sure.model.get_output_embeddings().weight.mul_(1000)
    assert entropies(sure, pairs[:3], "semantic_entropy") == [0.0] * 3
    assert entropies(sure, pairs[:3], "token_entropy") == pytest.approx([0.0] * 3, abs=1e-3)


@pytest.mark.parametrize("how", HOW)
def test_entropies_depend_on_the_seed_alone(
    demo_policy: Policy, pairs: list[Row], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Not on batches, and so not on processes, though answers to short pairs are sampled beside those to long ones."""
    together = entropies(demo_policy, pairs, how)
    assert entropies(demo_policy, pairs, how) == together
    monkeypatch.setattr(difficulty, "_GROUPS", 1)
    assert entropies(demo_policy, pairs, how) == pytest.approx(together, abs=1e-5)
    other = entropies(demo_policy, pairs, how, seed=4)
    assert (other == pytest.approx(together, abs=1e-5)) == (how == "token_entropy")


def stages_of(batches: list[Batch], terciles: list[list[int]]) -> list[int]:
    """Which tercile each batch's pairs are of; all of them of one."""
    places = {index: number for number, tercile in enumerate(terciles) for index in tercile}
    found = [{places[index] for index in batch.offline} for batch in batches]
    assert all(len(one) == 1 for one in found)
    return [one.pop() for one in found]


@pytest.mark.parametrize("epochs", [1, 2])
def test_three_stages_from_easy_to_hard(demo_policy: Policy, offline_samples: list[Sample], epochs: int) -> None:
    """Every pair once an epoch of its stage; online groups are spread over the stages, each once an epoch too."""
    config = TrainingConfig(objective="mfpo", epochs=epochs, pairs_per_step=2, groups_per_step=2)
    groups = GroupSet(demo_policy, config)
    pairs = groups.add_pairs(ListTable(pair_rows(offline_samples, 11)))
    online = groups.add_rollouts(ListTable(rollout_rows(demo_policy, offline_samples, 4)))
    hard = dict(zip(pairs, [0.5, 0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6, 0.0, 1.0], strict=True))
    terciles = [[9, 1, 3], [5, 7, 0, 8], [6, 4, 2, 10]]
    batches = plan_batches(groups, pairs, online, config, 3, 0, entropies=hard)
    order = stages_of(batches, terciles)
    assert order == sorted(order)
    assert set(order) == {0, 1, 2}
    for number, tercile in enumerate(terciles):
        mine = [batch for batch, place in zip(batches, order, strict=True) if place == number]
        size = len(mine) // epochs
        for epoch in range(epochs):
            part = mine[epoch * size : (epoch + 1) * size]
            assert sorted(index for batch in part for index in batch.offline) == sorted(tercile)
    assert Counter(index for batch in batches for index in batch.online) == Counter(list(online) * epochs)
    assert batches == plan_batches(groups, pairs, online, config, 3, 0, entropies=hard)
    assert batches != plan_batches(groups, pairs, online, config, 4, 0, entropies=hard)


def test_equal_pairs_stay_in_the_order_of_the_deal(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    config = TrainingConfig(objective="dpo", use_online=False, pairs_per_step=1)
    groups = GroupSet(demo_policy, config)
    pairs = groups.add_pairs(ListTable(pair_rows(offline_samples, 6)))
    dealt = [4, 0, 5, 2, 1, 3]
    batches = plan_batches(groups, dealt, [], config, 3, 0, entropies=dict.fromkeys(pairs, 0.0))
    stages = [{index for batch in batches[at : at + 2] for index in batch.offline} for at in (0, 2, 4)]
    assert stages == [{4, 0}, {5, 2}, {1, 3}]


@pytest.mark.parametrize("how", HOW)
def test_a_run_takes_the_easiest_pairs_first(
    demo_policy: Policy, offline_samples: list[Sample], tmp_path: Path, how: str
) -> None:
    """By its own metrics: chosen's log-prob before the first update names the pair of each step."""
    s = offline_samples
    others = {0: 7, 7: 0, 8: 11, 11: 8, 4: 0, 14: 7}
    rows = [pair_row(s[place], rejected=s[other].answer, rejected_image=s[other]) for place, other in others.items()]
    values = entropies(demo_policy, rows, how)
    settings: dict[str, Any] = {"objective": "mfpo", "use_online": False, "pairs_per_step": 1, "curriculum": how}
    work = job(tmp_path, **settings, learning_rate=1e-12)
    result = trained(work, JobRows(ListTable(rows)))
    groups = GroupSet(demo_policy, TrainingConfig(objective="mfpo"))
    indices = groups.add_pairs(ListTable(rows))
    slow, means = SlowModel(demo_policy), []
    for index in indices:
        prompt = slow.prompt(question(rows[index]), open_image(rows[index]["images"][0]))
        tokens = groups.bare(index).completions[0]
        with torch.no_grad():
            means.append(float(slow.vocabulary(prompt, tokens)[range(len(tokens)), tokens].mean()))
    seen = [
        min(indices, key=lambda index: abs(means[index] - row.chosen_logprob))  # type: ignore[operator]
        for row in result.state.rows
    ]
    assert sorted(seen) == list(indices)
    ranked = sorted(indices, key=lambda index: values[index])
    assert [set(seen[at : at + 2]) for at in (0, 2, 4)] == [set(ranked[at : at + 2]) for at in (0, 2, 4)]


@pytest.mark.parametrize("how", [HOW[0], *(pytest.param(how, marks=pytest.mark.slow) for how in HOW[1:])])
def test_a_killed_curriculum_goes_on_in_its_stage(image_rows: JobRows, tmp_path: Path, how: str) -> None:
    settings: dict[str, Any] = {
        "objective": "mfpo", "use_online": False, "pairs_per_step": 1, "epochs": 2, "checkpoint_every": 2,
        "curriculum": how,
    }  # fmt: skip
    whole = trained(job(tmp_path / "whole", **settings), image_rows)
    assert len(whole.state.rows) == 8
    killed = job(tmp_path / "killed", **settings)
    with pytest.raises(KeyboardInterrupt):
        trained(killed, image_rows, Recorder(interrupt_at=5))
    again = trained(killed, image_rows)
    assert len(again.progress.figures) == 4
    assert again.metrics == whole.metrics
    assert_equal(again.weights, whole.weights)
    assert_equal(state_tensors(again), state_tensors(whole))
