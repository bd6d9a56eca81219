"""What TRL and our own code are both given: prompts, pictures, completions, rewards, all from one fixed rule.

Nothing here is drawn from a library's random numbers, so the rule holds across versions. `python -m
benchmarks.golden` (the environment where TRL is installed) feeds it to TRL and writes `trl.json`;
`tests/training/test_golden_trl.py` feeds it to our code and compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
from PIL import Image

MODEL_SEED = 11
STEPS = 3
PROMPTS_PER_STEP = 2
GROUP = 4
PAIRS_PER_STEP = 4
MAX_COMPLETION = 12
LEARNING_RATE = 3e-4
DPO_BETA = 0.1
CLIP = 0.1
DAPO_CLIP_HIGH = 0.14

_SUBJECTS = ("banana", "cat", "dog", "color", "the dog, the cat", "the banana")
_WORDS = ("yellow", "Yes", "No", "the cat", "the dog", "A B C", "banana 1 2 3", "What color", "The banana is yellow.")


class Setting(NamedTuple):
    """One way of training by GRPO: TRL's loss type, KL weight, updates on each batch."""

    loss_type: str
    beta: float
    iterations: int

    @property
    def clip_high(self) -> float:
        """How far the ratio may rise: DAPO allows more."""
        return DAPO_CLIP_HIGH if self.loss_type == "dapo" else CLIP

    @property
    def name(self) -> str:
        """As it stands in the file."""
        return f"{self.loss_type}-beta{self.beta}-mu{self.iterations}"


SETTINGS = [Setting(*values) for values in product(("grpo", "dr_grpo", "dapo"), (0.0, 0.04), (1, 2))]


def questions(count: int) -> list[str]:
    """Questions that all differ."""
    return [f"What color is the {_SUBJECTS[index % len(_SUBJECTS)]} {index}?" for index in range(count)]


def pictures(count: int, size: int = 48) -> list[Image.Image]:
    """RGB pictures that all differ: coloured tiles of 6 x 6 pixels."""
    drawn = []
    for values in _numbers(count, (size // 6) ** 2 * 3, start=101):
        tiles = np.array(values).reshape(size // 6, size // 6, 3) % 256
        drawn.append(Image.fromarray(tiles.repeat(6, axis=0).repeat(6, axis=1).astype(np.uint8)))
    return drawn


def completions(prompts: int, vocabulary: int, eos: int) -> list[list[list[int]]]:
    """[prompts][GROUP] token ids of 3 to 12 tokens; every other one ends in EOS, no other token is special."""
    groups = []
    for index, values in enumerate(_numbers(prompts * GROUP, MAX_COMPLETION, start=7)):
        length = 3 + (7 * index) % (MAX_COMPLETION - 2)
        tokens = [5 + value % (vocabulary - 5) for value in values[:length]]
        groups.append([*tokens[:-1], eos] if index % 2 else tokens)
    return [groups[start : start + GROUP] for start in range(0, len(groups), GROUP)]


def rewards(prompts: int) -> list[list[float]]:
    """[prompts][GROUP] rewards as a verifier gives them; no group has equal ones."""
    patterns = ([1.2, 0.0, 0.0, 0.2], [0.2, 1.2, 1.2, 0.0], [0.0, 1.0, 0.2, 1.2], [1.2, 1.2, 1.2, 0.0])
    return [list(patterns[index % len(patterns)]) for index in range(prompts)]


def answers(pairs: int) -> list[tuple[str, str]]:
    """(chosen, rejected) texts."""
    return [
        (_WORDS[index % len(_WORDS)], " ".join((_WORDS[(3 * index + 1) % len(_WORDS)], _WORDS[(index + 4) % 9])))
        for index in range(pairs)
    ]


def _numbers(rows: int, columns: int, start: int) -> Iterator[list[int]]:
    """A linear congruential generator: the same numbers everywhere and for ever."""
    state = start
    for _ in range(rows):
        row = []
        for _ in range(columns):
            state = (1103515245 * state + 12345) % 2**31
            row.append(state >> 12)
        yield row
