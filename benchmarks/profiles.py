"""Where our own time goes: shares of one step by kind of operation, as torch's profiler counts them.

python -m benchmarks.profiles        prints the table and writes profiles.json
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.sides import Point

PROFILES = Path(__file__).with_name("profiles.json")

KINDS: dict[str, tuple[str, ...]] = {
    "matrix products": (
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::mkldnn_convolution",
        "aten::convolution_backward",
    ),
    "attention": (
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
}

POINTS: tuple[tuple[str, Point], ...] = (
    ("scoring + update", {"group": 8, "image_tokens": 256, "completion_tokens": 8}),
    ("scoring + update", {"group": 8, "image_tokens": 256, "completion_tokens": 128}),
    ("sampling", {"group": 8, "image_tokens": 256, "completion_tokens": 8}),
    ("sampling", {"group": 8, "image_tokens": 256, "completion_tokens": 128}),
    ("mining", {"group": 1, "image_tokens": 64, "completion_tokens": 8}),
    ("mining", {"group": 1, "image_tokens": 256, "completion_tokens": 8}),
)


def measure() -> list[dict[str, Any]]:
    """One row for each of `POINTS`: shares of the step's CPU time."""
    steps = {"scoring + update": _training, "sampling": _sampling, "mining": _mining}
    return [{"step": name, **point, **_shares(steps[name](point))} for name, point in POINTS]


def _shares(step: Callable[[], object]) -> dict[str, float]:
    from torch.profiler import ProfilerActivity, profile

    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    times = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    total = sum(times.values())
    shares = {kind: sum(times.get(name, 0.0) for name in names) / total for kind, names in KINDS.items()}
    return {kind: round(share, 3) for kind, share in {**shares, "everything else": 1 - sum(shares.values())}.items()}


def _training(point: Point) -> Callable[[], object]:
    import torch

    from benchmarks.grpo import PROMPTS
    from benchmarks.ours import LEARNING_RATE, Trainer, load, rewards
    from mbpo_core.config import TrainingConfig
    from mbpo_core.objectives.advantages import group_advantages

    policy, groups = _sampled(point)
    config = TrainingConfig(objective="none", beta=0.04, max_drop=0.0, learning_rate=LEARNING_RATE)
    trainer = Trainer(policy, load(point["image_tokens"]), config)
    advantages = group_advantages(torch.tensor([rewards(point["group"])] * PROMPTS)).flatten()
    return lambda: trainer.update(groups, advantages, trainer.score(groups))


def _sampled(point: Point) -> tuple[Any, list[Any]]:
    from benchmarks.grpo import step_questions
    from benchmarks.ours import load, render, rewards
    from mbpo_core.models.groups import PromptGroup

    policy = load(point["image_tokens"])
    prompts = render(policy, step_questions(point, 0))
    answers = _answers(policy, prompts, point)
    return policy, [
        PromptGroup(
            prompt,
            [one.token_ids for one in several],
            source="online",
            rewards=rewards(point["group"]),
            rollout_logprobs=[one.logprobs for one in several],
        )
        for prompt, several in zip(prompts, answers, strict=True)
    ]


def _answers(policy: Any, prompts: list[Any], point: Point) -> Any:
    from mbpo_core.generation.generate import generate

    length = point["completion_tokens"]
    options: dict[str, Any] = {"max_new_tokens": length, "min_new_tokens": length, "temperature": 1.0}
    return generate(policy, prompts, completions=point["group"], seeds=range(len(prompts)), **options)


def _sampling(point: Point) -> Callable[[], object]:
    from benchmarks.grpo import step_questions
    from benchmarks.ours import load, render

    policy = load(point["image_tokens"])
    prompts = render(policy, step_questions(point, 0))
    return lambda: _answers(policy, prompts, point)


def _mining(point: Point) -> Callable[[], object]:
    from benchmarks import mining
    from mbpo_core.config import NegativesConfig
    from mbpo_core.negatives.attack import attack

    task = mining._Task(point)
    items = task.items(0)
    settings = NegativesConfig(epsilon=mining.EPSILON, step_size=mining.STRIDE, steps=2, random_start=False)
    return lambda: attack(task.policy, items, settings)


def main() -> None:
    """Command line."""
    rows = measure()
    PROFILES.write_text("[\n " + ",\n ".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")
    for row in rows:
        print(
            ", ".join(
                f"{key} {value:.0%}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
        )


if __name__ == "__main__":
    main()
