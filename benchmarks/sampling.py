"""Sampling a group of answers against `model.generate(num_return_sequences=G)` on the same prepared prompts."""

from __future__ import annotations

from itertools import count
from typing import Any

from benchmarks import limits
from benchmarks.grpo import PROMPTS, grid, step_questions
from benchmarks.harness import Record, record
from benchmarks.sides import Pause, Point, Stopwatch, compare

GRID = {"group": (4, 8), "image_tokens": (64, 256, 576), "completion_tokens": (8, 32, 128)}
QUICK = {"group": (8,), "image_tokens": (64, 256), "completion_tokens": (8, 32)}


def run(quick: bool, repeats: int) -> list[Record]:
    """Records of every grid point."""
    records = []
    for point in grid(QUICK if quick else GRID):
        mine, peer = compare(point, repeats, ours, generate_side)
        records.append(
            record(
                "sampling",
                point,
                mine.median("sampling"),
                "model.generate",
                peer.median("sampling"),
                package="transformers",
                repeats=repeats,
                peaks=(mine.peak_mib, peer.peak_mib),
                **limits.keys(limits.sampling(point, PROMPTS)),
            )
        )
    return records


def ours(point: Point, pause: Pause) -> None:
    """The product's `generate`."""
    from benchmarks.ours import load, render
    from mbpo_core.generation.generate import generate

    policy = load(point["image_tokens"])
    pause.loaded()
    tokens, watch = point["completion_tokens"], Stopwatch()
    options: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens, "temperature": 1.0}
    for step in count():
        prompts = render(policy, step_questions(point, step))
        seeds = [PROMPTS * step + index for index in range(PROMPTS)]
        with watch.phase("sampling"):
            answers = generate(policy, prompts, completions=point["group"], seeds=seeds, **options)
        assert all(len(answer.token_ids) == tokens for several in answers for answer in several)
        if not pause(watch.take()):
            return


def generate_side(point: Point, pause: Pause) -> None:
    """transformers' `generate`, told everything that it would otherwise look up or warn about."""
    import torch

    from benchmarks.ours import load, render

    policy = load(point["image_tokens"])
    pause.loaded()
    tokens, watch = point["completion_tokens"], Stopwatch()
    for step in count():
        torch.manual_seed(step)
        prompts = render(policy, step_questions(point, step))
        ids = torch.tensor([prompt.token_ids for prompt in prompts])
        pixels = torch.stack([image.pixel_values for prompt in prompts for image in prompt.images])
        with watch.phase("sampling"), torch.no_grad():
            sampled = policy.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=pixels,
                do_sample=True,
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                num_return_sequences=point["group"],
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                suppress_tokens=policy.banned_token_ids,
            )
            texts = policy.tokenizer.batch_decode(sampled[:, ids.shape[1] :], skip_special_tokens=True)
        assert sampled.shape[1] == ids.shape[1] + tokens
        assert len(texts) == PROMPTS * point["group"]
        if not pause(watch.take()):
            return
