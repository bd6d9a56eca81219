"""Rejected responses without a wrong picture: given, finished blind, or written anew in part."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL.Image import Image

from mbpo_core.generation.generate import generate
from mbpo_core.models.groups import Prompt
from mbpo_core.models.policy import Policy
from mbpo_core.negatives import responses
from mbpo_core.negatives.choosing import reason_against
from mbpo_core.negatives.filters import agrees
from mbpo_core.negatives.items import Made, Unmade
from mbpo_core.records import Negative, Sample
from tests.negatives.benches import bench_of, known_of, mine

CAPTION = "The image shows a red banana, a blue cat, a green dog and a yellow whale."


def rejected_of(rows: list[Negative]) -> dict[str, str | None]:
    return {row.sample_id: row.rejected for row in rows}


def test_a_given_response_is_taken_as_it_is(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    said = offline_samples[0].model_copy(update={"rejected": "Something else: quite long, and never decoded by this."})
    rows, dropped = mine(bench_of(demo_policy, [said], method="given"), [said, offline_samples[1]])
    assert [(row.sample_id, row.rejected, row.kind) for row in rows] == [(said.sample_id, said.rejected, "given")]
    assert json.loads(rows[0].decode) == {"mode": "given"}
    assert rows[0].rejected_images == []
    assert rows[0].attacked_answer == rows[0].clean_answer
    assert [(letter.sample_id, letter.reason) for letter in dropped] == [(offline_samples[1].sample_id, "no_rejected")]


def test_every_family_goes_on_behind_a_prefix(family_policy: Policy, pictures: list[Image]) -> None:
    """Greedy decoding from [prompt, y_1 .. y_k] gives y_(k+1) .., seeing and blind; the texts join."""
    prompts = [family_policy.prepare("What color is the cat?", [picture]) for picture in pictures[:2]]
    for blind in (None, "mask"):
        for prompt in prompts:
            ((whole,),) = generate(family_policy, [prompt], max_new_tokens=8, blind=blind)  # type: ignore[arg-type]
            for kept in (1, 3):
                if kept >= len(whole.token_ids):
                    continue
                longer = Prompt(prompt.token_ids + whole.token_ids[:kept], images=prompt.images)
                left = len(whole.token_ids) - kept
                ((rest,),) = generate(family_policy, [longer], max_new_tokens=left, blind=blind)  # type: ignore[arg-type]
                assert rest.token_ids == whole.token_ids[kept:]
                assert family_policy.decode(whole.token_ids[:kept] + rest.token_ids) == whole.text


def test_own_answers_are_negatives_where_they_are_wrong(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    bench = bench_of(demo_policy, offline_samples, method="own")
    kept, dropped = mine(bench, offline_samples)
    prompts = [known.task.prompt for known in known_of(bench, offline_samples)]
    said = [one.text for (one,) in generate(demo_policy, prompts, max_new_tokens=24)]
    wrong = {
        sample.sample_id: text
        for sample, text in zip(offline_samples, said, strict=True)
        if not agrees(text, sample.answer, kind=sample.kind, choices=sample.choices)
    }
    assert wrong
    assert len(wrong) < len(offline_samples)
    assert {row.sample_id: row.rejected for row in kept} == {
        name: text for name, text in wrong.items() if name not in {letter.sample_id for letter in dropped}
    }
    assert all(not row.rejected_images and not row.clean_correct for row in kept)
    assert {letter.sample_id for letter in dropped if letter.reason == "same_answer"} == {
        sample.sample_id for sample in offline_samples if sample.sample_id not in wrong
    }


def test_the_second_half_is_written_blind(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    bench = bench_of(demo_policy, offline_samples, method="dropped_image", extra_samples=0)
    several = known_of(bench, offline_samples)
    results = responses.dropped_image(bench, several)
    assert sum(isinstance(made, Made) for made in results) >= 8
    for known, made in zip(several, results, strict=True):
        task, words = known.task, known.task.chosen[:-1]
        half = words[: len(words) // 2]
        # By hand: one prompt, one continuation, without the gap's own code.
        prompt = Prompt(task.prompt.token_ids + half, task.prompt.images)
        ((rest,),) = generate(demo_policy, [prompt], max_new_tokens=24, blind="mask")
        text = demo_policy.decode([*half, *rest.token_ids])
        if isinstance(made, Unmade):
            same = agrees(text, task.sample.answer, kind=task.sample.kind, choices=task.sample.choices)
            assert same == (made.reason == "same_answer")
            assert made.reason == reason_against(task, text, len(demo_policy.encode_completion(text)), bench.settings)
        else:
            assert made.rejected == text
            assert made.how == {"kept_before": len(half), "kept_behind": 0, "draw": "greedy", "index": 0}
            assert made.rejected.startswith(demo_policy.decode(half))


def test_samples_follow_where_the_greedy_answer_is_refused(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    few, many = (
        mine(bench_of(demo_policy, offline_samples, method="dropped_image", extra_samples=count), offline_samples)[0]
        for count in (0, 8)
    )
    assert len(many) > len(few)
    assert rejected_of(few).items() <= rejected_of(many).items()
    drawn = [json.loads(row.attack) for row in many if row.sample_id not in rejected_of(few)]
    assert {how["draw"] for how in drawn} == {"extra"}
    assert len({how["index"] for how in drawn}) > 1
    assert all(row.rejected_images == [] and json.loads(row.decode) == {"mode": "made"} for row in many)


@pytest.mark.parametrize(
    "settings",
    [{"method": "dropped_image"}, {"method": "segment"}, {"method": "segment", "segment_tokens": 2, "temperature": 3}],
)
def test_rows_do_not_depend_on_their_window(
    demo_policy: Policy, offline_samples: list[Sample], settings: dict[str, Any]
) -> None:
    first, _ = mine(bench_of(demo_policy, offline_samples, **settings), offline_samples)
    again, _ = mine(bench_of(demo_policy, offline_samples, batch_size=3, **settings), offline_samples, 7)
    assert len(first) >= 8
    assert rejected_of(again) == rejected_of(first)
    assert [row.attack for row in again] == [row.attack for row in first]


def test_a_stretch_is_written_anew_between_what_stays(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    """Twelve samples of one long answer: each has a stretch of its own, and the rest token for token."""
    pool = [
        sample.model_copy(update={"answer": CAPTION, "kind": "open", "question": "Describe the image.", "choices": []})
        for sample in offline_samples[:12]
    ]
    bench = bench_of(demo_policy, pool, method="segment", segment_tokens=4, temperature=2.0, top_p=1.0)
    words = demo_policy.encode_completion(CAPTION)[:-1]
    starts, changed = set(), 0
    for made in responses.segment(bench, known_of(bench, pool)):
        if isinstance(made, Unmade):
            continue
        before, behind = made.how["kept_before"], made.how["kept_behind"]
        assert before + 4 + behind == len(words)
        assert made.rejected is not None
        assert made.rejected.startswith(demo_policy.decode(words[:before]))
        assert made.rejected.endswith(demo_policy.decode(words[before + 4 :]))
        starts.add(before)
        changed += made.rejected != CAPTION
    assert changed >= 8
    assert len(starts) >= 5
    assert max(starts) <= len(words) - 4


def test_an_answer_of_one_segment_is_sampled_as_a_whole(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    bench = bench_of(demo_policy, offline_samples, method="segment", segment_tokens=64, temperature=2.0, top_p=1.0)
    several = known_of(bench, offline_samples)
    results = responses.segment(bench, several)
    made = [one for one in results if isinstance(one, Made)]
    assert len(made) >= 12
    assert {(one.how["kept_before"], one.how["kept_behind"]) for one in made} == {(0, 0)}
    colder = bench_of(demo_policy, offline_samples, method="segment", segment_tokens=64, temperature=0.01, top_p=1.0)
    likely = {
        known.task.sample.sample_id: one.rejected
        for known, one in zip(several, responses.segment(colder, several), strict=True)
        if isinstance(one, Made)
    }
    greedy = {known.task.sample.sample_id: known.clean.answer.text for known in several}
    assert likely
    assert likely.items() <= greedy.items(), "near temperature 0 it is the answer to the clean image"


def test_a_prefix_that_leaves_no_room(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    """Prompt and answer fit (112 and 100 of 256), but half of it and as many new tokens do not."""
    answer = " ".join(["red"] * 96)
    sample = offline_samples[0].model_copy(update={"answer": answer})
    bench = bench_of(demo_policy, [sample], method="dropped_image", max_new_tokens=180)
    (known,) = known_of(bench, [sample])
    (unmade,) = responses.dropped_image(bench, [known])
    assert isinstance(unmade, Unmade)
    needed = len(known.task.prompt.token_ids) + (len(known.task.chosen) - 1) // 2 + 180
    assert (unmade.reason, unmade.detail) == ("prompt_too_long", f"{needed} tokens are needed, the model takes 256")
