"""Another picture with another answer: found by question, by likeness, or made by recolouring."""

from __future__ import annotations

import colorsys
import json
from typing import Any

import numpy as np
import pytest
import torch

from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.counterfactual import counterfactual, recolour
from mbpo_core.negatives.filters import agrees, normalize
from mbpo_core.negatives.items import Made, Unmade
from mbpo_core.records import Negative, Sample
from tests.negatives.benches import bench_of, known_of, mine, showing


@pytest.fixture(scope="module")
def pool(demo_policy: Policy) -> list[Sample]:
    """Offline questions enough for some to recur."""
    from mbpo_core.demo.pools import DemoCounts, demo_samples

    none: dict[str, Any] = {"online": 0, "eval_probe": 0, "eval_small_probe": 0, "dev_probe": 0, "dev_small_probe": 0}
    samples = demo_samples(setting="uniform", seed=7, counts=DemoCounts(offline=60, **none))
    return [sample for sample in samples if sample.split == "offline"]


def how_of(rows: list[Negative]) -> dict[str, dict[str, Any]]:
    return {row.sample_id: json.loads(row.attack) for row in rows}


def test_questions_that_recur_are_answered_by_another_picture(demo_policy: Policy, pool: list[Sample]) -> None:
    bench = bench_of(demo_policy, pool, method="counterfactual")
    by_id = {sample.sample_id: sample for sample in pool}
    ways = []
    several = known_of(bench, pool)
    for known, made in zip(several, counterfactual(bench, several), strict=True):
        assert isinstance(made, Made)
        own = known.task.sample
        ways.append(made.how["from"])
        if made.how["from"] == "edit":
            continue
        other = by_id[made.how["sample"]]
        assert torch.equal(made.pictures[0], demo_policy.family.native(open_image(other.images[0])))
        assert other.kind == own.kind
        assert other.answer == made.how["answer"]
        assert not agrees(other.answer, own.answer, kind=own.kind, choices=own.choices)
        assert (normalize(other.question) == normalize(own.question)) == made.how["same_question"]
        assert made.how["same_question"] == (made.how["from"] == "question")
        recurs = [
            sample
            for sample in pool
            if normalize(sample.question) == normalize(own.question)
            and not agrees(sample.answer, own.answer, kind=own.kind, choices=own.choices)
        ]
        assert bool(recurs) == (made.how["from"] == "question")
    assert ways.count("question") >= 10
    assert ways.count("embedding") >= 10


@pytest.mark.parametrize("way", ["question", "embedding", "edit"])
def test_rows_do_not_depend_on_their_window(demo_policy: Policy, pool: list[Sample], way: str) -> None:
    settings: dict[str, Any] = {"method": "counterfactual", "counterfactual": way}
    first, _ = mine(bench_of(demo_policy, pool, **settings), pool[:16])
    again, _ = mine(bench_of(demo_policy, pool, batch_size=3, **settings), pool[:16], 5)
    assert len(first) >= 10
    assert how_of(again).keys() == how_of(first).keys()
    for sample_id, how in how_of(first).items():
        assert {k: v for k, v in how_of(again)[sample_id].items() if k != "cosine"} == {
            k: v for k, v in how.items() if k != "cosine"
        }
    assert [row.rejected_images for row in again] == [row.rejected_images for row in first]


def test_likeness_prefers_the_same_question(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    """own asks about a car; far asks the same, near-1 and near-2 ask something else of pictures more alike."""
    asked: dict[str, Any] = {"kind": "short_text", "answer_form": "word", "choices": []}
    picture = torch.from_numpy(np.array(open_image(offline_samples[0].images[0]))).permute(2, 0, 1)
    nearly = picture.clone()
    nearly[:, :2, :2] += 1
    own = showing(
        offline_samples[0], picture, sample_id="own", question="What color is the car?", answer="red", **asked
    )
    near_1 = showing(own, nearly, sample_id="near-1", question="What color is the cup?", answer="red")
    near_2 = showing(own, nearly + 1, sample_id="near-2", question="What color is the cup?", answer="blue")
    kind = showing(own, nearly + 2, sample_id="kind", question="Is it?", answer="yes", kind="yes_no")
    far = showing(own, 255 - picture, sample_id="far", answer="green")
    alike = showing(own, picture + 1, sample_id="alike", answer="Red.")

    def found(*others: Sample) -> tuple[str, str | None, bool | None]:
        settings = {"method": "counterfactual", "counterfactual": "embedding"}
        bench = bench_of(demo_policy, [own, *others], **settings)
        (made,) = counterfactual(bench, known_of(bench, [own]))
        assert isinstance(made, Made)
        return made.how["from"], made.how.get("sample"), made.how.get("same_question")

    assert found(near_1, near_2, kind, far, alike) == ("embedding", "far", True)
    assert found(near_1, near_2, kind, alike) == ("embedding", "near-2", False)
    assert found(near_1, kind, alike) == ("edit", None, None)


def test_an_edit_changes_the_key_region_and_nothing_else(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    samples = offline_samples[:8]
    bench = bench_of(demo_policy, samples, method="counterfactual", counterfactual="edit")
    several = known_of(bench, samples)
    for known, made in zip(several, counterfactual(bench, several), strict=True):
        if isinstance(made, Unmade):
            assert made.reason == "nothing_to_change"
            continue
        assert made.masks is not None
        assert made.perturbed is not None
        assert 60 <= made.how["degrees"] <= 300
        clean, changed = known.task.images[0], made.pictures[0]
        inside = made.masks[0].expand(3, -1, -1)
        assert torch.equal(clean[~inside], changed[~inside])
        assert not torch.equal(clean, changed)
        assert torch.equal(clean.amax(0), changed.amax(0)), "value stays"
        assert torch.equal(clean.amin(0), changed.amin(0)), "and so does saturation"
        assert made.detector == "saliency"
    grey = showing(samples[0], torch.full((3, 48, 48), 90, dtype=torch.uint8))
    (unmade,) = counterfactual(bench, known_of(bench, [grey]))
    assert isinstance(unmade, Unmade)
    assert unmade.reason == "nothing_to_change"


@pytest.mark.parametrize("degrees", [0.0, 60.0, 90.0, 123.4, 240.0, 300.0, 360.0])
def test_recolouring_is_the_textbook_one(degrees: float) -> None:
    colours = [(r, g, b) for r in (0, 40, 128, 255) for g in (0, 40, 128, 255) for b in (0, 40, 128, 255)]
    images = torch.tensor(colours, dtype=torch.float64).T.reshape(1, 3, 8, 8) / 255
    found = recolour(images, degrees).reshape(3, -1).T
    for (red, green, blue), row in zip(colours, found.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        assert row == pytest.approx(colorsys.hsv_to_rgb((hue + degrees / 360) % 1, saturation, value), abs=1e-9)


def test_rows_carry_the_region_and_the_saved_picture(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    bench = bench_of(demo_policy, offline_samples[:6], method="counterfactual", counterfactual="edit")
    rows, _ = mine(bench, offline_samples[:6])
    assert rows
    for row in rows:
        assert row.perturbation_linf > 0
        assert len(row.masks) == 1
        assert row.detector == "saliency"
        assert row.rejected_images[0].bytes != row.images[0].bytes
        assert json.loads(row.attack)["from"] == "edit"
