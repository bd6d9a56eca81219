"""Another picture with another answer: found by question, by likeness, or made by recolouring."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mbpo_core.config import ImagesConfig
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.negatives.counterfactual import by_recolour, counterfactual
from mbpo_core.negatives.filters import agrees, normalize
from mbpo_core.negatives.items import Made, Unmade
from mbpo_core.records import Image, Negative, Sample
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
        if made.how["from"] == "recolour":
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


@pytest.mark.parametrize("way", ["question", "embedding", "recolour"])
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
        if isinstance(made, Unmade):
            return made.reason, None, None
        return made.how["from"], made.how.get("sample"), made.how.get("same_question")

    assert found(near_1, near_2, kind, far, alike) == ("embedding", "far", True)
    assert found(near_1, near_2, kind, alike) == ("embedding", "near-2", False)
    assert found(near_1, kind, alike) == ("no_other_image", None, None), "too few colours to paint with"


def test_painted_pictures_change_the_thing_and_have_their_answer(demo_policy: Policy, pool: list[Sample]) -> None:
    bench = bench_of(demo_policy, pool, method="counterfactual", counterfactual="recolour", swapped=0.0)
    several = known_of(bench, pool)
    boxes: list[float] = []
    for known, made in zip(several, counterfactual(bench, several), strict=True):
        assert isinstance(made, Made)
        if made.how["from"] != "recolour":
            continue
        own, meta = known.task.sample, json.loads(known.task.sample.meta)
        assert meta["topic"] in ("color", "verification", "multiple_choice", "caption")
        assert made.rejected == made.how["answer"]
        assert made.instead is None
        assert not agrees(made.rejected or "", own.answer, kind=own.kind, choices=own.choices)
        assert made.masks is not None
        clean, changed, inside = known.task.images[0], made.pictures[0], made.masks[0]
        assert torch.equal(clean[:, ~inside], changed[:, ~inside])
        assert not torch.equal(clean, changed)
        truth = next((entry["box"] for entry in meta["boxes"] if entry["label"] == meta["subject"]), None)
        if truth is not None:
            x0, y0, x1, y1 = truth
            boxes.append(inside[y0:y1, x0:x1].sum().item() / inside.sum().item())
    assert len(boxes) >= 15
    assert sum(share > 0.9 for share in boxes) / len(boxes) > 0.8, "it is the thing that was asked about"


def test_of_a_description_the_thing_that_gets_another_colour_is_painted(demo_policy: Policy) -> None:
    from mbpo_core.demo.pools import DemoCounts, demo_samples

    none: dict[str, Any] = {"online": 0, "eval_probe": 0, "eval_small_probe": 0, "dev_probe": 0, "dev_small_probe": 0}
    samples = list(demo_samples(setting="uniform", seed=8, counts=DemoCounts(offline=160, **none)))
    told = [one for one in samples if one.kind == "open" and len(json.loads(one.meta)["scene"]) > 1]
    others = [one for one in samples if one.kind == "short_text"]  # the palette is learned from them
    assert len(told) >= 10
    bench = bench_of(demo_policy, [*told, *others], method="counterfactual", counterfactual="recolour", swapped=0.0)
    shares = []
    for known, made in zip(several := known_of(bench, told), counterfactual(bench, several), strict=True):
        assert isinstance(made, Made)
        if made.how["from"] != "recolour":
            continue
        answer, changed, thing = known.task.sample.answer, made.rejected or "", made.how["thing"]
        words = [(a, b) for a, b in zip(answer.split(), changed.split(), strict=True) if a != b]
        assert words[-1] == (made.how["old"], made.how["new"])
        assert set(words[:-1]) <= {("a", "an"), ("an", "a")}
        assert thing.startswith(made.how["old"])
        assert thing not in changed
        assert made.masks is not None
        boxes = {entry["label"]: entry["box"] for entry in json.loads(known.task.sample.meta)["boxes"]}
        x0, y0, x1, y1 = boxes[thing.split()[-1]]
        inside = made.masks[0]
        shares.append(inside[y0:y1, x0:x1].sum().item() / inside.sum().item())
    assert len(shares) >= 8
    assert sum(share > 0.9 for share in shares) / len(shares) > 0.7, "it is the thing, not another one of the colour"
    apart = bench_of(
        demo_policy, [*told, *others], method="counterfactual", counterfactual="recolour", descriptions=False
    )
    plain = counterfactual(apart, known_of(apart, told[:8]))
    assert not any(isinstance(made, Made) and made.how["from"] == "recolour" for made in plain)


def test_swapped_rows_are_samples_of_their_own(demo_policy: Policy, pool: list[Sample]) -> None:
    by_id = {sample.sample_id: sample for sample in pool}
    mined = {
        share: mine(
            bench_of(demo_policy, pool, method="counterfactual", counterfactual="recolour", swapped=share), pool[:40]
        )[0]
        for share in (0.0, 0.5, 1.0)
    }
    plain, some, all_of_them = (
        {row.sample_id: row for row in rows if json.loads(row.attack)["from"] == "recolour"} for rows in mined.values()
    )
    assert plain.keys() == some.keys()
    turned = {name for name in some if json.loads(some[name].attack)["swapped"]}
    assert 0.2 < len(turned) / len(some) < 0.8
    assert all(some[name] == plain[name] for name in some.keys() - turned), "the others stay what they were"
    assert all(json.loads(row.attack)["swapped"] for row in all_of_them.values())
    assert all(some[name].images == all_of_them[name].images for name in turned)
    for name in turned:
        row, other, own = some[name], plain[name], by_id[name]
        assert row.images == other.rejected_images
        assert (row.chosen, row.rejected) == (other.rejected, own.answer)
        shown = open_image(row.rejected_images[0]), open_image(own.images[0])
        assert np.array_equal(*map(np.array, shown))
        assert row.logprob_clean == pytest.approx(_logprob(demo_policy, row.images, own.question, row.chosen), abs=1e-4)
        rejected = _logprob(demo_policy, row.rejected_images, own.question, row.chosen)
        assert row.logprob_rounded == pytest.approx(rejected, abs=1e-4)
        assert row.perturbation_linf == other.perturbation_linf


def _logprob(policy: Policy, images: list[Image], question: str, answer: str) -> float:
    prompt = policy.prepare(question, [open_image(image) for image in images])
    ((logprobs,),) = group_logprobs(policy, [PromptGroup(prompt, [policy.encode_completion(answer)])])
    return float(logprobs.mean())


def test_the_image_pass_never_swaps() -> None:
    with pytest.raises(ValidationError, match="swapped"):
        ImagesConfig(swapped=0.5)


def test_only_a_sample_of_one_picture_is_painted(demo_policy: Policy, pool: list[Sample]) -> None:
    told = next(sample for sample in pool if sample.kind == "short_text")
    bench = bench_of(demo_policy, pool, method="counterfactual", counterfactual="recolour")
    (one,) = known_of(bench, [told])
    (painted,) = by_recolour(bench, [one])
    assert painted is not None
    for images in (one.task.images[:0], one.task.images.repeat(2, 1, 1, 1)):
        assert by_recolour(bench, [replace(one, task=replace(one.task, images=images))]) == [None]


def test_grey_pictures_are_not_painted(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    grey = showing(offline_samples[0], torch.full((3, 48, 48), 90, dtype=torch.uint8))
    bench = bench_of(demo_policy, [grey], method="counterfactual", counterfactual="recolour")
    (unmade,) = counterfactual(bench, known_of(bench, [grey]))
    assert isinstance(unmade, Unmade)
    assert unmade.reason == "no_other_image"
