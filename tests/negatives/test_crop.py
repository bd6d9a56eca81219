"""Random crops: the law of their boxes, and what stands in them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image as pil

from mbpo_core.config import NegativesConfig
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.crop import crop_images, draw_box
from mbpo_core.negatives.items import Item
from mbpo_core.records import Sample
from tests.negatives.benches import bench_of, mine


def test_area_and_aspect_are_drawn_as_they_should_be() -> None:
    """On a large picture, where whole pixels hardly matter: shares uniform, log-aspects uniform, places uniform."""
    generator = torch.Generator().manual_seed(1)
    height, width, least, most = 3000, 4000, 0.01, 0.2
    boxes = [draw_box(height, width, least, most, generator) for _ in range(4000)]
    shares = np.array([high * wide / (height * width) for _, _, high, wide in boxes])
    aspects = np.log([wide / high for _, _, high, wide in boxes]) / np.log(4 / 3)
    downs = np.array([top / (height - high) for top, _, high, _ in boxes])
    acrosses = np.array([left / (width - wide) for _, left, _, wide in boxes])
    for values, low, high_end in ((shares, least, most), (aspects, -1, 1), (downs, 0, 1), (acrosses, 0, 1)):
        quantiles = (np.quantile(values, [0, 0.25, 0.5, 0.75, 1]) - low) / (high_end - low)
        assert quantiles == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.03)
    assert abs(np.corrcoef(shares, aspects)[0, 1]) < 0.05


@pytest.mark.parametrize(("height", "width"), [(48, 48), (7, 90), (1, 1), (33, 20)])
@pytest.mark.parametrize(("least", "most"), [(0.01, 0.2), (0.9, 1.0), (1.0, 1.0), (1e-6, 1e-6)])
def test_a_box_lies_inside_the_picture(height: int, width: int, least: float, most: float) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        top, left, high, wide = draw_box(height, width, least, most, generator)
        assert high >= 1
        assert wide >= 1
        assert 0 <= top <= height - high
        assert 0 <= left <= width - wide


def test_the_box_is_resized_to_the_whole_picture(items: list[Item]) -> None:
    """As Pillow would, up to its rounding between the two passes; rounding is part of the making."""
    settings = NegativesConfig(method="crop", crop_min=0.3, crop_max=0.5)
    for item in items:
        made = crop_images(item, settings)
        assert made.perturbed is not None
        ((top, left, high, wide),) = made.how["crops"]
        picture = pil.fromarray(item.images[0].permute(1, 2, 0).numpy()).crop((left, top, left + wide, top + high))
        expected = np.array(picture.resize((48, 48), pil.Resampling.BICUBIC)).astype(int)
        found = made.pictures[0].permute(1, 2, 0).numpy().astype(int)
        assert abs(found - expected).max() <= 1
        assert made.perturbed.inexact is None
        assert made.perturbed.linf == (made.pictures[0].int() - item.images[0].int()).abs().max() / 255


def test_each_picture_has_its_own_box(items: list[Item]) -> None:
    several = Item(items[0].prompt, torch.cat([items[0].images, items[1].images]), items[0].chosen, None, 3)
    made = crop_images(several, NegativesConfig(method="crop"))
    assert len(made.pictures) == 2
    assert made.how["crops"][0] != made.how["crops"][1]
    assert crop_images(several, NegativesConfig(method="crop")).how == made.how
    other = Item(several.prompt, several.images, several.chosen, None, 4)
    assert crop_images(other, NegativesConfig(method="crop")).how != made.how


def test_rows_say_what_was_cropped(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    rows, dropped = mine(bench_of(demo_policy, offline_samples, method="crop"), offline_samples)
    again, _ = mine(bench_of(demo_policy, offline_samples, method="crop", batch_size=5), offline_samples, 7)
    assert len(rows) + len(dropped) == len(offline_samples)
    assert [row.rejected_images for row in again] == [row.rejected_images for row in rows]
    assert sum(row.flipped for row in rows) >= 5
    for row in rows:
        how = json.loads(row.attack)
        assert (how["crop_min"], how["crop_max"]) == (0.01, 0.2)
        ((_, _, high, wide),) = how["crops"]
        assert high * wide <= 0.2 * 48 * 48 + 24
        saved = torch.from_numpy(np.array(open_image(row.rejected_images[0]))).int()
        clean = torch.from_numpy(np.array(open_image(row.images[0]))).int()
        assert row.perturbation_linf == (saved - clean).abs().max() / 255
        assert row.logprob_attacked == row.logprob_rounded
