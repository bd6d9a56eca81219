"""What a step must at least compute, and how fast this machine multiplies: the bound that no code can beat.

Counted are the matrix products of the forward and backward passes that cannot be left out: every distinct image is
encoded once a phase, every prompt read once, every completion token once, a (query, key) pair only where attention
may look, the vocabulary projected at completion tokens only, and of a prompt nothing in the last layer but keys and
values, save at its last token. A product of (m, k) and (k, n) is 2 m k n operations.
Frozen parts have no backward pass. Softmax, norms, optimizer, Python and memory traffic cost nothing here.
"""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.models import model_folder
from benchmarks.sides import Point

OVERHEAD_TOKENS = 15
"""Prompt tokens besides the image: the chat template and eight words."""


@cache
def gflops() -> float:
    """Billions of operations a second in a float32 product of 1,024 x 1,024 matrices, one thread, best of 20."""
    import torch

    torch.set_num_threads(1)
    left, right = torch.rand(2, 1024, 1024)
    best = float("inf")
    for _ in range(20):
        start = time.process_time()
        torch.mm(left, right)
        best = min(best, time.process_time() - start)
    return 2 * 1024**3 / best / 1e9


@cache
def gbytes() -> float:
    """Billions of bytes a second read and written by copying 256 MiB, one thread, best of 10."""
    import torch

    torch.set_num_threads(1)
    source = torch.rand(64 * 2**20)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        start = time.process_time()
        target.copy_(source)
        best = min(best, time.process_time() - start)
    return 2 * source.nbytes / best / 1e9


class Need(NamedTuple):
    """What a step cannot do without."""

    operations: float
    bytes: float

    def __add__(self, other: Need) -> Need:  # type: ignore[override]
        return Need(self.operations + other.operations, self.bytes + other.bytes)


def keys(need: Need) -> dict[str, float]:
    """What a record says about its bound."""
    seconds = max(need.operations / gflops(), need.bytes / gbytes()) / 1e9
    return {
        "ideal_gflop": round(need.operations / 1e9, 3),
        "ideal_mib": round(need.bytes / 2**20, 1),
        "ideal_s": round(seconds, 5),
    }


def grpo(point: Point, prompts: int) -> dict[str, Need]:
    """Operations and bytes of each phase of a GRPO step."""
    model = _Model(point["image_tokens"])
    group, tokens = point["group"], point["completion_tokens"]
    # The last sampled token is never read, and the first comes from the prompt's own logits.
    sampling = model.vision + model.read() + group * model.extend(model.prompt, tokens - 1)
    sampling += (1 + group * (tokens - 1)) * model.head
    scoring = model.score(group, tokens)
    past = sum(model.prompt + group * step for step in range(1, tokens))
    read = model.tower_bytes + tokens * model.language_bytes + prompts * past * model.key_bytes
    return {
        "sampling": Need(prompts * sampling, read),
        "scoring": Need(prompts * (model.vision + scoring), model.all_bytes) if point["beta"] else Need(0.0, 0.0),
        "update": Need(prompts * (model.vision + 3 * scoring), model.update_bytes),
    }


def pairs(point: Point, count: int) -> Need:
    """A DPO step: reference, forward, backward, optimizer."""
    model = _Model(point["image_tokens"])
    operations = count * (2 * model.vision + 4 * model.score(2, point["completion_tokens"]))
    return Need(operations, model.all_bytes + model.update_bytes)


def attack(point: Point, images: int, steps: int) -> Need:
    """An attack: forward through everything, and the gradient of the activations alone."""
    model = _Model(point["image_tokens"])
    one = 2 * (model.vision + model.score(1, point["completion_tokens"]))
    return Need(images * steps * one, steps * 2 * model.all_bytes)


def sampling(point: Point, prompts: int) -> Need:
    """Sampling alone."""
    return grpo({**point, "beta": 0.0}, prompts)["sampling"]


class _Model:
    """Operations and bytes of the parts of a benchmark model; tokens of its prompts."""

    def __init__(self, image_tokens: int) -> None:
        config = json.loads(Path(model_folder(image_tokens), "config.json").read_text(encoding="utf-8"))
        text, vision = config["text_config"], config["vision_config"]
        self.prompt = image_tokens + OVERHEAD_TOKENS
        self.head = 2.0 * text["hidden_size"] * text["vocab_size"]
        self._token = 2.0 * text["num_hidden_layers"] * _layer(text, 3)
        self._pair = 4.0 * text["num_hidden_layers"] * text["hidden_size"]
        self._last = 2.0 * (_layer(text, 3) - 2 * text["hidden_size"] ** 2)
        self._last_pair = 4.0 * text["hidden_size"]
        seen, wide = image_tokens + 1, vision["hidden_size"]
        self.vision = seen * 2.0 * vision["num_hidden_layers"] * _layer(vision, 2)
        self.vision += seen * seen * 4.0 * vision["num_hidden_layers"] * wide
        self.vision += image_tokens * 2.0 * (3 * vision["patch_size"] ** 2 * wide)
        self.vision += image_tokens * 2.0 * (wide * text["hidden_size"] + text["hidden_size"] ** 2)

        matrices = (
            vision["num_hidden_layers"] * _layer(vision, 2) + wide * text["hidden_size"] + text["hidden_size"] ** 2
        )
        self.tower_bytes = 4.0 * (matrices + 3 * vision["patch_size"] ** 2 * wide)
        self.language_bytes = 4.0 * (
            text["num_hidden_layers"] * _layer(text, 3) + text["hidden_size"] * text["vocab_size"]
        )
        self.key_bytes = 8.0 * text["num_hidden_layers"] * text["hidden_size"]  # keys and values of a token
        self.all_bytes = self.tower_bytes + self.language_bytes
        # Read forward and backward; gradients written; AdamW reads weight, gradient and two moments, writes three.
        self.update_bytes = 2 * self.all_bytes + 8 * self.language_bytes

    def read(self) -> float:
        """The prompt, as far as what follows it needs."""
        return self.extend(0, self.prompt) - (self.prompt - 1) * self._last - self.prompt**2 / 2 * self._last_pair

    def extend(self, before: int, tokens: int) -> float:
        """Tokens that follow `before` others: each looks at those, at its elders and at itself."""
        return tokens * self._token + (tokens * before + tokens * (tokens + 1) / 2) * self._pair

    def score(self, group: int, tokens: int) -> float:
        """A prompt with `group` completions of `tokens`, the last token of each not read."""
        read = self.read() + group * self.extend(self.prompt, tokens - 1)
        return read + group * tokens * self.head


def _layer(config: dict[str, Any], projections: int) -> float:
    """Weights of one layer's matrices: four of attention, two or three of the MLP."""
    width = config["hidden_size"]
    return 4.0 * width**2 + projections * width * config["intermediate_size"]
