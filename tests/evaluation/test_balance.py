"""Questions that are asked again: whose image, under which noise, and what comes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as pil

from mbpo_core.config import EvaluationConfig
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.evaluation.answering import answer_questions, open_questions
from mbpo_core.evaluation.balance import Balance, choose_partners, gains_of
from mbpo_core.evaluation.seeing import gain_curves
from mbpo_core.evaluation.summary import summarize
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.noise import alpha_bars, noised_picture
from mbpo_core.models.scoring import group_logprobs
from tests.evaluation.rows import prediction

if TYPE_CHECKING:
    from mbpo_core.models.policy import Policy

CONFIG = EvaluationConfig(max_new_tokens=24)


def question(number: int, answer: str, kind: str = "short_text", probe: str = "p") -> dict[str, Any]:
    asked = f"What color is the thing {number}?"
    meta = json.dumps({"probe": probe})
    return {"sample_id": f"s{number}", "kind": kind, "question": asked, "answer": answer, "meta": meta}


def test_partners_are_of_the_same_probe_with_another_answer() -> None:
    samples = [question(number, "green" if number % 2 else "The thing is red.") for number in range(20)]
    samples += [question(20, "red", probe="alone"), question(21, "red", kind="open"), question(22, "blue", probe="two")]
    samples += [question(23, "It is not blue.", probe="two")]
    partners = choose_partners(samples)
    for number in range(20):
        other = partners[f"s{number}"]
        assert other is not None
        assert int(other[1:]) % 2 != number % 2
        assert int(other[1:]) < 20
    assert (partners["s20"], partners["s21"], partners["s22"]) == (None, None, "s23")
    assert len({partners[f"s{number}"] for number in range(20)}) > 4
    assert choose_partners(samples[::-1]) == partners


def test_answers_that_say_the_same_in_other_words_are_no_partners() -> None:
    assert set(choose_partners([question(1, "green"), question(2, "The thing 2 is green.")]).values()) == {None}
    assert set(choose_partners([question(1, "green"), question(2, "Green")]).values()) == {None}


def test_noise_grows_with_its_step_and_belongs_to_its_seed(demo_policy: Policy) -> None:
    picture = pil.fromarray(np.full((48, 48, 3), 128, dtype=np.uint8))
    at = {step: np.array(noised_picture(demo_policy.family, picture, step, 1), dtype=float) for step in (0, 300, 999)}
    spread = [at[step].std() for step in (0, 300, 999)]
    assert spread[0] < 2 < spread[1] < spread[2]
    family = demo_policy.family
    assert np.array_equal(at[300], np.array(noised_picture(family, picture, 300, 1)))
    assert not np.array_equal(at[300], np.array(noised_picture(family, picture, 300, 2)))


def test_noise_has_the_schedules_share(demo_policy: Policy) -> None:
    """The spread of a grey picture under noise is sqrt(1 - abar) in normalised units, before clipping matters."""
    picture = pil.fromarray(np.full((96, 96, 3), 120, dtype=np.uint8))
    noised = np.array(noised_picture(demo_policy.family, picture, 100, 3), dtype=np.float32).transpose(2, 0, 1) / 255
    import torch

    spread = demo_policy.family.normalise(torch.from_numpy(noised)[None]).std(dim=(0, 2, 3))
    assert spread.tolist() == pytest.approx([float((1 - alpha_bars()[100]).sqrt())] * 3, rel=0.05)


@pytest.fixture(scope="module")
def samples() -> list[dict[str, Any]]:
    """Two questions of each large eval probe."""
    counts = DemoCounts(offline=0, online=0, dev_probe=0, dev_small_probe=0, eval_probe=2, eval_small_probe=0)
    return [row.model_dump() for row in demo_samples("uniform", 5, counts)]


def test_columns_of_looked_at_questions(demo_policy: Policy, samples: list[dict[str, Any]]) -> None:
    looked = samples[:-2] if samples[-1]["kind"] != "open" else samples
    partners = choose_partners(looked) | {samples[0]["sample_id"]: samples[2]["sample_id"]}
    left_out = samples[1]["sample_id"]
    del partners[left_out]
    balance = Balance(partners, {row["sample_id"]: row["images"] for row in samples})
    rows = answer_questions(
        demo_policy, "base", open_questions(demo_policy, samples, CONFIG, balance), CONFIG, keep_images=False
    )
    plain = answer_questions(
        demo_policy, "base", open_questions(demo_policy, samples, CONFIG), CONFIG, keep_images=False
    )
    assert [row["text"] for row in rows] == [row["text"] for row in plain]
    for row in rows:
        inside, closed = row["sample_id"] in partners, row["question_kind"] != "open"
        assert (row["noised_text"] is not None) == (inside and closed) == (row["noised_verdict"] is not None)
        assert (row["shuffled_text"] is not None) == (partners.get(row["sample_id"]) is not None)
        assert bool(row["token_gains_gold"]) == bool(row["token_gains_answer"]) == inside
        assert (row["token_gains_gold"] == row["token_gains_answer"]) == (not inside or row["answer"] == row["text"])
    swapped = samples[0] | {"images": samples[2]["images"]}
    (asked,) = answer_questions(
        demo_policy, "base", open_questions(demo_policy, [swapped], CONFIG), CONFIG, keep_images=False
    )
    assert rows[0]["shuffled_text"] == asked["text"]


def test_a_partner_whose_image_is_unreadable_is_left_out(demo_policy: Policy, samples: list[dict[str, Any]]) -> None:
    first, second = samples[0]["sample_id"], samples[2]["sample_id"]
    balance = Balance({first: second}, {second: [{"bytes": b"?", "path": None}]})
    opened = open_questions(demo_policy, samples[:1], CONFIG, balance)
    (row,) = answer_questions(demo_policy, "base", opened, CONFIG, keep_images=False)
    assert row["shuffled_text"] is None
    assert row["noised_text"] is not None


def test_gains_are_seeing_minus_blind(demo_policy: Policy, samples: list[dict[str, Any]]) -> None:
    prompt = demo_policy.prepare(samples[0]["question"], [open_image(samples[0]["images"][0])])
    completions = [demo_policy.encode_completion(text) for text in (samples[0]["answer"], "No.")]
    (found,) = gains_of(demo_policy, [PromptGroup(prompt, completions)], "mask")
    for tokens, gains in zip(completions, found, strict=True):
        alone = [PromptGroup(prompt, [tokens])]
        ((seeing,),), ((blind,),) = group_logprobs(demo_policy, alone), group_logprobs(demo_policy, alone, blind="mask")
        assert gains == pytest.approx((seeing - blind).tolist(), abs=1e-4)
    assert gains_of(demo_policy, [], "mask") == []


def values(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: entry["value"] for name, entry in summarize(rows, bootstrap=100)["policies"]["base"].items()}


def test_measures_on_hand_made_rows() -> None:
    """Of 8: 6 right. Shuffled: 2 right of 5 asked, 3 of which are right with their own image."""
    shuffled = ["correct", "wrong", "correct", "unparsed", "wrong", None, None, None]
    noised = ["Green!", "red", "green", None, "green", "green", "blue", None]
    verdicts = ["correct", "correct", "wrong", "wrong", "correct", "correct", "correct", "correct"]
    rows = [
        prediction(
            number, verdicts[number], shuffled_verdict=shuffled[number], noised_text=noised[number],
            token_gains_gold=[1.0, 2.0] if number == 0 else [0.5] if number == 1 else [],
            token_gains_answer=[float(number)] if number < 3 else [],
            meta={"says_prior": number in (0, 2)},
        )
        for number in range(8)
    ]  # fmt: skip
    found = values(rows)
    assert found["shuffle_gap"] == pytest.approx((3 - 2) / 5)
    assert found["shuffle_accuracy"] == pytest.approx(2 / 5)
    assert found["noise_unchanged"] == pytest.approx(4 / 6)
    assert found["noise_unchanged_right"] == pytest.approx(3 / 5)
    assert found["noise_unchanged_wrong"] == pytest.approx(1 / 1)
    assert found["wrong_says_prior"] == pytest.approx(1 / 2)
    assert found["gain_gold"] == pytest.approx((1.5 + 0.5) / 2)
    assert found["gain_answer"] == pytest.approx((0 + 1 + 2) / 3)
    described = summarize(rows, bootstrap=100)["metrics"]
    assert described["gain_gold"]["unit"] == "nats"


def test_gain_by_position() -> None:
    rows = [prediction(0, token_gains_gold=[1.0, 3.0]), prediction(1, token_gains_gold=[2.0], token_gains_answer=[4.0])]
    curves = gain_curves(rows)["base"]
    assert curves["gold"] == [{"position": 0, "gain": 1.5, "n": 2}, {"position": 1, "gain": 3.0, "n": 1}]
    assert curves["answer"] == [{"position": 0, "gain": 4.0, "n": 1}]
    assert len(gain_curves(rows, positions=1)["base"]["gold"]) == 1
