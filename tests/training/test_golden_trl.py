"""Our losses, gradients and updates against TRL's, number by number, on the same canned completions.

The other side is `golden/trl.json`, written by `make golden` where TRL is installed. Two of TRL's conventions are
followed here rather than ours: advantages are divided by the sample standard deviation, and image placeholders are
part of the softmax. One of TRL's defaults is switched off: `use_bias_correction_kl`, which multiplies k3 by the ratio.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mbpo_core.config import PolicyConfig, TrainingConfig
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.objectives.advantages import group_advantages
from mbpo_core.objectives.normalization import completion_weights
from mbpo_core.training.engine import TrainingEngine
from mbpo_core.training.losses import MicroBatch, micro_loss
from mbpo_core.training.scorer import pad
from mbpo_core.training.world import join_world
from tests.models.tiny import save_tiny
from tests.training.golden import canned
from tests.training.golden.canned import Setting

TOLERANCE = 1e-5
EPS = 1e-4  # TRL adds it to the standard deviation
NORMALIZATION = {"grpo": "sequence", "dr_grpo": "constant", "dapo": "token"}


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
    return TrainingConfig(learning_rate=canned.LEARNING_RATE, max_drop=0.0, freeze="vision", **settings)


def scored(policy: Policy, groups: list[PromptGroup]) -> Tensor:
    """(B, T) log-probs without gradient, nats."""
    return pad([row for rows in group_logprobs(policy, groups) for row in rows])


def advantages(rewards: list[list[float]], setting: Setting) -> Tensor:
    """(P * G,) with TRL's divisor; Dr. GRPO has none, and there our own function says the same."""
    values = torch.tensor(rewards)
    if setting.loss_type == "dr_grpo":
        return group_advantages(values, scale_by_std=False).flatten()
    centred = values - values.mean(dim=1, keepdim=True)
    return (centred / (values.std(dim=1, keepdim=True) + EPS)).flatten()


def micro_batch(
    groups: list[PromptGroup], advantage: Tensor, weights: list[float], reference: Tensor, rollout: Tensor | None
) -> MicroBatch:
    """All rows of a step."""
    lengths = torch.tensor([len(tokens) for group in groups for tokens in group.completions])
    mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    source = "offline" if rollout is None else "online"
    return MicroBatch(source, groups, advantage, torch.tensor(weights), mask, mask, reference, rollout)


def update(engine: TrainingEngine, batch: MicroBatch, settings: TrainingConfig) -> tuple[dict[str, float], Tensor]:
    """One update: its figures, and the log-probs before it."""
    logprobs = engine.score(batch.groups, 1.0)
    loss, sums = micro_loss(batch, logprobs, settings)
    engine.backward(loss)
    norm = engine.step(canned.LEARNING_RATE)
    tokens = sums["tokens"]
    figures = {"loss": float(loss.detach()), "kl": sums["kl"] / tokens, "clipped": sums["clipped"] / tokens}
    return {**figures, "grad_norm": norm}, logprobs.detach()


def sums(engine: TrainingEngine) -> dict[str, list[float]]:
    """Sum and absolute sum of every trained tensor."""
    return {name: [float(w.double().sum()), float(w.double().abs().sum())] for name, w in engine.weights()}


def grpo_batches(folder: Path, setting: Setting) -> Iterator[tuple[list[PromptGroup], Tensor]]:
    """Groups and advantages of each batch of the three updates."""
    count = canned.STEPS * canned.PROMPTS_PER_STEP
    rendered, rewards, completions = (
        prompts(folder, count),
        canned.rewards(count),
        golden()["grpo_tokens"]["completions"],
    )
    for start in range(0, count, canned.PROMPTS_PER_STEP):
        taken = slice(start, start + canned.PROMPTS_PER_STEP)
        pairs = zip(rendered[taken], completions[taken], strict=True)
        groups = [PromptGroup(prompt, group, source="online") for prompt, group in pairs]
        yield groups, advantages(rewards[taken], setting)


