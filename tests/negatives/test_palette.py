"""Tones of regions, painting, and what the data's colour words look like."""

from __future__ import annotations

import colorsys

import pytest
import torch

from mbpo_core.demo.objects import COLORS
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.palette import Tone, learn_palette, repaint, to_hsv, to_rgb, tone_of
from tests.negatives.benches import bench_of

GRID = torch.tensor([(r, g, b) for r in (0, 40, 128, 255) for g in (0, 40, 128, 255) for b in (0, 40, 128, 255)])


def test_hue_saturation_and_value_are_the_textbook_ones_and_go_back() -> None:
    image = (GRID.double().T / 255).reshape(3, 8, 8)
    found = [plane.flatten().tolist() for plane in to_hsv(image)]
    for (red, green, blue), hue, saturation, value in zip(GRID.tolist(), *found, strict=True):
        expected = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        assert (hue / 360, saturation, value) == pytest.approx(expected, abs=1e-9)
    assert torch.allclose(to_rgb(*to_hsv(image)), image, atol=1e-9)


def scene(*things: tuple[slice, slice, tuple[float, float, float]]) -> torch.Tensor:
    image = torch.full((3, 24, 24), 0.9)
    for rows, columns, color in things:
        image[:, rows, columns] = torch.tensor(color)[:, None, None]
    return image


def test_the_tone_is_the_prevailing_one() -> None:
    image = scene((slice(2, 12), slice(2, 12), (0.8, 0.1, 0.1)), (slice(14, 18), slice(14, 18), (0.1, 0.1, 0.8)))
    found = tone_of(image, torch.ones(24, 24, dtype=torch.bool))
    assert found is not None
    tone, alike = found
    assert tone.hue == pytest.approx(351.4, abs=0.1)  # red; the little blue pulls: atan2(16 sin 240, 100 + 16 cos 240)
    assert (tone.saturation, tone.value) == pytest.approx((0.875, 0.8), abs=1e-6)
    assert alike.sum() == 100
    assert tone_of(scene(), torch.ones(24, 24, dtype=torch.bool)) is None, "nothing is coloured"
    assert tone_of(image, torch.zeros(24, 24, dtype=torch.bool)) is None


def test_hues_around_red_do_not_cancel() -> None:
    image = scene((slice(0, 12), slice(0, 24), to_tuple(350)), (slice(12, 24), slice(0, 24), to_tuple(10)))
    found = tone_of(image, torch.ones(24, 24, dtype=torch.bool))
    assert found is not None
    assert (found[0].hue + 180) % 360 == pytest.approx(180, abs=0.1)


def to_tuple(hue: float) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(hue / 360, 0.8, 0.8)


def test_painting_takes_the_whole_thing_and_no_other() -> None:
    own, other = (slice(2, 12), slice(2, 12)), (slice(14, 20), slice(14, 20))
    image = scene((*own, to_tuple(60)), (*other, to_tuple(60)))
    image[:, 2:7, 2:12] *= 0.5  # shade
    seeds = torch.zeros(24, 24, dtype=torch.bool)
    seeds[8:10, 8:10] = True
    new, painted = repaint(image, seeds, Tone(60, 0.8, 0.8), Tone(240, 0.4, 0.4))
    expected = torch.zeros(24, 24, dtype=torch.bool)
    expected[own] = True
    assert torch.equal(painted, expected)
    assert torch.equal(new[:, ~expected], image[:, ~expected])
    assert torch.allclose(new[:, 10, 5], torch.tensor(colorsys.hsv_to_rgb(240 / 360, 0.4, 0.4)), atol=1e-6)
    assert torch.allclose(new[:, 4, 5], torch.tensor(colorsys.hsv_to_rgb(240 / 360, 0.4, 0.2)), atol=1e-6), (
        "shade stays"
    )


def test_the_palette_is_that_of_the_scenes(demo_policy: Policy) -> None:
    counts = DemoCounts(offline=260, online=0, eval_probe=0, eval_small_probe=0, dev_probe=0, dev_small_probe=0)
    samples = [sample for sample in demo_samples("natural", 3, counts) if sample.split == "offline"]
    palette = learn_palette(bench_of(demo_policy, samples, method="counterfactual"))
    assert palette.keys() == COLORS.keys()
    for word, tone in palette.items():
        hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in COLORS[word]))
        assert abs((tone.hue - 360 * hue + 180) % 360 - 180) < 12, word
        assert tone.saturation == pytest.approx(saturation, abs=0.15), word
        assert tone.value == pytest.approx(value, abs=0.3), word  # sprites have dark parts
    again = learn_palette(bench_of(demo_policy, samples, method="counterfactual"))
    assert again == palette
    few = learn_palette(bench_of(demo_policy, samples[:12], method="counterfactual"))
    assert few.keys() < palette.keys(), "a word of which too few are seen is left out"
