"""Intersection over union, worked out by hand."""

from __future__ import annotations

import pytest

from mbpo_core.verifiers.box import Box, iou
from mbpo_core.verifiers.registry import verify


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),  # 1 of 4 + 4 - 1
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),  # 2 of 4 + 4 - 2
        ((0, 0, 4, 4), (1, 1, 3, 3), 4 / 16),  # inside
        ((0, 0, 4, 1), (0, 0, 1, 4), 1 / 7),  # a cross
        ((0, 0, 2, 2), (2, 0, 4, 2), 0.0),  # they touch
        ((0, 0, 2, 2), (5, 5, 7, 7), 0.0),  # apart on both axes: a negative width times a negative height is no area
        ((0.1, 0.1, 0.3, 0.2), (0.2, 0.1, 0.3, 0.2), 0.5),
    ],
)
def test_iou(first: Box, second: Box, expected: float) -> None:
    assert iou(first, second) == pytest.approx(expected, abs=1e-12)


def test_the_reason_tells_the_overlap() -> None:
    judgement = verify("box", "[1, 0, 3, 2]", "[0, 0, 2, 2]")
    assert judgement.reason == "IoU 0.333 with the reference answer [0, 0, 2, 2], below 0.5"
