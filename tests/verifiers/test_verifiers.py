"""Verifiers against a table of cases (cases.json), and what must hold for any text."""

from __future__ import annotations

import gc
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers.judgement import TEXT_LIMIT
from mbpo_core.verifiers.registry import VERIFIERS, extract, find, require_answer, rules_of, verify, versions

CASES = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))
COLORS = ["red", "green", "blue", "yellow", "purple", "orange"]


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case['kind']}" for i, case in enumerate(CASES)])
def test_case(case: dict) -> None:
    choices = case.get("choices", [])
    rules = rules_of(json.dumps(case.get("meta", {})))
    judgement = verify(case["kind"], case["text"], case["answer"], choices, rules)
    assert (judgement.verdict, judgement.extracted) == (case["verdict"], case["extracted"]), judgement.reason
    assert judgement.reason
    assert (judgement.verdict == "unparsed") == (judgement.extracted is None)
    if judgement.verdict != "unparsed":
        assert extract(case["kind"], case["text"], choices, rules) == judgement.extracted


def test_the_table_covers_every_kind_and_verdict() -> None:
    counts = Counter((case["kind"], case["verdict"]) for case in CASES)
    assert len(CASES) >= 500
    assert all(case["why"] for case in CASES if "why" in case)
    assert all(counts[kind, verdict] >= 5 for kind in VERIFIERS for verdict in ("correct", "wrong", "unparsed"))


def test_no_text_is_right_about_two_colors() -> None:
    """Whatever is said, at most one of six reference answers is confirmed, as a word and as a sentence."""
    rng = random.Random(0)
    glue = [
        *COLORS,
        "the",
        "banana",
        "is",
        "not",
        "and",
        "or",
        ",",
        ".",
        "; ",
        "it",
        "answer",
        ":",
        "rather than",
        "isn't",
    ]
    for _ in range(1000):
        text = " ".join(rng.choices(glue, k=rng.randint(1, 12)))
        for wrap in ("{}", "The banana is {}."):
            right = [c for c in COLORS if verify("short_text", text, wrap.format(c)).verdict == "correct"]
            assert len(right) <= 1, (text, right)


@pytest.mark.parametrize("kind", ["yes_no", "numeric", "multiple_choice"])
def test_no_text_is_right_about_two_answers(kind: str) -> None:
    golds = {"yes_no": ["yes", "no"], "numeric": list("12345"), "multiple_choice": list("ABCD")}[kind]
    choices = COLORS[:4] if kind == "multiple_choice" else []
    rng = random.Random(1)
    glue = [
        *golds,
        *COLORS[:4],
        "the answer is",
        "not",
        "and",
        "or",
        ",",
        ".",
        ")",
        "(",
        "there are",
        "no",
        "yes",
        ":",
        "two",
    ]
    for _ in range(1000):
        text = " ".join(rng.choices(glue, k=rng.randint(1, 10)))
        right = [gold for gold in golds if verify(kind, text, gold, choices).verdict == "correct"]
        assert len(right) <= 1, (text, right)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No collection of garbage meanwhile: what other tests left in the process takes it a second at times."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("kind", [kind for kind in VERIFIERS if kind != "math"])
def test_hostile_texts_take_linear_time(kind: str) -> None:
    """The longest text that is read, built to make a backtracking pattern explode."""
    golds = {"yes_no": "yes", "multiple_choice": "A", "short_text": "green", "box": "[1, 2, 3, 4]"}
    gold = golds.get(kind, "3")
    for unit in (
        "1,",
        "a ",
        "A ",
        "((",
        "no ",
        "yes,",
        "and ",
        "not ",
        "the answer is ",
        "-",
        "1/",
        " \n",
        "0",
        "*'",
        "I",
        "[1,2,",
        "(1, 2) ",
        "$1",
        "1 1/2 ",
        "a dog and ",
        "1×10^",
    ):
        text = (unit * TEXT_LIMIT)[:TEXT_LIMIT]
        start = time.thread_time()  # of this thread alone: others may be left of tests before
        verify(kind, text, gold, COLORS[:4])
        assert time.thread_time() - start < 1.0, unit


def test_a_longer_text_is_unparsed() -> None:
    judgement = verify("yes_no", "yes " * TEXT_LIMIT, "yes")
    assert (judgement.verdict, judgement.extracted) == ("unparsed", None)
    assert str(TEXT_LIMIT) in judgement.reason


def test_an_unknown_verifier_is_named_with_the_known_ones() -> None:
    with pytest.raises(
        VerifierError, match=r"no verifier for question kind 'open'.*yes_no, multiple_choice, numeric, short"
    ):
        verify("open", "a", "b")
    assert find("numeric").label == "numeric@2"


def test_a_later_verifier_enters_identities_once_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made before there was a kind was not judged by its verifier, and stays what it is."""
    assert versions() == dict.fromkeys(["yes_no", "multiple_choice", "numeric", "short_text"], 2)
    assert {name for name in VERIFIERS if VERIFIERS[name].version == 1} == {"counting", "box", "math"}
    monkeypatch.setitem(VERIFIERS, "box", replace(VERIFIERS["box"], version=2))
    assert versions()["box"] == 2


@pytest.mark.parametrize(
    ("kind", "answer", "message"),
    [
        ("yes_no", "maybe", "yes_no cannot read the reference answer 'maybe'"),
        ("yes_no", "yes or no", "both yes and no"),
        ("multiple_choice", "E", "names none of ABCD"),
        ("multiple_choice", "B or C", "names B, C"),
        ("numeric", "many", "no number in the text"),
        ("numeric", "3 or 4", "several or malformed numbers"),
        ("numeric", "5 ± many", "cannot read the reference answer"),
        ("counting", "3.5", "is no count"),
        ("counting", "several", "no count in the text"),
        ("box", "[1, 2, 3]", "no box in the text"),
        ("box", "[3, 4, 1, 2]", "is no box"),
        ("math", "banana", "no expression in the text"),
        ("math", "\\boxed{1} \\boxed{2}", "several boxes"),
        ("short_text", "  ", "expected 1 to 30 words"),
        ("short_text", "word " * 31, "expected 1 to 30 words"),
    ],
)
def test_an_unreadable_reference_answer_is_an_error_not_a_zero(kind: str, answer: str, message: str) -> None:
    choices = ["cat", "dog", "bird", "fish"] if kind == "multiple_choice" else []
    for call in (lambda: verify(kind, "yes", answer, choices), lambda: require_answer(kind, answer, choices)):
        with pytest.raises(VerifierError) as error:
            call()
        assert message in str(error.value)
        assert error.value.remedy


def test_every_reference_answer_confirms_itself() -> None:
    for case in CASES:
        rules = rules_of(json.dumps(case.get("meta", {})))
        require_answer(case["kind"], case["answer"], case.get("choices", []), rules)
    for color, name in itertools.product(COLORS, ("banana", "grapes", "car")):
        require_answer("short_text", f"The {name} is {color}.")
