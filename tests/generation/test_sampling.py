"""Inverse-CDF sampling on a tiny vocabulary, where every probability can be counted."""

from __future__ import annotations

import pytest
import torch

from mbpo_core.generation.sampling import draw_uniforms, sample

PROBABILITIES = torch.tensor([0.1, 0.0, 0.4, 0.3, 0.2])


def _frequencies(top_p: float) -> list[float]:
    # An even grid instead of random numbers: frequencies are exact up to one in 10,000.
    uniforms = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    tokens = sample(PROBABILITIES.log().expand(10_000, -1), uniforms, top_p)
    return (torch.bincount(tokens, minlength=5) / 10_000).tolist()


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (1.0, [0.1, 0.0, 0.4, 0.3, 0.2]),
        (0.9, [0.0, 0.0, 4 / 9, 3 / 9, 2 / 9]),
        (0.8, [0.0, 0.0, 4 / 9, 3 / 9, 2 / 9]),
        (0.7, [0.0, 0.0, 4 / 7, 3 / 7, 0.0]),
        (0.1, [0.0, 0.0, 1.0, 0.0, 0.0]),
    ],
)
def test_frequencies(top_p: float, expected: list[float]) -> None:
    assert _frequencies(top_p) == pytest.approx(expected, abs=2e-4)


def test_the_ends_of_the_interval_are_safe() -> None:
    uniforms = torch.tensor([0.0, 1.0 - 2**-53], dtype=torch.float64)
    probabilities = torch.tensor([0.0, 0.5, 0.5, 0.0])
    assert sample(probabilities.log().expand(2, -1), uniforms, 1.0).tolist() == [1, 2]


def test_uniforms_belong_to_their_prompt() -> None:
    drawn = draw_uniforms([7, 8, 7], completions=2, steps=5)
    assert drawn.shape == (6, 5)
    assert torch.equal(drawn[:2], drawn[4:])
    assert not torch.equal(drawn[:2], drawn[2:4])
    assert torch.equal(draw_uniforms([8], completions=2, steps=9)[:, :5], drawn[2:4])
