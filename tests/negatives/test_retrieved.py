"""The most similar other picture as the rejected one."""

from __future__ import annotations

import json
import uuid

import pytest
import torch
from PIL.Image import Image

from mbpo_core.config import NegativesConfig, PolicyConfig, SamplesConfig
from mbpo_core.execution import execute, plan
from mbpo_core.models.digest import import_policy
from mbpo_core.models.images import open_image, png_bytes
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.embedding import embed
from mbpo_core.negatives.items import Made, Unmade
from mbpo_core.negatives.retrieved import retrieved
from mbpo_core.progress import NullProgress
from mbpo_core.records import Negative, Sample
from mbpo_core.stages import STAGES
from mbpo_core.store.core import Store
from tests.negatives import feeding
from tests.negatives.benches import bench_of, known_of, mine, showing

POLICY = PolicyConfig(device="cpu")


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
        others = [sample for sample in offline_samples if sample.sample_id != row.sample_id]
        other = by_id[how["sample"]]
        native = demo_policy.family.native(open_image(other.images[0]))
        assert row.rejected_images[0].bytes == png_bytes(native)
        assert row.rejected_images[0].bytes != row.images[0].bytes
        assert how["answer"] == other.answer
        prompts = [demo_policy.prepare("?", [open_image(one.images[0])]) for one in (by_id[row.sample_id], *others)]
        own, *vectors = embed(demo_policy, [prompt.images for prompt in prompts])
        cosines = [float(own @ vector) for vector in vectors if not torch.equal(own, vector)]
        assert how["cosine"] == pytest.approx(max(cosines), abs=2e-5)
        assert row.perturbation_linf == 0
        assert json.loads(row.decode)["mode"] != "greedy" or row.rejected == row.attacked_answer


def test_rows_do_not_depend_on_their_window(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    first, _ = mine(bench_of(demo_policy, offline_samples, method="retrieved"), offline_samples)
    bench = bench_of(demo_policy, offline_samples, method="retrieved", batch_size=3)
    again, _ = mine(bench, offline_samples, 5)
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


def test_pictures_that_do_not_fit_are_passed_over(
    qwen: Policy, offline_samples: list[Sample], pictures: list[Image]
) -> None:
    """36 positions of a large picture are too many, 4 of a small one are not."""
    base = offline_samples[0].model_copy(update={"question": "What is it?", "answer": "red"})
    own, other = (showing(base, pictures[i].resize((16, 16)), sample_id=f"small-{i}") for i in (0, 1))
    large = showing(base, pictures[0].resize((48, 48)), sample_id="large")
    room = 256 - len(qwen.prepare(base.question, [open_image(own.images[0])]).token_ids)

    def found(pool: list[Sample], tokens: int) -> list[str]:
        bench = bench_of(qwen, pool, method="retrieved", max_new_tokens=tokens)
        made = retrieved(bench, known_of(bench, [own]))
        return [one.how["sample"] if isinstance(one, Made) else one.reason for one in made]

    assert found([own, large], room - 32) == ["large"]
    assert found([own, large], room - 31) == ["no_other_image"]
    assert found([own, large, other], room - 31) == ["small-1"]


def test_the_stage_looks_among_its_offline_samples(offline_samples: list[Sample]) -> None:
    """On a real store; the nearest of all is online, and is not shown."""
    near = offline_samples[1].model_copy(update={"sample_id": "online", "split": "online"})
    store = Store(f"memory://{uuid.uuid4().hex}", stages={**STAGES, "samples": feeding.SPEC})
    contents, names = [], []
    for settings in ({"batch_size": 2, "part_rows": 8}, {"batch_size": 3, "part_rows": 100}):
        feeding.ROWS[:] = [near, *offline_samples[:1], *offline_samples[2:]]
        fed = execute(store, plan(store, feeding.SPEC, SamplesConfig(), {}), NullProgress())
        config = NegativesConfig(method="retrieved", max_new_tokens=24, **settings)
        inputs, policies = {"samples": fed}, {"policy": import_policy(POLICY)}
        planned = plan(store, STAGES["negatives"], config, inputs, policies, POLICY, force=True)
        rows = [Negative.model_validate(row) for row in store.reader(execute(store, planned, NullProgress())).rows()]
        names.append(chosen_pictures(rows))
        contents.append([row.rejected for row in rows])
    assert len(names[0]) >= 12
    assert set(names[0].values()) <= {sample.sample_id for sample in offline_samples} - {offline_samples[1].sample_id}
    assert names[0] == names[1]
    assert contents[0] == contents[1]
