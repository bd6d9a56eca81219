"""Looking among the samples: the nearest pictures against a slow search, ties, and what cannot be shown."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from PIL.Image import Image

from mbpo_core.models.encoding import encode_images
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.gallery import Gallery
from mbpo_core.negatives.tasks import Task, open_task
from mbpo_core.records import Image as Stored
from mbpo_core.records import Sample
from tests.negatives.benches import bench_of, showing


def slow_search(policy: Policy, query: Sample, pool: list[Sample]) -> list[tuple[float, str]]:
    """(-cosine, sample_id) in order, one prompt at a time in float64; without equal pixels and other counts."""

    def vector(sample: Sample) -> torch.Tensor:
        prompt = policy.prepare("?", [open_image(image) for image in sample.images])
        with torch.no_grad():
            (features,) = encode_images(policy, [prompt], None) or []
        rows = [position.double() for picture in features for position in picture]
        return sum(rows, torch.zeros_like(rows[0])) / len(rows)

    own = vector(query)
    pixels = [open_image(image).tobytes() for image in query.images]
    found = []
    for sample in pool:
        if [open_image(image).tobytes() for image in sample.images] != pixels and len(sample.images) == len(pixels):
            other = vector(sample)
            cosine = float(own @ other / (own.norm() * other.norm()))
            found.append((-round(cosine, 4), sample.sample_id))
    return sorted(found)


def task_of(policy: Policy, sample: Sample) -> Task:
    task = open_task(policy, sample, 24)
    assert isinstance(task, Task)
    return task


def shown(gallery: Gallery, task: Task) -> list[tuple[float, str]]:
    (ranked,) = gallery.nearest([task])
    return [(c, e.sample_id) for e, c in ranked if gallery.instead(task, e) is not None]


def test_the_nearest_pictures_are_those_of_a_slow_search(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    gallery = bench_of(demo_policy, offline_samples, batch_size=5).gallery
    for sample in offline_samples[:6]:
        found = shown(gallery, task_of(demo_policy, sample))
        expected = slow_search(demo_policy, sample, offline_samples)
        assert len(found) == len(offline_samples) - 1
        assert [cosine for cosine, _ in found] == pytest.approx([-cosine for cosine, _ in expected], abs=2e-4)
        assert [sample_id for _, sample_id in found[:3]] == [sample_id for _, sample_id in expected[:3]]


def test_every_family_has_an_embedding(
    family_policy: Policy, offline_samples: list[Sample], pictures: list[Image]
) -> None:
    """Also of several pictures of different sizes; a sample is compared with those of as many pictures."""
    base = offline_samples[0]
    pool = [showing(base, p.resize((48, 40)), sample_id=f"one-{i}") for i, p in enumerate(pictures)]
    pool += [showing(base, p, pictures[0], sample_id=f"two-{i}") for i, p in enumerate(pictures[:3])]
    gallery = bench_of(family_policy, pool, batch_size=3).gallery
    assert gallery.index.vectors.norm(dim=1).tolist() == pytest.approx([1.0] * 7)
    for sample in (pool[1], pool[4]):
        if isinstance(task := open_task(family_policy, sample, 24), Task):  # tiles of two sizes are no task
            expected = slow_search(family_policy, sample, pool)
            assert shown(gallery, task) == [(pytest.approx(-cosine, abs=2e-4), name) for cosine, name in expected]


def test_neither_batch_nor_window_shows(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    tasks = [task_of(demo_policy, sample) for sample in offline_samples]

    def ranks(batch_size: int, window: int) -> list[list[tuple[str, float]]]:
        gallery = bench_of(demo_policy, offline_samples, batch_size=batch_size).gallery
        near = [one for start in range(0, len(tasks), window) for one in gallery.nearest(tasks[start : start + window])]
        return [[(entry.sample_id, cosine) for entry, cosine in islice(ranked, 8)] for ranked in near]

    first = ranks(32, 24)
    for other in (ranks(1, 24), ranks(7, 1), ranks(32, 5)):
        assert [[name for name, _ in row] for row in other] == [[name for name, _ in row] for row in first]


def test_ties_go_by_sample_id_and_equal_pixels_are_passed_over(
    demo_policy: Policy, offline_samples: list[Sample]
) -> None:
    own, near, far = offline_samples[0], offline_samples[1], offline_samples[2]
    renamed = [own.model_copy(update={"sample_id": name}) for name in ("own", "aaa-same-pixels")]
    twins = [near.model_copy(update={"sample_id": name}) for name in ("twin-c", "twin-a", "twin-b")]
    for pool in ([*renamed, *twins, far], [far, *reversed(twins), *renamed]):
        gallery = bench_of(demo_policy, pool).gallery
        task = task_of(demo_policy, renamed[0])
        names = [name for _, name in shown(gallery, task)]
        assert sorted(names) == sorted([*(twin.sample_id for twin in twins), far.sample_id])
        assert [name for name in names if name.startswith("twin")] == ["twin-a", "twin-b", "twin-c"]
        assert len(gallery.index.vectors) == 3, "each different picture is encoded once"


def test_pictures_that_are_not_in_the_gallery_can_be_asked_about(
    demo_policy: Policy, offline_samples: list[Sample]
) -> None:
    """A pair's pictures may be a collage: they are then embedded by themselves."""
    pool, other = offline_samples[:8], offline_samples[9]
    task = task_of(demo_policy, other.model_copy(update={"sample_id": pool[0].sample_id}))
    (without,) = bench_of(demo_policy, pool).gallery.nearest([task])
    (among,) = bench_of(demo_policy, [*pool, other]).gallery.nearest([task])
    expected = [(entry.sample_id, cosine) for entry, cosine in among if entry.sample_id != other.sample_id]
    assert [(entry.sample_id, pytest.approx(cosine, abs=2e-5)) for entry, cosine in without] == expected