def train_grpo(folder: Path, setting: Setting) -> Trained:
    """What TRL did, by our engine: mu updates on a batch, the ratio's denominator recorded before the first."""
    policy, reference = load(folder), load(folder)
    mode = NORMALIZATION[setting.loss_type]
    settings = config(beta=setting.beta, clip_low=canned.CLIP, clip_high=setting.clip_high, normalization=mode)
    engine = TrainingEngine(policy, settings, join_world(policy.device, 60))
    steps: list[dict[str, float]] = []
    for groups, advantage in grpo_batches(folder, setting):
        lengths = [[len(tokens) for tokens in group.completions] for group in groups]
        shares = completion_weights(lengths, [1.0] * len(groups), mode, constant_length=canned.MAX_COMPLETION)
        weights = [share for group in shares for share in group]
        batch = micro_batch(groups, advantage, weights, scored(reference, groups), scored(policy, groups))
        left = canned.STEPS - len(steps)
        steps += [update(engine, batch, settings)[0] for _ in range(min(setting.iterations, left))]
        if len(steps) == canned.STEPS:
            break
    result = Trained(steps, sums(engine))
    engine.close()
    return result


def train_dpo(folder: Path) -> Trained:
    """What DPOTrainer did, by our engine, on the token ids that TRL made."""
    policy, reference = load(folder), load(folder)
    settings = config(objective="dpo", dpo_beta=canned.DPO_BETA)
    engine = TrainingEngine(policy, settings, join_world(policy.device, 60))
    rendered = prompts(folder, canned.STEPS * canned.PAIRS_PER_STEP)
    steps = []
    for number, tokens in enumerate(golden()["dpo"]["tokens"]):
        start = number * canned.PAIRS_PER_STEP
        sides = zip(rendered[start : start + canned.PAIRS_PER_STEP], tokens["chosen"], tokens["rejected"], strict=True)
        groups = [PromptGroup(prompt, [chosen, rejected]) for prompt, chosen, rejected in sides]
        count = 2 * len(groups)
        known = scored(reference, groups)
        batch = micro_batch(groups, torch.zeros(count), [1 / len(groups)] * count, known, None)
        figures, logprobs = update(engine, batch, settings)
        gain = (logprobs - known).sum(dim=1)
        whole = logprobs.sum(dim=1)
        figures |= {"chosen": whole[0::2].mean().item(), "rejected": whole[1::2].mean().item()}
        steps.append({**figures, "margin": canned.DPO_BETA * (gain[0::2] - gain[1::2]).mean().item()})
    result = Trained(steps, sums(engine))
    engine.close()
    return result


def compare(ours: Trained, theirs: dict[str, Any], floors: dict[str, float]) -> None:
    """Every figure within 1e-5 of TRL's; where it may vanish, of its `floors`. Sums of weights within 1e-6."""
    for number, (mine, expected) in enumerate(zip(ours.steps, theirs["steps"], strict=True)):
        for name, value in expected.items():
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


@pytest.mark.parametrize("setting", canned.SETTINGS, ids=[setting.name for setting in canned.SETTINGS])
def test_grpo(folder: Path, setting: Setting) -> None:
    # On policy the loss is a sum of advantages, of about 1 each, that nearly cancel; k3 starts at 0.
    compare(train_grpo(folder, setting), golden()["grpo"][setting.name], {"loss": 0.05, "kl": 0.005})


def test_some_tokens_are_clipped() -> None:
    """Otherwise the comparison would say nothing about clipping."""
    for setting in canned.SETTINGS:
        clipped = [step["clipped"] for step in golden()["grpo"][setting.name]["steps"]]
        assert any(0.05 < share < 0.95 for share in clipped) == (setting.iterations > 1)


def test_dpo(folder: Path) -> None:
    compare(train_dpo(folder), golden()["dpo"], {"margin": 0.5})
