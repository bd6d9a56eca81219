"""Our losses, gradients and updates against TRL's, number by number, on the same canned completions.

The other side is `golden/trl.json`, written by `make golden` where TRL is installed. One of TRL's conventions is
followed here rather than ours: image placeholders are part of the softmax. One of TRL's defaults is switched off:
`use_bias_correction_kl`, which multiplies k3 by the ratio.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from mbpo_core.config import PolicyConfig, TrainingConfig
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.objectives.advantages import group_advantages
from mbpo_core.objectives.normalization import completion_weights
from mbpo_core.objectives.passes import CHOSEN, REJECTED, SAMPLED
from mbpo_core.training.engine import TrainingEngine
from mbpo_core.training.looks import Look
from mbpo_core.training.losses import micro_loss
from mbpo_core.training.micro import MicroBatch
from mbpo_core.training.scorer import pad
from mbpo_core.training.world import join_world
from tests.models.tiny import save_tiny
from tests.training.golden import canned
from tests.training.golden.canned import Setting

TOLERANCE = 1e-5
SETTINGS = [*canned.SETTINGS, *(Setting(loss, beta, 2) for loss in ("gspo", "cispo", "sapo") for beta in (0.0, 0.04))]
OURS: dict[str, dict[str, Any]] = {
    "grpo": {"normalization": "sequence"},
    "dr_grpo": {"normalization": "constant", "advantage_scale": "none"},
    "dapo": {"normalization": "token"},
    "gspo": {"normalization": "sequence", "surrogate": "sequence"},
    "cispo": {"normalization": "token", "surrogate": "cispo"},
    "sapo": {"normalization": "sequence", "surrogate": "soft"},
}
"""What each of TRL's losses is called here."""

COUNTED_OTHERWISE = {"gspo": {"clipped"}, "cispo": {"capped"}}
"""TRL counts clipped sequences, not tokens; and capped weights only of positive advantages."""


@dataclass
class Trained:
    """What three updates gave."""

    steps: list[dict[str, float]]
    weights: dict[str, list[float]]


@cache
def golden() -> dict[str, Any]:
    """TRL's numbers."""
    path = Path(__file__).parent / "golden/trl.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that TRL was given."""
    return save_tiny(tmp_path_factory.mktemp("golden") / "tiny", seed=canned.MODEL_SEED)


def load(folder: Path) -> Policy:
    """The policy, with image placeholders left in the softmax as TRL does."""
    policy = load_policy(folder, PolicyConfig(model=str(folder), device="cpu"))
    policy.banned_token_ids = []
    return policy


def prompts(folder: Path, count: int) -> list[Prompt]:
    """The canned questions as our code renders them."""
    policy = load_policy(folder, PolicyConfig(model=str(folder), device="cpu"))
    texts, pictures = canned.questions(count), canned.pictures(count)
    return [policy.prepare(text, [picture]) for text, picture in zip(texts, pictures, strict=True)]


def config(**settings: Any) -> TrainingConfig:
    """What both sides are set to."""
    base = {"learning_rate": canned.LEARNING_RATE, "max_drop": 0.0, "freeze": "vision", "advantage_scale": "sample"}
    return TrainingConfig(**{**base, **settings})


def scored(policy: Policy, groups: list[PromptGroup]) -> Tensor:
    """(B, T) log-probs without gradient, nats."""
    return pad([row for rows in group_logprobs(policy, groups) for row in rows])


def group_batch(
    groups: list[PromptGroup], rewards: list[list[float]], weights: list[float], settings: TrainingConfig
) -> MicroBatch:
    """All rows of a step of GRPO, without the log-probs of reference and rollout."""
    mask = kept([tokens for group in groups for tokens in group.completions])
    return MicroBatch(
        source="online",
        looks=[Look((SAMPLED,), groups, None, grad=True)],
        advantages=group_advantages(torch.tensor(rewards), scale=settings.advantage_scale).flatten(),
        weights=torch.tensor(weights),
        mask=mask,
        counted=mask,
        group_weights=torch.zeros(len(groups)),
        pairs_counted=torch.zeros(len(groups), dtype=torch.bool),
    )


