"""The most similar other picture as the rejected one."""

from __future__ import annotations

import json

import pytest
import torch
from PIL.Image import Image

from mbpo_core.models.images import open_image, png_bytes
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.items import Made, Unmade
from mbpo_core.negatives.retrieved import retrieved
from mbpo_core.records import Negative, Sample
from tests.negatives.benches import bench_of, known_of, mine, showing


def chosen_pictures(rows: list[Negative]) -> dict[str, str]:
    return {row.sample_id: json.loads(row.attack)["sample"] for row in rows}


def test_a_row_shows_the_nearest_sample(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    bench = bench_of(demo_policy, offline_samples, method="retrieved")
    rows, dropped = mine(bench, offline_samples)
    assert len(rows) + len(dropped) == len(offline_samples)
    assert len(rows) >= 12
    by_id = {sample.sample_id: sample for sample in offline_samples}
    for row in rows:
        how = json.loads(row.attack)
        other = by_id[how["sample"]]
        native = demo_policy.family.native(open_image(other.images[0]))
        assert row.rejected_images[0].bytes == png_bytes(native)
        assert row.rejected_images[0].bytes != row.images[0].bytes
        assert how["answer"] == other.answer
        assert 0 < how["cosine"] < 1
        assert row.perturbation_linf == 0
        assert json.loads(row.decode)["mode"] != "greedy" or row.rejected == row.attacked_answer


@pytest.mark.parametrize(("window", "batch_size"), [(5, 32), (24, 3)])
def test_rows_do_not_depend_on_their_window(
    demo_policy: Policy, offline_samples: list[Sample], window: int, batch_size: int
) -> None:
    first, _ = mine(bench_of(demo_policy, offline_samples, method="retrieved"), offline_samples)
    bench = bench_of(demo_policy, offline_samples, method="retrieved", batch_size=batch_size)
    again, _ = mine(bench, offline_samples, window)
    assert chosen_pictures(again) == chosen_pictures(first)
    assert [row.rejected for row in again] == [row.rejected for row in first]


def test_without_other_pictures_there_is_none(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    again = offline_samples[0].model_copy(update={"sample_id": "same pixels"})
    bench = bench_of(demo_policy, [offline_samples[0], again], method="retrieved")
    rows, dropped = mine(bench, offline_samples[:1])
    assert rows == []
    assert [letter.reason for letter in dropped] == ["no_other_image"]


def test_pictures_come_at_their_own_size(qwen: Policy, offline_samples: list[Sample], pictures: list[Image]) -> None:
    """And as many as the sample has: a sample of two pictures is not answered with one."""
    base = offline_samples[0]
    small, large = (pictures[0].resize(size) for size in ((16, 16), (40, 24)))
    pool = [
        showing(base, small, sample_id="small"),
        showing(base, large, sample_id="large"),
        showing(base, small, large.resize((16, 16)), sample_id="two"),
    ]
    bench = bench_of(qwen, pool, method="retrieved")
    first, second, third = retrieved(bench, known_of(bench, pool))
    assert isinstance(first, Made)
    assert isinstance(second, Made)
    assert isinstance(third, Unmade)
    assert [tuple(picture.shape) for picture in (*first.pictures, *second.pictures)] == [(3, 24, 40), (3, 16, 16)]
    assert torch.equal(first.pictures[0], qwen.family.native(large))
    assert (first.how["sample"], second.how["sample"], third.reason) == ("large", "small", "no_other_image")