def test_unreadable_pictures_are_left_out(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    broken = offline_samples[3].model_copy(update={"images": [Stored(bytes=b"?")]})
    without = offline_samples[4].model_copy(update={"images": []})
    gallery = bench_of(demo_policy, [offline_samples[0], broken, without, offline_samples[1]]).gallery
    task = task_of(demo_policy, offline_samples[0])
    assert [name for _, name in shown(gallery, task)] == [offline_samples[1].sample_id]
    entries = {entry.sample_id: entry for entry in gallery.entries}
    assert gallery.instead(task, entries[broken.sample_id]) is None
    assert gallery.instead(task, entries[without.sample_id]) is None
    empty = bench_of(demo_policy, [broken]).gallery
    assert [list(ranked) for ranked in empty.nearest([task])] == [[]]
    assert empty.nearest([]) == []


def test_questions_are_equal_up_to_case_and_punctuation(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    base = offline_samples[0]

    def asking(name: str, question: str, kind: Any = "short_text") -> Sample:
        return base.model_copy(update={"sample_id": name, "question": question, "kind": kind})

    pool = [
        asking("c", "what color is a Car"),
        asking("a", "What color is the car?"),
        asking("b", "What color is the car?", "open"),
        asking("d", "What color is the cart?"),
    ]
    gallery = bench_of(demo_policy, pool).gallery
    assert [entry.sample_id for entry in gallery.same_question(task_of(demo_policy, pool[1]))] == ["c"]
    assert [(entry.sample_id, entry.place) for entry in gallery.entries] == [("a", 1), ("b", 2), ("c", 0), ("d", 3)]


def test_pictures_that_do_not_fit_into_the_prompt(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    gallery = bench_of(demo_policy, offline_samples).gallery
    task = task_of(demo_policy, offline_samples[0])
    assert gallery.too_long(task, list(task.images) * 4) is None
    refused = gallery.too_long(task, list(task.images) * 8)
    assert refused is not None
    assert refused.reason == "prompt_too_long"
    assert "the model takes 256" in refused.detail