def pair_batch(groups: list[PromptGroup], known: Tensor) -> MicroBatch:
    """All pairs of a step, with the reference's log-probs."""
    count = len(groups)
    mask = kept([tokens for group in groups for tokens in group.completions])
    batch = MicroBatch(
        source="offline",
        looks=[Look((CHOSEN, REJECTED), groups, None, grad=True)],
        advantages=torch.zeros(2 * count),
        weights=torch.zeros(2 * count),
        mask=mask,
        counted=mask,
        group_weights=torch.full((count,), 1 / count),
        pairs_counted=torch.ones(count, dtype=torch.bool),
        masks={
            "chosen": kept([group.completions[0] for group in groups]),
            "rejected": kept([group.completions[1] for group in groups]),
        },
        first_reference=known,
    )
    return replace(batch, reference=batch.by_pass([known]))


def kept(completions: list[list[int]]) -> Tensor:
    """(B, T) bool, True on the completions' tokens."""
    lengths = torch.tensor([len(tokens) for tokens in completions])
    return torch.arange(int(lengths.max()))[None, :] < lengths[:, None]


def update(engine: TrainingEngine, batch: MicroBatch, settings: TrainingConfig) -> tuple[dict[str, float], Tensor]:
    """One update: its figures, and the log-probs before it."""
    looked = engine.score(batch.looks, 1.0)
    loss, sums = micro_loss(batch, looked, settings)
    engine.backward(loss)
    norm = engine.step(canned.LEARNING_RATE)
    tokens = sums["tokens"]
    figures = {"loss": float(loss.detach()), "kl": sums["kl"] / tokens, "clipped": sums["clipped"] / tokens}
    return {**figures, "grad_norm": norm}, looked[0].logprobs.detach()


def sums(engine: TrainingEngine) -> dict[str, list[float]]:
    """Sum and absolute sum of every trained tensor."""
    return {name: [float(w.double().sum()), float(w.double().abs().sum())] for name, w in engine.weights()}


def grpo_batches(folder: Path) -> Iterator[tuple[list[PromptGroup], list[list[float]]]]:
    """Groups and rewards of each batch of the three updates."""
    count = canned.STEPS * canned.PROMPTS_PER_STEP
    rendered, rewards, completions = (
        prompts(folder, count),
        canned.rewards(count),
        golden()["grpo_tokens"]["completions"],
    )
    for start in range(0, count, canned.PROMPTS_PER_STEP):
        taken = slice(start, start + canned.PROMPTS_PER_STEP)
        pairs = zip(rendered[taken], completions[taken], strict=True)
        yield [PromptGroup(prompt, group, source="online") for prompt, group in pairs], rewards[taken]


def train_grpo(folder: Path, setting: Setting) -> Trained:
    """What TRL did, by our engine: mu updates on a batch, the ratio's denominator recorded before the first."""
    policy, reference = load(folder), load(folder)
    settings = config(beta=setting.beta, clip_low=canned.CLIP, clip_high=setting.clip_high, **OURS[setting.loss_type])
    engine = TrainingEngine(policy, settings, join_world(policy.device))
    steps: list[dict[str, float]] = []
    for groups, rewards in grpo_batches(folder):
        lengths = [[len(tokens) for tokens in group.completions] for group in groups]
        shares = completion_weights(
            lengths, [1.0] * len(groups), settings.normalization, constant_length=canned.MAX_COMPLETION
        )
        batch = group_batch(groups, rewards, [share for group in shares for share in group], settings)
        known = scored(reference, groups)
        batch = replace(batch, reference={SAMPLED: known}, first_reference=known, rollout=scored(policy, groups))
        left = canned.STEPS - len(steps)
        steps += [update(engine, batch, settings)[0] for _ in range(min(setting.iterations, left))]
        if len(steps) == canned.STEPS:
            break
    result = Trained(steps, sums(engine))
    engine.close()
    return result


