"""Every objective through the whole path of the trainer against its formula on plain float64 forward passes.

The policy is the demo checkpoint with noise on every weight and the reference is clean, so that nothing is trivially
zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mbpo_core.config import PolicyConfig, TrainingConfig
from mbpo_core.methods import OBJECTIVES
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.resolve import resolve_model
from mbpo_core.records import Sample
from mbpo_core.stage import Row
from mbpo_core.training.data import GroupSet
from mbpo_core.training.job import JobRows
from mbpo_core.training.looks import black_out
from mbpo_core.training.losses import FIGURES, micro_loss
from mbpo_core.training.micro import collate
from mbpo_core.training.plan import Batch, batch_weights, micro_batches
from mbpo_core.training.reference import add_reference_logprobs, read_slips
from mbpo_core.training.rows import ListTable
from mbpo_core.training.scorer import Scorer
from mbpo_core.training.statistics import Statistics, reference_gains
from mbpo_core.training.world import World
from tests.training.conftest import Recorder, Trained, trained, weights
from tests.training.formulas import (
    CASES,
    CLIPS,
    SHIFT,
    anchor,
    image,
    mean_of_means,
    nll,
    online_members,
    pair_members,
    segments,
    text,
)
from tests.training.oracle import SlowGroup, SlowModel, SlowPair
from tests.training.rows import POLICY, job, pair_row, rollout_rows

SEED = 3
ALONE = World(0, 1, torch.device("cpu"))
Gradients = dict[str, Tensor]


@dataclass
class Everything:
    """What all tests share.

    Attributes:
        policy, reference, second: as the trainer has them, float32.
        rows: three pairs of uneven lengths, each with another picture as its rejected one.
        rollouts: two online groups of four, of which three answers are alike.
        pairs, groups: the same for the formulas.
        model: the policy in float64.
    """

    policy: Policy
    reference: Policy
    second: Policy
    rows: list[Row]
    rollouts: list[Row]
    pairs: list[SlowPair]
    groups: list[SlowGroup]
    model: SlowModel


@pytest.fixture(scope="module")
def everything(demo_policy: Policy, offline_samples: list[Sample]) -> Everything:
    second = PolicyConfig(model="demo:soft", device="cpu")
    policy = load_policy(resolve_model(POLICY), POLICY)
    policy.unfreeze("vision")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.06 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    s = offline_samples
    rows = [
        pair_row(s[8], rejected="The image shows an orange carrot, a green cat and a blue dog.", rejected_image=s[11]),
        pair_row(s[2], rejected="C", rejected_image=s[1]),
        pair_row(s[4], rejected="No, the frog is green, and so is the cat.", rejected_image=s[9]),
    ]
    policy_slow, reference_slow = SlowModel(policy), SlowModel(demo_policy)
    other = load_policy(resolve_model(second), second)
    other_slow = SlowModel(other)

    def tokens(row: Row) -> dict[str, list[int]]:
        return {side: policy.encode_completion(row[side][0]["content"][0]["text"]) for side in ("chosen", "rejected")}

    def masked(row: Row) -> Any:
        return black_out(open_image(row["images"][0]), TrainingConfig(), SEED, row["sample_id"])

    rollouts = rollout_rows(demo_policy, s[::-1], 2)
    return Everything(
        policy=policy,
        reference=demo_policy,
        second=other,
        rows=rows,
        rollouts=rollouts,
        pairs=[SlowPair(row, policy_slow, reference_slow, other_slow, tokens(row)) for row in rows],
        groups=[SlowGroup(row, policy_slow, reference_slow, masked(row)) for row in rollouts],
        model=policy_slow,
    )


def through_the_trainer(
    all_of_it: Everything, config: TrainingConfig, *, micro: int = 2, recorded: bool = False
) -> tuple[float, Gradients, dict[str, float]]:
    """Loss, gradients and figures of one step as `training.steps` makes them, but for the engine."""
    policy, reference = all_of_it.policy, all_of_it.reference
    groups = GroupSet(policy, config, SEED)
    pairs = groups.add_pairs(ListTable(all_of_it.rows)) if config.objective != "none" else range(0)
    online = groups.add_rollouts(ListTable(all_of_it.rollouts)) if config.use_online else range(0)
    if pairs:
        read_slips(groups, pairs, reference, ALONE)
    add_reference_logprobs(groups, [*pairs, *online], Scorer(reference), ALONE)
    if config.second_reference:
        add_reference_logprobs(groups, pairs, Scorer(all_of_it.second), ALONE, second=True)
    statistics = Statistics(SHIFT, *reference_gains(groups, pairs))
    weights = batch_weights(groups, Batch(tuple(pairs), tuple(online), ()), config)
    scorer = Scorer(policy, reference if config.objective == "chip" else None)
    policy.model.zero_grad(set_to_none=True)
    loss, figures = 0.0, dict.fromkeys(FIGURES, 0.0)
    for part in [p for several in (pairs, online) for p in micro_batches(several, micro, 0, 1)]:
        batch = collate(part, groups, weights, config)
        scored = scorer(batch.looks, batch.temperature)
        assert [one.logprobs.requires_grad for one in scored] == [look.grad for look in batch.looks]
        old = batch.first_reference if recorded else None
        share, sums = micro_loss(batch, scored, config, old, statistics)
        share.backward()  # type: ignore[no-untyped-call]
        loss += float(share.detach())
        figures = {name: value + sums[name] for name, value in figures.items()}
    gradients = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    return loss, gradients, figures


def assert_step(all_of_it: Everything, config: TrainingConfig, loss: Tensor, **how: Any) -> dict[str, float]:
    """The trainer's loss and the gradient of every trained parameter are the slow one's within 1e-4, relative.

    Both where groups go through the model one by one and where they go together: how a step is cut must not matter.
    """
    trained = all_of_it.model.trained
    # The graph is kept, because all formulas stand on the same forward passes.
    gradients = dict(zip(trained, torch.autograd.grad(loss, list(trained.values()), retain_graph=True), strict=True))
    largest = max(float(gradient.norm()) for gradient in gradients.values())
    assert largest > 1e-2, "else nothing is compared"
    for micro in (1, 3):
        value, ours, figures = through_the_trainer(all_of_it, config, micro=micro, **how)
        assert value == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
        assert ours.keys() == gradients.keys()
        for name, gradient in gradients.items():
            apart = float((ours[name].double() - gradient).norm())
            assert apart <= 1e-4 * float(gradient.norm()) + 1e-6 * largest, (name, apart, float(gradient.norm()))
    return figures


def pairs_only(name: str, settings: dict[str, Any]) -> TrainingConfig:
    return TrainingConfig(**{"objective": name, "use_online": False, "dpo_beta": 0.3, **settings})


def test_the_models_and_pairs_leave_nothing_at_zero(everything: Everything) -> None:
    """What the comparisons below rest on."""
    for p in everything.pairs:
        for side, view in (("chosen", "clean"), ("rejected", "clean"), ("chosen", "wrong"), ("slip", "clean")):
            assert 1e-3 < abs(p.delta(side, view).item()) < 10  # type: ignore[arg-type]
        assert p.divergence("rejected").item() > 1e-3
        assert abs(p.gain("policy", "mask").item() - p.gain("reference", "mask").item()) > 0.01
    assert [len(p.slip) for p in everything.pairs] == [20, 2, 8]
    assert all(p.slip != p.tokens["chosen"] for p in everything.pairs)
    margins = [p.delta("chosen").item() - p.delta("chosen", "wrong").item() for p in everything.pairs]
    assert min(margins) < 0.1 < max(margins), "the cap closes on some pairs alone"
    shares = [set(segments(p.tokens["chosen"], p.tokens["rejected"], 2.5)[0].tolist()) for p in everything.pairs]
    assert shares == [{1.0, 2.5}, {2.5}, {1.0, 2.5}]


def test_every_objective_has_a_formula_here() -> None:
    tested = {settings.get("objective", name) for name, (settings, _) in CASES.items()}
    assert tested | {"grpo", "sft"} == set(OBJECTIVES)


def test_segments_are_the_stretches_that_both_sides_share(everything: Everything) -> None:
    """CHiP's weight of every token, also of those whose log-prob has hardly moved."""
    config = TrainingConfig(objective="chip", segment_weight=2.5)
    groups = GroupSet(everything.policy, config, SEED)
    pairs = groups.add_pairs(ListTable(everything.rows))
    weights = batch_weights(groups, Batch(tuple(pairs), (), ()), config)
    batch = collate([(index, True) for index in pairs], groups, weights, config)
    for place, p in enumerate(everything.pairs):
        expected = segments(p.tokens["chosen"], p.tokens["rejected"], 2.5)
        for side, one in zip(("chosen", "rejected"), expected, strict=True):
            kept = batch.segments[side][place, : len(one)]  # type: ignore[index]
            assert kept.tolist() == one.tolist()


