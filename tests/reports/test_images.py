"""The rejected images made for pairs, several minings, and pairs that lack a side."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mbpo_core import records
from mbpo_core.reports.finding import how_found
from mbpo_core.reports.funnel import funnel_section
from mbpo_core.reports.kinds import changed_in_place
from mbpo_core.reports.made import images_section
from mbpo_core.reports.mined import pairs_section
from mbpo_core.reports.negatives import negatives_section
from mbpo_core.reports.pictures import Picture
from mbpo_core.reports.sources import UNNAMED, method_label, rounds_of
from tests.reports.fake_run import MemoryReader, fake_run, mined


@pytest.fixture(scope="module")
def mfpo() -> dict[str, Any]:
    return fake_run(30, method="mfpo")


def changed(source: MemoryReader, *rows: dict[str, Any]) -> MemoryReader:
    """The reader with some columns of its first rows replaced, and no others."""
    kept = [row | new for row, new in zip(source.tables["part"], rows, strict=False)]
    return replace(source, tables={**source.tables, "part": kept})


def test_card_shows_region_and_difference_where_there_are_any(mfpo: dict[str, Any]) -> None:
    found = {
        "detector": "boxes",
        "keywords": ["frog", "dog"],
        "masks": mfpo["negatives/images"].tables["part"][0]["masks"],
    }
    nothing = {"detector": "global", "keywords": [], "masks": found["masks"]}
    section = images_section([(0, changed(mfpo["negatives/images"], found, nothing))], 2)
    assert section is not None
    first, second = section.cards
    assert [caption for caption, _ in first.pictures] == ["clean", "key region", "rejected", "difference"]
    assert first.region == "“frog”, “dog”, found by boxes"
    assert [caption for caption, _ in second.pictures] == ["clean", "rejected", "difference"]
    assert second.region == "nothing found for the whole answer: the whole image"
    assert section.facts.counts == [
        ("Key regions", [("found by boxes", 1), ("not found, so that the whole image stands for them", 1)])
    ]
    described = first.pictures[1][1]
    assert isinstance(described, Picture)
    assert "“frog”, “dog”, found by boxes" in described.alt
    row = mfpo["negatives/images"].tables["part"][0]
    assert first.logprobs == (row["logprob_clean"], row["logprob_rounded"])
    assert (first.clean_answer, first.rejected_answer) == (row["clean_answer"], row["attacked_answer"])


def test_difference_needs_one_size_and_one_scene(mfpo: dict[str, Any]) -> None:
    other = fake_run(20, method="realign")["negatives/images"].slice(0, 1)[0]["rejected_images"]
    section = images_section([(0, changed(mfpo["negatives/images"], {"rejected_images": other}))], 1)
    assert section is not None
    assert "difference" not in [caption for caption, _ in section.cards[0].pictures]
    assert changed_in_place("key_region", {})
    assert changed_in_place("counterfactual", {"from": "recolour"})
    assert not changed_in_place("counterfactual", {"from": "question"})
    assert not changed_in_place("retrieved", {})
    assert not changed_in_place("crop", {})


def test_images_of_other_samples_have_no_difference() -> None:
    section = images_section([(0, fake_run(20, method="realign")["negatives/images"])], 3)
    assert section is not None
    for card in section.cards:
        assert [caption for caption, _ in card.pictures] == ["clean", "rejected"]
        (clean, rejected) = (picture for _, picture in card.pictures)
        assert clean is not None
        assert rejected is not None
        assert (clean.width, rejected.width) == (48, 60)
        assert card.found.startswith("most similar other image: demo-uniform-offline-0-")
        assert card.found.endswith(", cosine 0.87")


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ({"from": "question", "sample": "s1", "answer": "red", "same_question": True},
         "same question, another answer: s1 (“red”)"),
        ({"from": "embedding", "sample": "s1", "answer": "red", "same_question": True, "cosine": 0.912},
         "similar image, same question, another answer: s1 (“red”), cosine 0.91"),
        ({"from": "embedding", "sample": "s1", "answer": "red", "same_question": False, "cosine": 1},
         "similar image, question of the same kind: s1 (“red”), cosine 1.00"),
        ({"from": "recolour", "old": "green", "new": "blue", "swapped": False}, "painted blue instead of green"),
        ({"from": "recolour", "old": "red", "new": "blue", "thing": "red car"},
         "painted “red car” blue instead of red"),
        ({"from": "recolour", "old": "green", "new": "blue", "swapped": True},
         "painted blue instead of green; the painted picture is the clean one"),
        ({"crops": [[10, 8, 14, 18], [0, 0, 5, 6]]},
         "crop of 18 × 14 pixels at (8, 10); crop of 6 × 5 pixels at (0, 0)"),
        ({"sample": "s1", "answer": "red", "cosine": "much"}, "most similar other image: s1 (“red”), cosine much"),
        ({"crops": "many"}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_how_an_image_was_found_is_told_in_words(attack: dict[str, Any], words: str) -> None:
    assert how_found(attack) == words


def test_an_image_that_changes_nothing_is_counted(mfpo: dict[str, Any]) -> None:
    base = {"clean_correct": True, "flipped": False, "logprob_clean": -1.0, "logprob_rounded": -1.0}
    rows = (base, base | {"logprob_rounded": -3.0, "flipped": True}, base | {"clean_correct": False})
    few = [records.Negative.model_validate(row) for row in changed(mfpo["negatives/images"], *rows).rows()]
    section = negatives_section([(0, mined("negatives/images", few, {}))])
    assert section is not None
    told = {fact.what: fact.values for fact in section.facts}
    assert section.title == "What the rejected images did"
    assert told["of these, answered otherwise on the rejected image"] == ["1 of 2 (50.0 %)"]
    assert told["Chosen answer less likely on the rejected image"] == ["1 of 3 (33.3 %)"]
    assert told["Mean log p(chosen)"] == ["−1.00 → −1.67"]
    assert not [what for what in told if "attack" in what or "pixel" in what]


def test_answer_to_another_image_is_compared_with_that_images_own() -> None:
    images = fake_run(20, method="mbpo_counterfactual")["negatives/images"]
    way = {"from": "question", "sample": "s", "same_question": True}
    rows = [
        {"attacked_answer": said, "attack": json.dumps({**way, "answer": "Red."})} for said in ("red", "Blue", "red.")
    ]
    section = negatives_section([(0, changed(images, *rows, {"attack": json.dumps({"from": "recolour"})}))])  # type: ignore[arg-type]
    assert section is not None
    assert section.says == "2 of 3 (66.7 %)"
    assert section.counts[-1] == (
        "Rejected images",
        [("another image of the same question", 3), ("the thing in the key region painted in another colour", 1)],
    )


def test_rounds_that_mine_anew_stand_beside_one_another() -> None:
    run = fake_run(24, method="mbpo_remined")
    negatives, pairs = rounds_of(run, "negatives"), rounds_of(run, "pairs")
    section = negatives_section(negatives)
    assert section is not None
    assert section.rounds == ["round 1", "round 2"]
    assert all(len(fact.values) == 2 for fact in section.facts)
    samples = [reader.count() + reader.manifest.dropped["same_answer"] for _, reader in negatives]
    right = next(fact for fact in section.facts if fact.what == "Right on the clean image")
    assert [value.split()[2] for value in right.values] == [str(count) for count in samples]
    assert sum(int(line[1]) for line in section.by_kind) == sum(samples)
    mined = pairs_section(pairs, negatives, 5)
    assert mined is not None
    assert [card.round_name for card in mined.cards] == ["round 1"] * 3 + ["round 2"] * 2
    assert all(card.blind_answer for card in mined.cards)
    assert mined.total == sum(reader.count() for _, reader in pairs)
    funnel = funnel_section(run)
    assert funnel is not None
    step = next(step for step in funnel.steps if step.name == "pairs")
    assert step.count == mined.total
    assert step.note.endswith("over 2 rounds: 6, 6")


def test_pairs_without_a_rejected_answer_say_so() -> None:
    run = fake_run(20, method="image")
    section = pairs_section(rounds_of(run, "pairs"), rounds_of(run, "negatives"), 3)
    assert section is not None
    assert section.image_only == section.total == run["pairs"].count()
    assert [(card.rejected, card.gain_rejected) for card in section.cards] == [(None, None)] * 3
    assert section.gains[0].legend == [("s-chosen", "chosen")]
    assert all(card.found for card in section.cards)


def test_pairs_without_a_rejected_image_show_every_clean_one() -> None:
    run = fake_run(20, method="mia_dpo")
    section = pairs_section(rounds_of(run, "pairs"), rounds_of(run, "negatives"), 1)
    assert section is not None
    assert [caption for caption, _ in section.cards[0].pictures] == ["image 1", "image 2"]
    facts = negatives_section(rounds_of(run, "negatives"))
    assert facts is not None
    assert facts.title == "Where the rejected answers come from"
    assert facts.heads == ["question kind", "samples", "right on the clean image"]
    assert all(len(line) == 3 for line in facts.by_kind)


def test_funnel_tells_what_the_method_has_none_of(mfpo: dict[str, Any]) -> None:
    funnel = funnel_section(mfpo)
    assert funnel is not None
    assert funnel.absent == ["No rollouts: MFPO learns from pairs alone."]
    last = funnel.steps[-1]
    assert (last.name, last.count) == ("rejected images", mfpo["negatives/images"].count())
    assert last.note == "of the pairs, with a key region image made for each"
    assert last.dropped == [("nothing_to_change", "there was nothing that could be changed", 1)]
    groups = funnel_section(fake_run(20, method="grpo"))
    assert groups is not None
    assert groups.title == "Samples"
    assert [step.name for step in groups.steps] == ["samples", "online samples"]
    assert groups.absent == ["No negatives and no pairs: GRPO online learns from verified online groups alone."]
    unfinished = funnel_section({key: mfpo[key] for key in ("samples", "negatives")})
    assert unfinished is not None
    assert unfinished.absent == []


def test_answer_that_stayed_right_is_an_attacks_failure_only_under_an_attack(mfpo: dict[str, Any]) -> None:
    for method, words in (
        ("mbpo", "the answer stayed right under the attack"),
        ("image", "the answer stayed right under the rejected image"),
        ("clip_dpo", "the rejected answer says what the chosen one says"),
    ):
        funnel = funnel_section(fake_run(12, method=method))
        assert funnel is not None
        dropped = next(step.dropped for step in funnel.steps if step.name == "negatives")
        assert dropped == [("same_answer", words, 2)]


def test_method_is_found_out_without_an_evaluation() -> None:
    run = fake_run(12, method="mbpo_counterfactual")
    assert method_label(run) == "mbpo_counterfactual"
    del run["evaluation"]
    assert method_label(run) == "mbpo_counterfactual"  # the second round started from it
    assert method_label({"training/0": run["training/0"], "training/sft": run["training/sft"]}) == UNNAMED