def train_pairs(folder: Path, objective: Literal["dpo", "ipo"]) -> Trained:
    """What DPOTrainer did, by our engine, on the token ids that TRL made."""
    policy, reference = load(folder), load(folder)
    settings = config(objective=objective, dpo_beta=canned.DPO_BETA)
    engine = TrainingEngine(policy, settings, join_world(policy.device))
    rendered = prompts(folder, canned.STEPS * canned.PAIRS_PER_STEP)
    steps = []
    for number, tokens in enumerate(golden()["dpo"]["tokens"]):
        start = number * canned.PAIRS_PER_STEP
        sides = zip(rendered[start : start + canned.PAIRS_PER_STEP], tokens["chosen"], tokens["rejected"], strict=True)
        groups = [PromptGroup(prompt, [chosen, rejected]) for prompt, chosen, rejected in sides]
        known = scored(reference, groups)
        figures, logprobs = update(engine, pair_batch(groups, known), settings)
        gain = (logprobs - known).sum(dim=1)
        whole = logprobs.sum(dim=1)
        figures |= {"chosen": whole[0::2].mean().item(), "rejected": whole[1::2].mean().item()}
        steps.append({**figures, "margin": canned.DPO_BETA * (gain[0::2] - gain[1::2]).mean().item()})
    result = Trained(steps, sums(engine))
    engine.close()
    return result


def compare(ours: Trained, theirs: dict[str, Any], floors: dict[str, float], skip: Collection[str] = ()) -> None:
    """Figures but `skip` within 1e-5 of TRL's; where one may vanish, of its `floors`. Sums of weights within 1e-6."""
    for number, (mine, expected) in enumerate(zip(ours.steps, theirs["steps"], strict=True)):
        for name in expected.keys() - set(skip):
            value = expected[name]
            bound = TOLERANCE * max(abs(value), floors.get(name, 0.0))
            assert mine[name] == pytest.approx(value, rel=0, abs=bound), f"step {number}: {name}"
    assert ours.weights.keys() == theirs["weights"].keys()
    for name, (total, size) in theirs["weights"].items():
        assert ours.weights[name] == pytest.approx([total, size], rel=0, abs=TOLERANCE * size / 10), name


def test_the_model_is_the_one_trl_was_given(folder: Path) -> None:
    policy = load(folder)
    policy.unfreeze("vision")
    for name, (total, size) in golden()["weights"].items():
        weight = policy.model.get_parameter(name).detach().double()
        assert [float(weight.sum()), float(weight.abs().sum())] == pytest.approx([total, size], rel=1e-12, abs=1e-9)


def test_both_render_the_same_prompts(folder: Path) -> None:
    count = canned.STEPS * canned.PAIRS_PER_STEP
    ours = [prompt.token_ids for prompt in prompts(folder, count)]
    theirs = golden()["grpo_tokens"]["prompts"]
    assert ours[: len(theirs)] == theirs
    assert ours == [ids for tokens in golden()["dpo"]["tokens"] for ids in tokens["prompts"]]


def test_both_render_the_same_answers(folder: Path) -> None:
    policy = load(folder)
    ours = [tuple(map(policy.encode_completion, pair)) for pair in canned.answers(canned.STEPS * canned.PAIRS_PER_STEP)]
    tokens = golden()["dpo"]["tokens"]
    theirs = [pair for step in tokens for pair in zip(step["chosen"], step["rejected"], strict=True)]
    assert ours == theirs


def test_trl_trained_in_every_setting() -> None:
    assert list(golden()["grpo"]) == [setting.name for setting in SETTINGS]


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.name for setting in SETTINGS])
def test_grpo(folder: Path, setting: Setting) -> None:
    # On policy the loss is a sum of advantages, of about 1 each, that nearly cancel; k3 starts at 0.
    floors, skip = {"loss": 0.05, "kl": 0.005}, COUNTED_OTHERWISE.get(setting.loss_type, set())
    compare(train_grpo(folder, setting), golden()["grpo"][setting.name], floors, skip)


def test_some_tokens_are_clipped() -> None:
    """Otherwise the comparison would say nothing about clipping."""
    for setting in SETTINGS:
        name = "capped" if setting.loss_type == "cispo" else "clipped"
        shares = [step[name] for step in golden()["grpo"][setting.name]["steps"] if setting.loss_type != "sapo"]
        if shares:
            assert any(0.05 < share < 0.95 for share in shares) == (setting.iterations > 1)


@pytest.mark.parametrize("objective", ["dpo", "ipo"])
def test_pairs(folder: Path, objective: Literal["dpo", "ipo"]) -> None:
    compare(train_pairs(folder, objective), golden()[objective], {"margin": 0.5})
