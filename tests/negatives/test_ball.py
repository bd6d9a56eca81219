"""Geometry of the attack, in levels of 1/255."""

from __future__ import annotations

import pytest
import torch

from mbpo_core.negatives.ball import Ball, to_levels

SHAPE = torch.Size([3, 3, 8, 8])


def test_levels_of_a_multiple_of_one_255th_are_whole() -> None:
    assert [to_levels(k / 255) for k in range(256)] == [float(k) for k in range(256)]
    assert to_levels(0.0314) == pytest.approx(8.007)


@pytest.mark.parametrize("radius", [8.0, 8.7, 0.4, 0.0])
def test_linf_round_stays_inside_and_near(radius: float) -> None:
    ball = Ball("linf", radius)
    delta = (torch.rand(SHAPE) * 2 - 1) * radius
    rounded = ball.round(delta)
    assert torch.equal(rounded, rounded.round())
    assert ball.sizes(rounded).max() <= radius
    assert (rounded - delta).abs().max() <= max(0.5, radius % 1) + 1e-6


@pytest.mark.parametrize("radius", [40.0, 13.3, 2.0, 0.0])
def test_l2_round_stays_inside_and_loses_little(radius: float) -> None:
    ball = Ball("l2", radius)
    delta = ball.project(torch.randn(SHAPE) * 10)
    assert ball.sizes(delta).tolist() == pytest.approx([radius] * 3, rel=1e-5)
    rounded = ball.round(delta)
    assert torch.equal(rounded, rounded.round())
    assert ball.sizes(rounded).max() <= radius
    if radius >= 40:  # about three levels a pixel: rounding costs a few per cent
        assert ball.sizes(rounded).min() > 0.95 * radius


def test_projection_keeps_what_is_inside() -> None:
    inside = torch.full(SHAPE, 0.5)
    for ball in (Ball("linf", 1.0), Ball("l2", 8.0)):
        torch.testing.assert_close(ball.project(inside), inside)


def test_directions_have_unit_size() -> None:
    gradient = torch.randn(SHAPE)
    gradient[1] = 0
    assert Ball("l2", 1.0).sizes(Ball("l2", 1.0).direction(gradient)).tolist() == pytest.approx([1, 0, 1], abs=1e-6)
    assert Ball("linf", 1.0).direction(gradient).unique().tolist() == [-1, 0, 1]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_start_is_random_whole_and_inside(norm: str) -> None:
    ball = Ball(norm, 30.5)  # type: ignore[arg-type]
    first, second = (ball.start(SHAPE, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(first, ball.start(SHAPE, torch.Generator().manual_seed(0)))
    assert not torch.equal(first, second)
    assert torch.equal(first, first.round())
    assert 0 < ball.sizes(first).min() <= ball.sizes(first).max() <= 30.5
    if norm == "linf":
        assert (first.min(), first.max()) == (-30, 30)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_start_stays_in_its_region_and_fills_the_ball_there(norm: str) -> None:
    ball = Ball(norm, 30.5)  # type: ignore[arg-type]
    region = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    region[:2, :, 2:5, 1:7] = True
    starts = [ball.start(SHAPE, torch.Generator().manual_seed(seed), region) for seed in range(20)]
    for start in starts:
        assert not start[~region.expand(SHAPE)].any()
        assert torch.equal(start, start.round())
    sizes = torch.stack([ball.sizes(start) for start in starts])
    assert (sizes[:, :2] > 20).all(), "most of a ball of many dimensions is near its surface"
    assert sizes.max() <= 30.5
    assert not sizes[:, 2].any(), "no pixel of the third image may change"
