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
from typing import Any

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


def keys(operations: float) -> dict[str, float]:
    """What a record says about its bound."""
    return {"ideal_gflop": round(operations / 1e9, 3), "ideal_s": round(operations / gflops() / 1e9, 5)}


def grpo(point: Point, prompts: int) -> dict[str, float]:
    """Operations of each phase of a GRPO step."""
    model = _Model(point["image_tokens"])
    group, tokens = point["group"], point["completion_tokens"]
    # The last sampled token is never read, and the first comes from the prompt's own logits.
    sampling = model.vision + model.read() + group * model.extend(model.prompt, tokens - 1)
    sampling += (1 + group * (tokens - 1)) * model.head
    scoring = model.score(group, tokens)
    return {
        "sampling": prompts * sampling,
        "scoring": prompts * (model.vision + scoring) if point["beta"] else 0.0,
        "update": prompts * (model.vision + 3 * scoring),
    }


def pairs(point: Point, count: int) -> float:
    """Operations of a DPO step: reference, forward, backward."""
    model = _Model(point["image_tokens"])
    return count * (2 * model.vision + 4 * model.score(2, point["completion_tokens"]))


def attack(point: Point, images: int, steps: int) -> float:
    """Operations of an attack: forward through everything, and the gradient of the activations alone."""
    model = _Model(point["image_tokens"])
    return images * steps * 2 * (model.vision + model.score(1, point["completion_tokens"]))


def sampling(point: Point, prompts: int) -> float:
    """Operations of sampling alone."""
    return grpo({**point, "beta": 0.0}, prompts)["sampling"]


class _Model:
    """Operations of the parts of a benchmark model; tokens of its prompts."""

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
