"""Several pictures, one of which the question is about."""

from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image as pil
from PIL.Image import Image

from mbpo_core.generation.generate import generate
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.images import open_image, png_bytes
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.negatives.collage import collage, in_grid, in_picture, in_sequence, put
from mbpo_core.negatives.items import Made, Unmade
from mbpo_core.records import Negative, Sample
from tests.negatives.benches import bench_of, known_of, mine, showing

LAYOUTS = ("sequence", "grid", "picture_in_picture")
SMALL_INSIDE = pytest.param("picture_in_picture", marks=pytest.mark.slow)  # one image to the model, as a grid is


def plain(level: int, height: int = 12, width: int = 18) -> torch.Tensor:
    return torch.full((3, height, width), level, dtype=torch.uint8)


def test_a_sequence_holds_every_picture_once() -> None:
    others = [plain(level) for level in (1, 2, 3)]
    places = set()
    for seed in range(40):
        place, shown = in_sequence(plain(9), others, Random(seed))
        levels = [int(picture[0, 0, 0]) for picture in shown]
        assert sorted(levels) == [1, 2, 3, 9]
        assert levels[int(place) - 1] == 9
        places.add(place)
    assert places == {"1", "2", "3", "4"}


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (2, {"left", "right"}),
        (3, {"top left", "top right", "bottom left"}),
        (4, {"top left", "top right", "bottom left", "bottom right"}),
        (5, {"top left", "top centre", "top right", "bottom left", "bottom centre"}),
        (9, {f"{d} {a}" for d in ("top", "bottom") for a in ("left", "centre", "right")}
            | {"middle left", "centre", "middle right"}),
    ],
)  # fmt: skip
def test_the_own_tile_is_where_the_words_say(count: int, names: set[str]) -> None:
    others = [plain(level) for level in range(1, count)]
    found = set()
    for seed in range(100):
        place, (canvas,) = in_grid(plain(99), others, Random(seed))
        assert canvas.shape == (3, 12, 18)
        assert sorted(set(canvas.unique().tolist()) - {255}) == [*range(1, count), 99]
        own = (canvas[0] == 99).nonzero().float()
        down, across = (own.mean(0) / torch.tensor([11.0, 17.0])).tolist()
        bands = 1 if count == 2 else 2 if count < 7 else 3
        assert place.startswith("top") == (bands > 1 and down < 0.4)
        assert place.startswith("bottom") == (bands > 1 and down > 0.6)
        assert place.endswith("left") == (across < 0.4)
        assert place.endswith("right") == (across > 0.6)
        found.add(place)
    assert found == names


def test_a_small_picture_stands_in_a_corner_of_a_large_one() -> None:
    places = {}
    for seed in range(30):
        background = plain(7, 20, 16)
        place, (canvas,) = in_picture(plain(99, 10, 10), [background], Random(seed))
        assert canvas.shape == (3, 20, 16)
        assert torch.equal(background, plain(7, 20, 16)), "the other sample's picture is left as it was"
        own = (canvas[0] == 99).nonzero()
        assert len(own) == 64, "8 x 8: as wide as half of the picture, and square as it was"
        places[place] = (bool(own[0, 0] < 8), bool(own[0, 1] < 8))
    assert places == {
        "top left": (True, True),
        "top right": (True, False),
        "bottom left": (False, True),
        "bottom right": (False, False),
    }