@pytest.mark.parametrize("name", CASES)
def test_a_loss_on_pairs_is_its_formula(everything: Everything, name: str) -> None:
    settings, formula = CASES[name]
    loss = torch.stack([formula(p, everything.pairs) for p in everything.pairs]).mean()
    assert_step(everything, pairs_only(name, settings), loss)


@pytest.mark.parametrize("mode", ["on_policy", "reference", "shaped", "recorded"])
def test_pairs_as_groups_of_two(everything: Everything, mode: str) -> None:
    """The three denominators of recipe 1.6, and what was recorded before the first of several updates."""
    kind, first = "shaped" if mode == "shaped" else "token", mode in ("on_policy", "shaped")
    loss = -torch.stack([mean_of_means(pair_members(p, kind, on_policy=first)) for p in everything.pairs]).mean()
    ratio = "on_policy" if mode == "recorded" else mode
    config = TrainingConfig(use_online=False, offline_ratio=ratio, **CLIPS)
    figures = assert_step(everything, config, loss, recorded=mode == "recorded")
    assert figures["clipped"] > 2, "the floor is at work, and the clip"


@pytest.mark.parametrize("surrogate", ["token", "sequence", "soft", "cispo"])
def test_pairs_and_online_groups_under_one_surrogate(everything: Everything, surrogate: str) -> None:
    """W = 3 pairs of half a weight and two groups; the same surrogate for both."""
    pairs = [mean_of_means(pair_members(p, surrogate)) for p in everything.pairs]
    groups = [mean_of_means(online_members(g, surrogate)) for g in everything.groups]
    loss = -(0.5 * torch.stack(pairs).sum() + torch.stack(groups).sum()) / 3.5
    config = TrainingConfig(surrogate=surrogate, offline_ratio="reference", offline_weight=0.5, **CLIPS)
    figures = assert_step(everything, config, loss)
    assert figures["loss_offline"] == pytest.approx(-0.5 * sum(one.item() for one in pairs) / 3.5, rel=1e-4, abs=1e-6)
    assert figures["loss_online"] == pytest.approx(-sum(one.item() for one in groups) / 3.5, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("scale", ["sample", "none"])
def test_advantages_by_another_spread(everything: Everything, scale: str) -> None:
    members = [pair_members(p, scale=scale) for p in everything.pairs]
    members += [online_members(g, scale=scale) for g in everything.groups]
    loss = -torch.stack([mean_of_means(group) for group in members]).mean()
    config = TrainingConfig(advantage_scale=scale, offline_ratio="reference", **CLIPS)
    assert_step(everything, config, loss)


@pytest.mark.parametrize("normalization", ["sequence", "token", "constant"])
def test_pairs_of_one_loss_beside_groups_of_tokens(everything: Everything, normalization: str) -> None:
    """A pair has w_b / W of the step whatever its length; the groups share what is left as the normalisation says."""
    losses = torch.stack([text(p, 0.3) for p in everything.pairs]).sum() * 0.5 / 3.5
    groups = [online_members(g) for g in everything.groups]
    tokens = [one for group in groups for one in group]
    if normalization == "sequence":
        online = torch.stack([mean_of_means(group) for group in groups]).sum() / 3.5
    elif normalization == "token":
        online = 2 / 3.5 * torch.cat(tokens).mean()
    else:
        online = torch.cat(tokens).sum() / (4 * 7) / 3.5
    config = TrainingConfig(
        objective="dpo", dpo_beta=0.3, offline_weight=0.5, normalization=normalization, constant_length=7, **CLIPS
    )
    loss = losses - online
    assert_step(everything, config, loss)


def test_terms_on_top_of_token_losses(everything: Everything) -> None:
    """grpo and sft weigh tokens; what is added weighs pairs."""
    terms = {"add_image": 0.5, "add_anchor": 0.25, "add_likelihood": 0.75, "margin": 0.2, "dpo_beta": 0.3}
    added = [0.5 * image(p, 0.3) + 0.25 * anchor(p, 0.3, 0.2) + 0.75 * nll(p) for p in everything.pairs]
    own = {
        "grpo": [-mean_of_means(pair_members(p)) for p in everything.pairs],
        "sft": [nll(p) for p in everything.pairs],
    }
    for objective, several in own.items():
        config = TrainingConfig(objective=objective, use_online=False, offline_ratio="reference", **CLIPS, **terms)
        loss = torch.stack([one + other for one, other in zip(several, added, strict=True)]).mean()
        assert_step(everything, config, loss)


@pytest.mark.parametrize("cap", [0.0, 0.02])
def test_answers_are_to_change_where_patches_are_hidden(everything: Everything, cap: float) -> None:
    """PAPO: J + weight * k3(seeing || masked), weighed like any token; both passes have a gradient."""
    added, values = [], []
    for group in everything.groups:
        pairs = zip(group.logprobs("policy"), group.logprobs("policy", masked=True), strict=True)
        found = [torch.exp(hidden - seeing) - (hidden - seeing) - 1 for seeing, hidden in pairs]
        values += torch.cat(found).tolist()
        added.append(mean_of_means([one.clamp(max=cap) if cap else one for one in found]))
    assert any(value > 0.02 for value in values), "else the cap is not tested"
    assert any(1e-4 < value < 0.02 for value in values)
    groups = [mean_of_means(online_members(g)) for g in everything.groups]
    loss = -torch.stack([one + 0.5 * other for one, other in zip(groups, added, strict=True)]).mean()
    config = TrainingConfig(objective="none", perception_weight=0.5, perception_cap=cap, **CLIPS)
    assert_step(everything, config, loss)


def test_figures_are_those_of_the_formulas(everything: Everything) -> None:
    """Rewards are beta times sums, log-probs are means, positions are prompts once and completions."""
    _, _, figures = through_the_trainer(everything, pairs_only("mdpo", {}), micro=2)
    p = everything.pairs
    expected = {
        "chosen_reward": 0.3 * sum(one.delta("chosen").item() for one in p),
        "rejected_reward": 0.3 * sum(one.delta("rejected").item() for one in p),
        "wrong_image_reward": 0.3 * sum(one.delta("chosen", "wrong").item() for one in p),
        "chosen": sum(one.logprobs("policy").mean().item() for one in p),
        "rejected": sum(one.logprobs("policy", side="rejected").mean().item() for one in p),
        "chosen_reference": sum(one.logprobs("reference").mean().item() for one in p),
        "pairs": 3,
        "tokens": sum(len(tokens) for one in p for tokens in one.tokens.values()),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=2e-5)


# End to end: two steps of two pairs, by the engine.

LN2 = math.log(2)
FIRST_LOSS: dict[str, float] = {
    "grpo": 0.0,
    "dpo": LN2,
    "ipo": 1 / (4 * 0.1**2),
    "image": 2 * LN2,
    "mdpo": 3 * LN2,
    "mfpo": 3 * LN2,
    "chip": LN2,
    "adavip": math.log(3),
    "rdpo": 2 * LN2,
    "povid": LN2,
    "mrpo": LN2,
}
"""Where policy and reference agree, whatever the pairs; of mrpo where both references are the same."""
REJECTED_TOO = set(OBJECTIVES) - {"sft", "image"}
WRONG_TOO = {"image", "mdpo", "mfpo", "chip", "adavip", "rdpo"}


@pytest.fixture(scope="module", params=OBJECTIVES)
def run(request: pytest.FixtureRequest, image_rows: JobRows, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A round of every objective."""
    name = request.param
    second = {"second_reference": str(resolve_model(POLICY))} if name == "mrpo" else {}
    settings = {"objective": name, "use_online": False, "checkpoint_every": 100, **second}
    return trained(job(tmp_path_factory.mktemp(name), **settings), image_rows)


def test_every_objective_trains(run: Trained) -> None:
    """Two steps with finite metrics, the first of known loss; the weights move."""
    name = run.job.config.objective
    first, second = run.state.rows
    for row in run.metrics:
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
        assert row["groups_offline"] == 2
        assert row["grad_norm"] > 1e-3
    nll = -(first.chosen_logprob or 0.0)
    expected = FIRST_LOSS | {"sft": nll, "mpo": 0.8 * LN2 + 0.2 * 2 * LN2 + nll}
    if name in expected:
        assert first.loss == pytest.approx(expected[name], abs=2e-5)
    elif name == "vigil":
        assert LN2 < first.loss < 1.5 * LN2, "the gate is between 0 and 1"
    else:
        assert name in ("vdpo", "p2dpo"), "their terms do not cancel where policy and reference agree"
        assert first.loss > 0
    assert first.kl == pytest.approx(0, abs=1e-6)
    assert second.kl > 1e-7  # type: ignore[operator]
    assert run.summary["left_out"] == {}
    before = weights(Path(run.job.policy))
    assert any(not torch.equal(before[key], value) for key, value in run.weights.items())


def test_rewards_are_told_of_what_an_objective_scores(run: Trained) -> None:
    """Null exactly where it has no such pass; P2-DPO's reference has not seen chosen under the rejected images."""
    name = run.job.config.objective
    for row, moved in zip(run.state.rows, (False, True), strict=True):
        rewards = {
            "chosen": row.chosen_reward,
            "rejected": row.rejected_reward,
            "wrong": row.wrong_image_reward,
        }
        told = (
            {"chosen"} | ({"rejected"} if name in REJECTED_TOO else set()) | ({"wrong"} if name in WRONG_TOO else set())
        )
        assert {which for which, value in rewards.items() if value is not None} == told
        assert all((abs(rewards[which] or 0.0) > 1e-4) == moved for which in told), rewards
        assert (row.rejected_logprob is not None) == (name in REJECTED_TOO)
        assert row.chosen_logprob is not None
        assert row.chosen_drift is not None


def test_guidance_of_one_is_dpo(image_rows: JobRows, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"use_online": False, "pairs_per_step": 4}
    guided = trained(job(tmp_path / "vdpo", objective="vdpo", guidance=1.0, **settings), image_rows)
    plain = trained(job(tmp_path / "dpo", objective="dpo", **settings), image_rows)
    assert guided.state.rows[0].loss == pytest.approx(LN2, abs=2e-5)
    assert guided.state.rows[0].grad_norm == pytest.approx(plain.state.rows[0].grad_norm, rel=1e-4)


def test_each_update_of_a_batch_lowers_the_loss_of_its_pairs(image_rows: JobRows, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"objective": "mfpo", "use_online": False, "pairs_per_step": 2}
    result = trained(job(tmp_path, inner_steps=2, **settings), image_rows)
    first, again, second, last = result.state.rows
    assert again.loss < first.loss - 0.01
    assert last.loss < second.loss - 0.01
    assert first.positions == again.positions
    assert first.wrong_image_reward == pytest.approx(0, abs=1e-5)
    assert again.chosen_reward - again.wrong_image_reward > 0  # type: ignore[operator]


def test_the_shift_is_the_mean_reward_of_the_steps_before(image_rows: JobRows, tmp_path: Path) -> None:
    """mpo's quality loss of each step, from the rewards that its row tells: one pair a step. Also after a resume."""
    only = {"preference_weight": 0.0, "quality_weight": 1.0, "generation_weight": 0.0}
    settings: dict[str, Any] = {"objective": "mpo", "use_online": False, "pairs_per_step": 1, **only}
    settings |= {"epochs": 2, "learning_rate": 2e-3}
    whole = trained(job(tmp_path / "whole", **settings), image_rows)
    before: list[float] = []
    for row in whole.state.rows:
        chosen, rejected = float(row.chosen_reward or 0.0), float(row.rejected_reward or 0.0)
        shift = sum(before) / len(before) if before else 0.0
        expected = math.log1p(math.exp(shift - chosen)) + math.log1p(math.exp(rejected - shift))
        assert row.loss == pytest.approx(expected, abs=1e-5)
        before.append((chosen + rejected) / 2)
    assert max(map(abs, before)) > 0.1, "else no shift is seen"
    killed = job(tmp_path / "killed", **settings)
    with pytest.raises(KeyboardInterrupt):
        trained(killed, image_rows, Recorder(interrupt_at=5))
    assert trained(killed, image_rows).metrics == whole.metrics
