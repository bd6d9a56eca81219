"""The grounding detector on random weights: the plumbing from keywords to native masks, with and without SAM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as pil
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from mbpo_core.config import NegativesConfig
from mbpo_core.errors import ModelError
from mbpo_core.models.images import open_image, png_bytes
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.bench import Bench
from mbpo_core.negatives.grounding import detect
from mbpo_core.negatives.regions import Region, find_regions
from mbpo_core.negatives.segmentation import load_segmenter, prepare, segment
from mbpo_core.records import Image, Sample
from tests.negatives.making import known_samples, make
from tests.negatives.tiny_detectors import SEGMENTERS, SIDE, save_grounding

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def grounding(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_grounding(tmp_path_factory.mktemp("grounding")))


@pytest.fixture(scope="module", params=sorted(SEGMENTERS))
def segmenter(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    return str(SEGMENTERS[request.param](tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def samples(offline_samples: list[Sample], pictures: list[pil.Image]) -> list[Sample]:
    """Pictures of several sizes under answers with and without keywords."""
    answers = ("The banana is yellow.", "A red car and a green dog.", "B", "The boot is green.", "A dog", "A red dog")
    images = [open_image(sample.images[0]) for sample in offline_samples[:4]] + [pictures[1], pictures[2]]
    stored = [Image(bytes=png_bytes(torch.from_numpy(np.array(image)).permute(2, 0, 1))) for image in images]
    return [
        sample.model_copy(update={"answer": answer, "images": [image]})
        for sample, answer, image in zip(offline_samples, answers, stored, strict=False)
    ]


def regions(policy: Policy, samples: list[Sample], grounding: str, **settings: Any) -> list[Region]:
    bench = Bench(policy, _settings(grounding, **settings), seed=0)
    return find_regions(bench, [known.task for known in known_samples(bench, samples)])


def _settings(grounding: str, **settings: Any) -> NegativesConfig:
    return NegativesConfig(**{"method": "key_region", "detector": "grounded", "grounding_model": grounding, **settings})


def test_boxes_above_the_threshold_make_the_region(demo_policy: Policy, samples: list[Sample], grounding: str) -> None:
    found = regions(demo_policy, samples, grounding)
    assert [region.detector for region in found] == ["grounded", "grounded", "global", *["grounded"] * 3]
    for region, sample in zip(found, samples, strict=True):
        if region.detector == "global":
            assert region.masks.all()
            continue
        boxes = region.how["region"]["boxes"]
        scores = [box["score"] for box in boxes]
        assert scores == sorted(scores, reverse=True)
        assert min(scores) >= 0.3
        assert json.loads(json.dumps(region.how)) == region.how
        assert region.masks.shape == (1, 48, 48)
        _, y, x = region.how["region"]["point"]
        assert region.masks[0, y, x]
        if open_image(sample.images[0]).size == (48, 48):
            drawn = torch.zeros(48, 48, dtype=torch.bool)
            for box in boxes:
                x0, y0, x1, y1 = (round(max(value, 0)) for value in box["box"])
                drawn[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
            assert (region.masks[0] == drawn).float().mean() > 0.99, "but for rounding in the record"
    strict = regions(demo_policy, samples, grounding, grounding_threshold=1.0)
    assert {region.detector for region in strict} == {"global"}


def test_neighbours_change_nothing(demo_policy: Policy, samples: list[Sample], grounding: str) -> None:
    together = regions(demo_policy, samples, grounding)
    alone = [regions(demo_policy, [sample], grounding)[0] for sample in samples]
    for one, other in zip(together, alone, strict=True):
        assert (one.detector, one.how) == (other.detector, other.how)
        assert torch.equal(one.masks, other.masks)


def test_boxes_are_in_pixels_of_the_picture(demo_policy: Policy, grounding: str) -> None:
    bench = Bench(demo_policy, _settings(grounding, grounding_threshold=0.0), seed=0)
    small = pil.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    large = small.resize((128, 128), pil.Resampling.NEAREST)
    few, many = (detect(bench, picture, "banana. red.") for picture in (small, large))
    assert len(few) == len(many) == 5
    assert max(corner for box in few for corner in box.corners) <= 40
    assert max(corner for box in many for corner in box.corners) > 64


def test_the_segmenter_fills_the_boxes(
    demo_policy: Policy, samples: list[Sample], grounding: str, segmenter: str
) -> None:
    plain = regions(demo_policy, samples, grounding)
    filled = regions(demo_policy, samples, grounding, segmentation_model=segmenter)
    model = load_segmenter(segmenter, CPU)
    for before, after, sample in zip(plain, filled, samples, strict=True):
        assert after.how == before.how
        if before.detector == "grounded" and open_image(sample.images[0]).size == (48, 48):
            corners = [tuple(box["box"]) for box in before.how["region"]["boxes"]]
            expected = torch.from_numpy(segment(model, open_image(sample.images[0]), corners))
            expected = expected if expected.any() else before.masks[0]
            assert (after.masks[0] == expected).float().mean() > 0.98
    assert any(not torch.equal(a.masks, b.masks) for a, b in zip(plain, filled, strict=True))


@pytest.mark.parametrize("size", [(64, 64), (48, 30), (31, 90)])
def test_segments_have_the_pictures_size(segmenter: str, size: tuple[int, int]) -> None:
    model = load_segmenter(segmenter, CPU)
    picture = pil.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    boxes = [(2.0, 3.0, 20.0, 25.0), (10.0, 10.0, 30.0, 29.0)]
    both = segment(model, picture, boxes)
    assert both.shape == size[::-1]
    each = [segment(model, picture, [box]) for box in boxes]
    assert (both == (each[0] | each[1])).mean() > 0.99, "the union of one mask a box"
    pixels, height, width = prepare(model, picture)
    assert pixels.shape == (1, 3, SIDE, SIDE)
    if model.config.model_type == "sam2":
        assert (height, width) == (SIDE, SIDE)
    else:
        theirs = SamImageProcessorPil(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
        expected = theirs(picture, return_tensors="pt")
        assert [[height, width]] == expected["reshaped_input_sizes"].tolist()
        torch.testing.assert_close(pixels, expected["pixel_values"], atol=1e-5, rtol=0)


def test_key_region_negatives_by_grounding(demo_policy: Policy, samples: list[Sample], grounding: str) -> None:
    for known, made in make(
        demo_policy, samples[:4], method="key_region", detector="grounded", grounding_model=grounding
    ):
        assert made.perturbed is not None
        assert made.masks is not None
        outside = ~made.masks[:, None].expand_as(known.task.images)
        assert torch.equal(made.perturbed.saved[outside], known.task.images[outside])


def test_folders_that_are_none_are_refused(
    demo_policy: Policy, samples: list[Sample], grounding: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"config.json is missing.*Set negatives.grounding_model"):
        regions(demo_policy, samples[:1], str(tmp_path))
    with pytest.raises(ModelError, match=r"'llava'.*expected grounding-dino"):
        regions(demo_policy, samples[:1], demo_policy.where)
    with pytest.raises(ModelError, match=r"'grounding-dino'.*expected sam or sam2.*Set negatives.segmentation_model"):
        load_segmenter(grounding, CPU)
    (tmp_path / "config.json").write_text('{"model_type": "grounding-dino"}')
    with pytest.raises(ModelError, match="cannot be loaded"):
        regions(demo_policy, samples[:1], str(tmp_path))
