"""Mining on the demo checkpoint: what a row says is what the model says about the saved image."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from mbpo_core.config import NegativesConfig
from mbpo_core.errors import DataError
from mbpo_core.generation.generate import answer_and_score, generate
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.images import open_image, png_bytes
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.negatives import asking
from mbpo_core.negatives.bench import Bench
from mbpo_core.negatives.filters import agrees
from mbpo_core.negatives.mining import Miner
from mbpo_core.negatives.summary import summarize
from mbpo_core.negatives.tasks import open_tasks
from mbpo_core.records import Dropped, Image, Negative, Sample
from mbpo_core.seeds import derive_seed

SETTINGS = NegativesConfig(epsilon=16 / 255, step_size=4 / 255, steps=10, max_new_tokens=24)


def _mine(policy: Policy, samples: list[Sample], **changes: Any) -> tuple[list[Negative], list[Dropped]]:
    window = changes.pop("window", len(samples))
    miner = Miner(Bench(policy, SETTINGS.model_copy(update=changes), seed=0))
    negatives: list[Negative] = []
    dropped: list[Dropped] = []
    for start in range(0, len(samples), window):
        opened = open_tasks(policy, samples[start : start + window], miner.settings.max_new_tokens)
        kept, left = miner.mine(opened)
        negatives, dropped = negatives + kept, dropped + left
    return negatives, dropped


@pytest.fixture(scope="module")
def mined(demo_policy: Policy, offline_samples: list[Sample]) -> tuple[list[Negative], list[Dropped]]:
    return _mine(demo_policy, offline_samples)


def test_every_sample_is_kept_or_dropped_in_order(
    mined: tuple[list[Negative], list[Dropped]], offline_samples: list[Sample]
) -> None:
    negatives, dropped = mined
    order = [sample.sample_id for sample in offline_samples]
    kept = [negative.sample_id for negative in negatives]
    assert kept == [sample_id for sample_id in order if sample_id in kept]
    assert sorted(kept + [letter.sample_id for letter in dropped]) == sorted(order)
    assert len(kept) >= 18


def test_rows_say_what_the_model_says_about_the_saved_image(
    mined: tuple[list[Negative], list[Dropped]], demo_policy: Policy
) -> None:
    for row in mined[0][:6]:
        prompt = demo_policy.prepare(row.question, [open_image(row.rejected_images[0])])
        ((answer,),) = generate(demo_policy, [prompt], max_new_tokens=SETTINGS.max_new_tokens)
        assert answer.text == row.attacked_answer
        if json.loads(row.decode)["mode"] == "greedy":
            assert row.rejected == row.attacked_answer
        chosen = demo_policy.encode_completion(row.chosen)
        ((logprobs,),) = group_logprobs(demo_policy, [PromptGroup(prompt, [chosen])])
        assert float(logprobs.mean()) == pytest.approx(row.logprob_rounded, abs=1e-4)
        ((blind,),) = generate(demo_policy, [prompt], max_new_tokens=SETTINGS.max_new_tokens, blind="mask")
        assert blind.text == row.blind_answer


def test_the_attack_works(mined: tuple[list[Negative], list[Dropped]], offline_samples: list[Sample]) -> None:
    negatives, dropped = mined
    kinds = {sample.sample_id: sample for sample in offline_samples}
    for row in negatives:
        assert row.logprob_rounded < row.logprob_clean
        assert row.logprob_rounded == row.logprob_attacked, "on the 8-bit grid rounding is the identity"
        assert row.perturbation_linf == pytest.approx(16 / 255)
        assert row.flipped == row.flipped_unrounded
        assert row.rejected is not None
        sample = kinds[row.sample_id]
        assert not agrees(row.rejected, row.chosen, kind=row.question_kind, choices=sample.choices)
        assert row.flipped <= row.clean_correct
        attack = json.loads(row.attack)
        assert (attack["method"], attack["steps_taken"], attack["target"]) == ("adversarial", 10, "none")
        assert (attack["stopped"], attack["flip_checks"]) == ("steps", 0)
    summary = summarize([row.model_dump() for row in negatives], [letter.model_dump() for letter in dropped], 0.6)
    counts = summary["all"]
    assert counts["attacked"] == len(offline_samples)
    assert counts["kept"] == len(negatives)
    assert counts["clean_correct"] >= 8
    assert counts["flipped"] > counts["clean_correct"] / 2, "most right answers flip"
    assert sum(kind["attacked"] for kind in summary["by_kind"].values()) == counts["attacked"]
    assert (counts["steps"], counts["mean_steps"], counts["ended_early"]) == (10 * len(offline_samples), 10.0, 0)


def test_another_window_and_batch_size_give_the_same_rows(
    mined: tuple[list[Negative], list[Dropped]], demo_policy: Policy, offline_samples: list[Sample]
) -> None:
    again = {row.sample_id: row for row in _mine(demo_policy, offline_samples, window=7, batch_size=5)[0]}
    rejected = {sample.sample_id: None for sample in offline_samples}
    ours = {**rejected, **{row.sample_id: row.rejected for row in mined[0]}}
    theirs = {**rejected, **{sample_id: row.rejected for sample_id, row in again.items()}}
    equal = sum(ours[sample_id] == theirs[sample_id] for sample_id in rejected)
    assert equal >= 0.95 * len(rejected)
    for row in mined[0]:
        if row.sample_id in again:
            other = again[row.sample_id]
            assert row.logprob_clean == pytest.approx(other.logprob_clean, abs=1e-4)
            assert row.logprob_rounded == pytest.approx(other.logprob_rounded, rel=0.1, abs=0.1)


def test_a_flip_ends_the_attack_and_is_what_the_saved_image_gives(
    mined: tuple[list[Negative], list[Dropped]], demo_policy: Policy, offline_samples: list[Sample]
) -> None:
    negatives, dropped = _mine(demo_policy, offline_samples, stop_on_flip=True, batch_size=5)
    ended = [row for row in negatives if json.loads(row.attack)["stopped"] == "flip"]
    assert len(ended) >= 5
    assert all(json.loads(row.attack)["steps_taken"] < 10 for row in ended)
    for row in ended:
        # Asked alone, through the stored file, without anything that mining knew.
        prompt = demo_policy.prepare(row.question, [open_image(row.rejected_images[0])])
        ((answer,),) = generate(demo_policy, [prompt], max_new_tokens=SETTINGS.max_new_tokens)
        assert answer.text == row.attacked_answer
        assert (row.clean_correct, row.flipped) == (True, True)
        chosen = demo_policy.encode_completion(row.chosen)
        ((logprobs,),) = group_logprobs(demo_policy, [PromptGroup(prompt, [chosen])])
        assert float(logprobs.mean()) == pytest.approx(row.logprob_rounded, abs=1e-4)
    for row in negatives:
        how = json.loads(row.attack)
        assert row.clean_correct or (how["stopped"], how["flip_checks"]) == ("steps", 0), "nothing there to flip"
    # What flips after all steps flips on the way, too.
    flipped, before = ({row.sample_id for row in rows if row.flipped} for rows in (negatives, mined[0]))
    assert before <= flipped
    summary = summarize([row.model_dump() for row in negatives], [letter.model_dump() for letter in dropped], 0.6)[
        "all"
    ]
    assert summary["ended_early"] == len(ended) + sum(
        json.loads(letter.row)["attack"]["stopped"] == "flip" for letter in dropped
    )
    assert summary["mean_steps"] < 9


def test_a_confirmed_answer_is_not_decoded_again(
    demo_policy: Policy, offline_samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counting(policy: Policy, prompts: Any, completions: Any, **options: Any) -> Any:
        asked.append(len(prompts))
        return answer_and_score(policy, prompts, completions, **options)

    monkeypatch.setattr(asking, "answer_and_score", counting)
    negatives, dropped = _mine(demo_policy, offline_samples, stop_on_flip=True)
    how = [json.loads(row.attack) for row in negatives] + [json.loads(letter.row)["attack"] for letter in dropped]
    unflipped = sum(one["stopped"] != "flip" for one in how)
    # Clean images once, every check once, and saved images only where no check has seen them.
    assert sum(asked) == len(offline_samples) + sum(one["flip_checks"] for one in how) + unflipped


def test_equal_seeds_equal_rows(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    first, second = (_mine(demo_policy, offline_samples[:3], steps=1) for _ in range(2))
    assert first == second


def test_rounding_is_measured_off_the_grid(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    negatives, _ = _mine(demo_policy, offline_samples[:4], norm="l2", epsilon=2.0, step_size=0.7, steps=3)
    assert negatives
    assert all(row.logprob_attacked != row.logprob_rounded for row in negatives)
    assert all(row.logprob_attacked == pytest.approx(row.logprob_rounded, abs=1.0) for row in negatives)


def test_targeted_attack_falls_back_where_the_blind_answer_is_right(
    demo_policy: Policy, offline_samples: list[Sample]
) -> None:
    negatives, _ = _mine(demo_policy, offline_samples[:12], target="targeted", steps=2)
    sample = {s.sample_id: s for s in offline_samples}
    for row in negatives:
        right = agrees(row.blind_answer, row.chosen, kind=row.question_kind, choices=sample[row.sample_id].choices)
        assert json.loads(row.attack)["target"] == ("none" if right else "blind_answer")


def test_filters_ask_for_extra_samples_and_then_give_up(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    # Without a perturbation the model repeats what it says to the clean image: right answers must be dropped.
    still = {"epsilon": 0.0, "steps": 0}
    negatives, dropped = _mine(demo_policy, offline_samples, extra_samples=0, **still)
    assert {letter.reason for letter in dropped} == {"same_answer"}
    assert not any(row.clean_correct for row in negatives)
    for letter in dropped:
        row = json.loads(letter.row)
        assert row["clean_correct"]
        assert not row["flipped"]
        assert "images" not in row
    more, fewer = _mine(demo_policy, offline_samples, extra_samples=8, temperature=3.0, top_p=1.0, **still)
    sampled = [row for row in more if json.loads(row.decode)["mode"] == "sample"]
    assert len(fewer) < len(dropped)
    assert len(sampled) == len(dropped) - len(fewer)
    assert all(row.rejected != row.attacked_answer for row in sampled)


def test_bad_rows_are_dropped_with_a_reason(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    good = offline_samples[0]
    broken = good.model_copy(update={"sample_id": "broken", "images": [Image(bytes=b"no picture")]})
    absent = good.model_copy(update={"sample_id": "absent", "images": [Image(bytes=None, path="a.png")]})
    without = good.model_copy(update={"sample_id": "without", "images": []})
    long = good.model_copy(update={"sample_id": "long", "question": "What color is the car? " * 60})
    negatives, dropped = _mine(demo_policy, [broken, absent, without, long], steps=1)
    assert not negatives
    assert [(letter.sample_id, letter.reason) for letter in dropped] == [
        ("broken", "unreadable_image"),
        ("absent", "unreadable_image"),
        ("without", "unreadable_image"),
        ("long", "prompt_too_long"),
    ]
    special = good.model_copy(update={"question": "What is <image>?"})
    with pytest.raises(DataError, match=good.sample_id):
        _mine(demo_policy, [special])


def test_pictures_of_many_sizes(qwen: Policy, offline_samples: list[Sample]) -> None:
    samples = []
    for sample, size in zip(
        offline_samples[:6], [(32, 24), (16, 16), (32, 24), (24, 32), (16, 16), (40, 24)], strict=True
    ):
        pixels = torch.from_numpy(np.array(open_image(sample.images[0]).resize(size))).permute(2, 0, 1)
        samples.append(sample.model_copy(update={"images": [Image(bytes=png_bytes(pixels))]}))
    two_sizes = samples[0].model_copy(update={"sample_id": "two", "images": [*samples[0].images, *samples[1].images]})
    loose = {"min_length_ratio": 0.0, "max_length_ratio": 100.0, "min_distinct": 0.0}
    negatives, dropped = _mine(qwen, [*samples, two_sizes], batch_size=4, steps=2, max_new_tokens=6, **loose)
    assert [row.sample_id for row in negatives] == [sample.sample_id for sample in samples]
    for row in negatives:
        before, after = (open_image(images[0]).size for images in (row.images, row.rejected_images))
        assert before == after
        assert row.logprob_rounded < row.logprob_clean
    assert [(letter.sample_id, letter.reason) for letter in dropped] == [("two", "unreadable_image")]
    assert "native sizes" in dropped[0].detail


@pytest.mark.parametrize("method", ["noise", "diffusion", "blank"])
def test_baselines_go_the_same_way(demo_policy: Policy, offline_samples: list[Sample], method: str) -> None:
    negatives, dropped = _mine(demo_policy, offline_samples[:8], method=method)
    assert len(negatives) + len(dropped) == 8
    assert {row.kind for row in negatives} <= {method}
    for row in negatives:
        attack = json.loads(row.attack)
        assert attack["method"] == method
        assert attack["seed"] == derive_seed(0, "negatives", row.sample_id)
        assert ("epsilon" in attack) == (method == "noise")
        assert ("diffusion_step" in attack) == (method == "diffusion")
        assert (row.masks, row.keywords, row.detector) == ([], [], "")
        assert row.epsilon == (pytest.approx(16 / 255) if method == "noise" else 0)
