"""Negatives that differ from the clean image in the key region alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.regions import scenes
from mbpo_core.config import NegativesConfig
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import image_logprobs
from mbpo_core.negatives.baselines import diffusion_noise
from mbpo_core.negatives.bench import Bench
from mbpo_core.negatives.items import Made
from mbpo_core.negatives.mining import Miner
from mbpo_core.negatives.tasks import open_tasks
from mbpo_core.records import Image, Negative, Sample
from mbpo_core.seeds import derive_seed
from tests.negatives.making import make

LOOSE: dict[str, Any] = {"min_length_ratio": 0.0, "max_length_ratio": 100.0, "max_new_tokens": 24}


def pixels(image: Image) -> Tensor:
    """(3, H, W) of a stored picture."""
    return torch.from_numpy(np.array(open_image(image))).permute(2, 0, 1)


def mined(policy: Policy, samples: list[Sample], **settings: Any) -> list[Negative]:
    miner = Miner(Bench(policy, NegativesConfig(**{**LOOSE, **settings}), seed=0))
    return miner.mine(open_tasks(policy, samples, 24))[0]


@pytest.mark.parametrize("method", ["key_region", "masked"])
@pytest.mark.parametrize("detector", ["saliency", "boxes"])
def test_nothing_changes_outside_the_region(
    demo_policy: Policy, offline_samples: list[Sample], method: str, detector: str
) -> None:
    found = make(demo_policy, offline_samples, method=method, detector=detector)
    for known, made in found:
        assert made.perturbed is not None
        assert made.masks is not None
        clean, outside = known.task.images, ~made.masks[:, None].expand_as(known.task.images)
        assert torch.equal(made.perturbed.saved[outside], clean[outside])
        assert torch.equal(made.perturbed.unrounded[outside], (clean / 255)[outside])
        changed = (made.perturbed.saved != clean).any(1)[made.masks]
        assert changed.float().mean() > 0.9
        assert json.loads(json.dumps(made.how)) == made.how
    detectors = {made.detector for _, made in found}
    assert detectors == ({"saliency"} if detector == "saliency" else {"boxes", "global"})
    for known, made in found:
        if detector == "boxes":  # answers that name no object: yes, no, a letter, a colour, a number
            names = {item["object"] for item in json.loads(known.task.sample.meta)["scene"]}
            assert (made.detector == "boxes") == any(word in names for word in made.keywords)


def test_the_noise_is_that_of_the_stored_seed(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    for known, made in make(demo_policy, offline_samples[:6], method="key_region", diffusion_step=300):
        assert known.seed == derive_seed(0, "negatives", known.task.sample.sample_id)
        assert made.perturbed is not None
        assert made.masks is not None
        whole = diffusion_noise(demo_policy, known.item(NegativesConfig()), 300)
        inside = made.masks[:, None].expand_as(whole.saved)
        assert torch.equal(made.perturbed.saved[inside], whole.saved[inside])


def test_the_fill_is_the_mean_colour(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    for _, made in make(demo_policy, offline_samples[:6], method="masked"):
        assert made.perturbed is not None
        assert made.masks is not None
        filled = made.perturbed.saved[0][:, made.masks[0]]
        assert filled.unique(dim=1).tolist() == [[123], [117], [104]]  # 255 * CLIP mean, rounded


def test_it_hurts_the_chosen_answer_more_than_noise_elsewhere(demo_policy: Policy) -> None:
    """Noise of the same size and seed in the same shape, moved to the opposite corner: another object's, or none's."""
    found = make(demo_policy, scenes("natural", 40, seed=2), method="key_region", diffusion_step=700)
    tasks = [known.task for known, _ in found]
    elsewhere = [
        diffusion_noise(demo_policy, replace(known.item(NegativesConfig()), region=_moved(made)), 700).saved
        for known, made in found
    ]

    def mean_logprob(images: list[Tensor]) -> float:
        prompts, chosen = [task.prompt for task in tasks], [task.chosen for task in tasks]
        with torch.no_grad():
            return float(image_logprobs(demo_policy, prompts, chosen, [few / 255 for few in images]).means.mean())

    clean = mean_logprob([task.images for task in tasks])
    there = clean - mean_logprob(elsewhere)
    here = clean - mean_logprob([torch.stack(list(made.pictures)) for _, made in found])
    assert here > 0.03
    assert there < here / 10


def _moved(made: Made) -> Tensor:
    assert made.masks is not None
    return made.masks[:, None].roll((24, 24), dims=(2, 3))


def test_rows_carry_the_region(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    rows = mined(demo_policy, offline_samples, method="key_region", region_share=0.1, keywords=2)
    assert len(rows) >= 12
    for row in rows:
        assert row.kind == "key_region"
        clean, rejected, mask = (pixels(images[0]) for images in (row.images, row.rejected_images, row.masks))
        assert set(mask.unique().tolist()) == {0, 255}
        assert torch.equal(rejected[mask == 0], clean[mask == 0])
        assert not torch.equal(rejected, clean)
        assert len(row.keywords) <= 2
        assert all(word in row.chosen.lower() for word in row.keywords)
        how = json.loads(row.attack)
        assert (how["seed"], how["diffusion_step"]) == (derive_seed(0, "negatives", row.sample_id), 500)
        assert (row.detector, how["detector"], how["region_share"], how["keywords"]) == ("saliency", "saliency", 0.1, 2)
        assert len(how["region"]["keyword_scores"]) == len(row.keywords)
        assert row.epsilon == 0
    again = mined(demo_policy, offline_samples, method="key_region", region_share=0.1, keywords=2)
    assert again == rows


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_stays_in_the_key_region(demo_policy: Policy, offline_samples: list[Sample], norm: str) -> None:
    ball = {"linf": {"epsilon": 16 / 255, "step_size": 4 / 255}, "l2": {"norm": "l2", "epsilon": 2, "step_size": 0.5}}
    rows = mined(demo_policy, offline_samples, method="adversarial", attack_region=True, steps=5, **ball[norm])
    assert len(rows) >= 8
    for row in rows:
        clean, rejected, mask = (pixels(images[0]) for images in (row.images, row.rejected_images, row.masks))
        assert torch.equal(rejected[mask == 0], clean[mask == 0])
        assert (rejected != clean)[mask > 0].float().mean() > 0.5
        assert 0 < (mask > 0).float().mean() < 0.5
        how = json.loads(row.attack)
        assert (how["method"], how["attack_region"], how["steps_taken"]) == ("adversarial", True, 5)
        assert row.detector == "saliency"
        assert row.logprob_rounded < row.logprob_clean
    everywhere = mined(demo_policy, offline_samples[:2], method="adversarial", steps=1)
    assert all((row.masks, row.detector) == ([], "") for row in everywhere)


def test_where_nothing_is_found_all_of_the_image_changes(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    sample = next(s for s in offline_samples if s.kind == "multiple_choice")  # its answer is a letter
    ((known, made),) = make(demo_policy, [sample], method="key_region", detector="boxes")
    assert made.perturbed is not None
    assert (made.detector, made.keywords) == ("global", ())
    whole = diffusion_noise(demo_policy, known.item(NegativesConfig()), 500)
    assert torch.equal(made.perturbed.saved, whole.saved)