def test_pictures_are_pasted_with_their_proportions() -> None:
    noise = torch.randint(0, 256, (3, 20, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    canvas = plain(0, 30, 30)
    put(canvas, noise, (3, 5, 20, 20))
    expected = np.array(pil.fromarray(noise.permute(1, 2, 0).numpy()).resize((20, 10), pil.Resampling.BICUBIC))
    pasted = canvas[:, 8:18, 5:25].permute(1, 2, 0).numpy()
    assert abs(pasted.astype(int) - expected.astype(int)).max() <= 1
    canvas[:, 8:18, 5:25] = 0
    assert not canvas.any(), "nothing outside was touched"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_about_the_collage(demo_policy: Policy, offline_samples: list[Sample], layout: str) -> None:
    """The collage is the row's clean picture, the question names a place in it, and there is no wrong picture."""
    bench = bench_of(demo_policy, offline_samples, method="collage", layout=layout, collage_images=3)
    rows, dropped = mine(bench, offline_samples)
    assert len(rows) + len(dropped) == len(offline_samples)
    assert len(rows) >= 8
    by_id = {sample.sample_id: sample for sample in offline_samples}
    for row in rows:
        sample, how = by_id[row.sample_id], json.loads(row.attack)
        native = demo_policy.family.native(open_image(sample.images[0]))
        assert row.rejected_images == []
        assert len(row.images) == (3 if layout == "sequence" else 1)
        assert len(how["others"]) == (1 if layout == "picture_in_picture" else 2)
        assert sample.sample_id not in how["others"]
        if layout == "sequence":
            number = int(how["place"])
            assert row.images[number - 1].bytes == png_bytes(native)
            assert row.question.startswith(f"In image {number}, ")
        else:
            assert row.images[0].bytes != png_bytes(native)
            assert f" at the {how['place']}, " in row.question
        assert row.question.endswith(sample.question[1:])
        prompt = demo_policy.prepare(row.question, [open_image(image) for image in row.images])
        ((answer,),) = generate(demo_policy, [prompt], max_new_tokens=24)
        assert answer.text == row.attacked_answer
        ((logprobs,),) = group_logprobs(demo_policy, [PromptGroup(prompt, [demo_policy.encode_completion(row.chosen)])])
        assert float(logprobs.mean()) == pytest.approx(row.logprob_rounded, abs=1e-4)
        assert json.loads(row.decode)["mode"] != "greedy" or row.rejected == answer.text


@pytest.mark.parametrize("layout", [pytest.param("sequence", marks=pytest.mark.slow), "grid", SMALL_INSIDE])
def test_rows_do_not_depend_on_their_window(demo_policy: Policy, offline_samples: list[Sample], layout: str) -> None:
    def content(rows: list[Negative]) -> list[tuple[str, str, list[bytes | None], str | None]]:
        return [(row.question, row.attack, [image.bytes for image in row.images], row.rejected) for row in rows]

    first, _ = mine(bench_of(demo_policy, offline_samples, method="collage", layout=layout), offline_samples)
    bench = bench_of(demo_policy, offline_samples, method="collage", layout=layout, batch_size=3)
    assert content(mine(bench, offline_samples, 7)[0]) == content(first)


def test_what_no_collage_is_made_of(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    own, other = offline_samples[:2]
    two = own.model_copy(update={"sample_id": "two", "images": [*own.images, *other.images]})
    same = own.model_copy(update={"sample_id": "same pixels"})

    def reasons(pool: list[Sample], asked: Sample, **settings: object) -> list[str]:
        bench = bench_of(demo_policy, pool, method="collage", **settings)
        return [
            made.reason if isinstance(made, Unmade) else "made" for made in collage(bench, known_of(bench, [asked]))
        ]

    assert reasons([own, same, two], own) == ["no_other_image"]
    assert reasons([own, other], own) == ["made"]
    assert reasons([own, other], own, collage_images=3) == ["no_other_image"]
    assert reasons([own, other, two], two) == ["nothing_to_change"]
    assert reasons(offline_samples, own, collage_images=9) == ["prompt_too_long"]
    assert reasons(offline_samples, own, collage_images=9, layout="grid") == ["made"]


@pytest.mark.parametrize("layout", ["sequence", "grid", SMALL_INSIDE])
def test_every_family_can_be_asked(
    family_policy: Policy, offline_samples: list[Sample], pictures: list[Image], layout: str
) -> None:
    """A grid and a picture in a picture are one image to the model; pictures may differ in size."""
    pool = [
        showing(offline_samples[0], picture, sample_id=f"{i}", question="What color is the cat?")
        for i, picture in enumerate(pictures)
    ]
    bench = bench_of(family_policy, pool, method="collage", layout=layout, max_new_tokens=4)
    several = known_of(bench, pool)
    assert len(several) == len(pool)
    for known, made in zip(several, collage(bench, several), strict=True):
        assert isinstance(made, Made)
        assert not made.wrong
        assert len(made.pictures) == (2 if layout == "sequence" else 1)
        if layout == "grid":
            assert made.pictures[0].shape == known.task.images[0].shape
        (saved,) = bench.asker.saved([known.task.asking(made.question or "")], [made.pictures])
        assert len(saved.version.prompt.images) == len(made.pictures)
        for before, after in zip(made.pictures, saved.pngs, strict=True):
            assert torch.equal(family_policy.family.native(open_image({"bytes": after})), before)
