"""AMBER, ViLP, VLind-Bench, MMHal and twins on answers counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mbpo_core.evaluation.language_prior import normalise_word
from mbpo_core.evaluation.mmhal import mmhal_scores, read_rating
from mbpo_core.evaluation.summary import summarize
from tests.evaluation.rows import prediction


def values(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: entry["value"] for name, entry in summarize(rows, bootstrap=100)["policies"]["base"].items()}


def description(number: int, text: str, truth: list[str], hallucination: list[str]) -> dict[str, Any]:
    meta = {
        "truth": truth,
        "hallucination": hallucination,
        "synonyms": {"person": ["man", "woman"], "tree": ["oak"], "dog": ["puppy"]},
        "vocabulary": ["person", "man", "woman", "tree", "oak", "dog", "puppy", "car", "light"],
        "safe_words": ["light"],
    }
    return prediction(number, "wrong", probe="amber_generative", question_kind="open", text=text, meta=meta)


def yes_no(number: int, answer: str, text: str, verdict: str, probe: str = "amber_existence") -> dict[str, Any]:
    return prediction(number, verdict, probe=probe, question_kind="yes_no", answer=answer, text=text)


DESCRIPTIONS = [
    # man, oaks: the person and the tree (cover 2 of 2); puppy: not there, a target; light: safe. 1 of 4 mentions.
    description(0, "A man under two oaks with a puppy in the light.", ["person", "tree"], ["dog"]),
    # 0 of 2 mentions, which are one object; cover 1 of 3; no target named of 2.
    description(1, "A woman and another woman, a boat.", ["person", "tree", "car"], ["dog", "light"]),
]


def test_amber_descriptions() -> None:
    found = values(DESCRIPTIONS)
    assert found["amber_chair"] == pytest.approx(1 / 6)
    assert found["amber_cover"] == pytest.approx(3 / 5)
    assert found["amber_hal"] == pytest.approx(1 / 2)
    assert found["amber_cog"] == pytest.approx(1 / 3)
    assert "amber_score" not in found
    assert "chair_i" not in found


def test_amber_questions_have_no_as_the_positive_class() -> None:
    """Of 10: no/no 3, no/yes 2 (missed), yes/yes 3, yes/no 1 (false "no"), no/unreadable 1."""
    outcomes = [("No", "No", "correct")] * 3 + [("No", "Yes", "wrong")] * 2 + [("Yes", "Yes", "correct")] * 3
    outcomes += [("Yes", "No", "wrong"), ("No", "Perhaps", "unparsed")]
    rows = [yes_no(10 + number, *outcome) for number, outcome in enumerate(outcomes)]
    found = values([*DESCRIPTIONS, *rows, yes_no(30, "Yes", "Yes", "correct", "amber_relation")])
    assert found["amber_existence_accuracy"] == pytest.approx(6 / 10)
    assert found["amber_existence_precision"] == pytest.approx(3 / 4)
    assert found["amber_existence_recall"] == pytest.approx(3 / 6)
    assert found["amber_existence_f1"] == pytest.approx(2 * 3 / (4 + 6))
    assert found["amber_existence_unparsed"] == pytest.approx(1 / 10)
    assert found["amber_accuracy"] == pytest.approx(7 / 11)
    assert found["amber_relation_precision"] is None
    assert found["amber_score"] == pytest.approx((1 - 1 / 6 + 0.6) / 2)


def test_amber_score_has_an_interval_of_both_halves() -> None:
    rows = [yes_no(10 + n, "No", "No" if n % 2 else "Yes", "correct" if n % 2 else "wrong") for n in range(20)]
    entry = summarize([*DESCRIPTIONS, *rows], bootstrap=300)["policies"]["base"]["amber_score"]
    assert entry["low"] < entry["value"] < entry["high"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("Three", "3"), ("Refrigerators.", "fridge"), ("mice", "Mouse"), ("butterflies", "butterfly"), ("boxes", "box"),
     ("Cars!", "automobile"), ("Women", "person"), ("traffic lights", "Traffic light")],
)  # fmt: skip
def test_words_that_are_one(one: str, other: str) -> None:
    assert normalise_word(one) == normalise_word(other)


@pytest.mark.parametrize(("one", "other"), [("3", "13"), ("glass", "glas"), ("cat", "dog"), ("the cat", "cat")])
def test_words_that_are_not(one: str, other: str) -> None:
    assert normalise_word(one) != normalise_word(other)


def test_vilp_score_and_prior_with_and_without_the_fact() -> None:
    said = {"vilp_f": ["apple", "apple", "apples"], "vilp_p": ["Apple.", "two", "pears"]}
    gold = ["apple", "2", "pear"]
    rows = [
        prediction(number, "wrong", sample_id=f"{probe}-{number}", probe=probe, text=text, answer=gold[number],
                   meta={"vilp_answer": number + 1, "instance": probe})
        for probe, texts in said.items()
        for number, text in enumerate(texts)
    ]  # fmt: skip
    found = values(rows)
    assert [found[name] for name in ("vilp_f_score", "vilp_f_prior", "vilp_p_score", "vilp_p_prior")] == [0, 1, 1, 1]


def vlind(instance: str, passed: dict[str, bool], pictures: Sequence[bool]) -> list[dict[str, Any]]:
    """A true and a false statement for each check; a failed check gets one of the two wrong."""
    rows = []
    checks = [(check, "best", ok) for check, ok in passed.items()]
    checks += [("LP", f"picture {number}", ok) for number, ok in enumerate(pictures)]
    for check, picture, ok in checks:
        for statement in (True, False):
            text = "True." if statement or not ok else "No, it is false"
            meta = {"check": check, "instance": instance, "scene_id": f"{instance} {picture}", "statement": statement}
            name = f"{instance}-{check}-{picture}-{statement}"
            rows.append(
                prediction(0, sample_id=name, probe="vlind", question_kind="yes_no", answer="yes", text=text, meta=meta)
            )
    return rows


def test_vlind_checks_count_where_earlier_ones_were_passed() -> None:
    rows = [
        *vlind("a", {"CK": True, "VP": True, "CB": True}, [True, True, False, True]),
        *vlind("b", {"CK": True, "VP": True, "CB": False}, [True]),
        *vlind("c", {"CK": False, "VP": True, "CB": True}, [True, False]),
        *vlind("d", {"CK": True, "VP": False, "CB": True}, [False]),
    ]
    found = values(rows)
    assert found["vlind_ck"] == pytest.approx(3 / 4)
    assert found["vlind_vp"] == pytest.approx(3 / 4)
    assert found["vlind_cb"] == pytest.approx(2 / 3)
    assert found["vlind_lp"] == pytest.approx(0.75)
    assert found["vlind_cb_all"] == pytest.approx(3 / 4)
    assert found["vlind_lp_all"] == pytest.approx((0.75 + 1 + 0.5 + 0) / 4)
    summary = summarize(rows, bootstrap=100)
    assert summary["policies"]["base"]["vlind_ck"]["n"] == 4
    assert summary["about"]["questions"] == len(rows)


def test_an_answer_that_says_both_passes_nothing() -> None:
    rows = vlind("a", {"CK": True, "VP": True, "CB": True}, [True])
    both = [row | {"text": "true or false"} for row in rows if "VP" in row["sample_id"]]
    found = values([row for row in rows if "VP" not in row["sample_id"]] + both)
    assert (found["vlind_ck"], found["vlind_vp"], found["vlind_lp"]) == (1.0, 0.0, None)


def test_twins_need_both_and_flip() -> None:
    def pair(name: str, texts: tuple[str, str], right: tuple[bool, bool]) -> list[dict[str, Any]]:
        return [
            prediction(0, "correct" if ok else "wrong", sample_id=f"{name}{side}", text=text,
                       meta={"twin": name, "says_prior": text == "yellow"})
            for side, text, ok in zip("ab", texts, right, strict=True)
        ]  # fmt: skip

    rows = [
        *pair("p", ("yellow", "green"), (True, True)),
        *pair("q", ("Yellow", "yellow"), (True, False)),
        *pair("r", ("green", "red"), (False, True)),
        prediction(0, sample_id="alone", meta={"twin": "s"}),
    ]
    found = values(rows)
    assert found["twin_pair_accuracy"] == pytest.approx(1 / 3)
    assert found["twin_flip_rate"] == pytest.approx(2 / 3)
    assert found["twin_prior_rate"] == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("text", "rating"),
    [("Rating: 4, somewhat informative", 4), ("**Rating:** 0", 0), ("rating: 3 ... Rating: 3", 3), ("", None),
     ("Rating: 2 or rating: 5", None), ("Rating: 12", None), ("Rating: 7", None)],
)  # fmt: skip
def test_ratings_are_read(text: str, rating: int | None) -> None:
    assert read_rating(text) == rating


def test_mmhal_scores_with_unreadable_judgements_as_zero() -> None:
    texts = [("attribute", "Rating: 6"), ("attribute", "Rating: 3"), ("counting", "Rating: 2"), ("counting", "?")]
    found = mmhal_scores({"question_type": kind, "judgement": text} for kind, text in texts)
    assert found["mmhal_score"]["value"] == pytest.approx(11 / 4)
    assert found["mmhal_normalised"]["value"] == pytest.approx(11 / 24)
    assert found["mmhal_hallucination"]["value"] == pytest.approx(2 / 4)
    assert found["mmhal_unparsed"]["value"] == pytest.approx(1 / 4)
    assert found["mmhal_score_attribute"]["value"] == pytest.approx(4.5)
    assert found["mmhal_score_counting"]["value"] == pytest.approx(1)
    assert mmhal_scores([]) == {}
    assert mmhal_scores([{"question_type": "x", "judgement": "Rating: 5"}])["mmhal_score"]["low"] is None
