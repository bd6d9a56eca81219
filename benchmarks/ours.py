"""Our side of the training benchmarks: the product's own calls, in the order in which its stages make them."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import torch

from benchmarks.models import Question, model_folder
from benchmarks.sides import Pause, Point, Stopwatch
from mbpo_core.config import PolicyConfig, TrainingConfig
from mbpo_core.generation.generate import generate
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.objectives.advantages import group_advantages
from mbpo_core.objectives.normalization import completion_weights
from mbpo_core.objectives.passes import CHOSEN, REJECTED, SAMPLED
from mbpo_core.training.engine import TrainingEngine
from mbpo_core.training.looks import Look
from mbpo_core.training.losses import micro_loss
from mbpo_core.training.micro import MicroBatch
from mbpo_core.training.plan import needs_reference
from mbpo_core.training.scorer import Scorer
from mbpo_core.training.world import join_world

LEARNING_RATE = 1e-6


def load(image_tokens: int) -> Policy:
    """The benchmark's model as the product loads it."""
    folder = model_folder(image_tokens)
    return load_policy(folder, PolicyConfig(model=str(folder), device="cpu"))


def render(policy: Policy, questions: list[Question]) -> list[Prompt]:
    """Prompts from texts and picture files."""
    return [policy.prepare(text, [open_image({"bytes": png})]) for text, png in questions]


class Trainer:
    """What training does with groups: score them under the reference, then one update."""

    def __init__(self, policy: Policy, reference: Policy | None, config: TrainingConfig) -> None:
        self._config = config
        self._reference = None if reference is None else Scorer(reference)
        self._engine = TrainingEngine(policy, config, join_world(policy.device))

    def score(self, groups: list[PromptGroup]) -> torch.Tensor | None:
        """(B, T) reference log-probs; None without a reference."""
        if self._reference is None:
            return None
        with torch.no_grad():
            return self._reference([_look(groups)], 1.0)[0].logprobs

    def update(self, groups: list[PromptGroup], advantages: torch.Tensor, reference: torch.Tensor | None) -> None:
        """Forward, loss, backward and optimizer over all groups at once."""
        lengths = [[len(tokens) for tokens in group.completions] for group in groups]
        flat = torch.tensor([length for group in lengths for length in group])
        mask = torch.arange(int(flat.max()))[None, :] < flat[:, None]
        shares = completion_weights(lengths, [1.0] * len(groups), self._config.normalization)
        online = groups[0].source == "online"
        rollout = [torch.tensor(row) for group in groups for row in group.rollout_logprobs or []]
        batch = MicroBatch(
            source=groups[0].source,
            looks=[_look(groups)],
            advantages=advantages,
            weights=torch.tensor([share for group in shares for share in group]),
            mask=mask,
            counted=mask,
            group_weights=torch.full((len(groups),), 1 / len(groups)),
            pairs_counted=torch.ones(len(groups), dtype=torch.bool),
            masks={} if online else {"chosen": mask[0::2], "rejected": mask[1::2]},
            first_reference=reference,
            rollout=torch.nn.utils.rnn.pad_sequence(rollout, batch_first=True) if online else None,
        )
        known = None if reference is None else batch.by_pass([reference])
        scored = self._engine.score(batch.looks, batch.temperature)
        loss, _ = micro_loss(replace(batch, reference=known), scored, self._config)
        self._engine.backward(loss)
        self._engine.step(LEARNING_RATE)


def _look(groups: list[PromptGroup]) -> Look:
    passes = (SAMPLED,) if groups[0].source == "online" else (CHOSEN, REJECTED)
    return Look(passes, groups, None, grad=True)


def rewards(completions: int) -> list[float]:
    """Rewards that differ within a group, the same on both sides."""
    return [float(index % 3 == 0) + 0.2 * (index % 2) for index in range(completions)]


def grpo(point: Point, pause: Pause) -> None:
    """GRPO steps: phases sampling, scoring and update."""
    from benchmarks.grpo import PROMPTS, step_questions

    policy = load(point["image_tokens"])
    pause.loaded()
    beta, group, tokens = point["beta"], point["group"], point["completion_tokens"]
    reference = load(point["image_tokens"]) if beta else None
    config = TrainingConfig(objective="none", beta=beta, max_drop=0.0, learning_rate=LEARNING_RATE)
    assert needs_reference(config) == bool(beta)  # TRL makes no reference pass at beta 0 either
    trainer = Trainer(policy, reference, config)
    advantages = group_advantages(torch.tensor([rewards(group)] * PROMPTS)).flatten()
    watch = Stopwatch()
    for step in count():
        with watch.phase("sampling"):
            prompts = render(policy, step_questions(point, step))
            seeds = [PROMPTS * step + index for index in range(PROMPTS)]
            options: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens, "temperature": 1.0}
            answers = generate(policy, prompts, completions=group, seeds=seeds, **options)
        with watch.phase("scoring"):
            groups = [
                PromptGroup(
                    prompt,
                    [answer.token_ids for answer in several],
                    source="online",
                    rewards=rewards(group),
                    rollout_logprobs=[answer.logprobs for answer in several],
                )
                for prompt, several in zip(prompts, answers, strict=True)
            ]
            known = trainer.score(groups)
        with watch.phase("update"):
            trainer.update(groups, advantages, known)
        assert all(len(row) == tokens for each in groups for row in each.completions)
        if not pause(watch.take()):
            return


def pairs(point: Point, pause: Pause) -> None:
    """DPO steps on offline pairs: phases scoring and update."""
    from benchmarks.pairs import step_pairs

    policy = load(point["image_tokens"])
    pause.loaded()
    config = TrainingConfig(objective="dpo", dpo_beta=0.1, learning_rate=LEARNING_RATE)
    trainer = Trainer(policy, load(point["image_tokens"]), config)
    watch = Stopwatch()
    for step in count():
        with watch.phase("scoring"):
            taken = step_pairs(point, step)
            prompts = render(policy, [pair.question for pair in taken])
            groups = [
                PromptGroup(prompt, [policy.encode_completion(pair.chosen), policy.encode_completion(pair.rejected)])
                for prompt, pair in zip(prompts, taken, strict=True)
            ]
            known = trainer.score(groups)
        with watch.phase("update"):
            trainer.update(groups, torch.zeros(2 * len(groups)), known)
        if not pause(watch.take()):
            return
