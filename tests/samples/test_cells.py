"""Cells, kinds, forms and splits of single rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mbpo_core.config import SamplesConfig
from mbpo_core.samples import cells, kinds, splits
from mbpo_core.samples.problems import Unusable

OPTIONS = ["cat", "dog", "bird"]


def problem(call: Any, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(Unusable) as error:
        call(*arguments)
    return error.value.reason, error.value.detail


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  What?  ", "What?"),
        ("<image>\nWhat?", "What?"),
        ("What is it?\n<image>", "What is it?"),
        (3, "3"),
        (3.0, "3"),
        (2.5, "2.5"),
        (True, "yes"),
        (False, "no"),
    ],
)
def test_text_of(value: Any, text: str) -> None:
    assert cells.text_of(value, "answer") == text


@pytest.mark.parametrize("value", [None, "", "  ", "<image>", float("nan"), [], ["a"], {"a": 1}, b"bytes"])
def test_text_of_nothing(value: Any) -> None:
    reason, detail = problem(cells.text_of, value, "answer")
    assert reason == "missing_value"
    assert detail.startswith("answer is ")


def test_the_annotators_majority_is_the_answer() -> None:
    annotated = [
        {"answer": "red", "answer_id": 1},
        {"answer": "blue", "answer_id": 2},
        {"answer": "blue", "answer_id": 3},
    ]
    assert cells.answer_of(annotated, "answers") == "blue"
    assert cells.answer_of(["red", "blue", None], "answers") == "red"
    assert cells.answer_of([], "answers") is None


@pytest.mark.parametrize(
    "value",
    [
        OPTIONS,
        json.dumps(OPTIONS),
        {"text": OPTIONS, "label": ["A", "B", "C"]},
        {"A": "cat", "B": "dog", "C": "bird", "D": None},
        {"C": "bird", "A": "cat", "B": "dog"},
    ],
)
def test_choices_of(value: Any) -> None:
    assert cells.choices_of(value, "options") == OPTIONS


@pytest.mark.parametrize("value", [None, [], "", "[]"])
def test_no_choices(value: Any) -> None:
    assert cells.choices_of(value, "options") == []


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ("cat; dog", "is the text 'cat; dog', expected a list"),
        (["cat"], "1 options, expected 2 to 26"),
        ([str(i) for i in range(27)], "27 options, expected 2 to 26"),
        (["Cat.", "the cat"], "same up to case and punctuation"),
        (["cat", None], "expected a list of texts"),
        (7, "expected a list of texts"),
    ],
)
def test_bad_choices(value: Any, detail: str) -> None:
    reason, text = problem(cells.choices_of, value, "options")
    assert reason == "bad_choices"
    assert detail in text


@pytest.mark.parametrize(
    ("answer", "letter"), [("B", "B"), ("(b)", "B"), ("dog", "B"), ("Dog.", "B"), (1, "B"), ("a cat", "A")]
)
def test_letter_of(answer: Any, letter: str) -> None:
    assert cells.letter_of(answer, OPTIONS, "answer") == letter


def test_letter_of_numbers_is_not_guessed() -> None:
    assert cells.letter_of("2", ["1", "2", "3"], "answer") == "B"
    assert cells.letter_of(1, ["0", "1", "2"], "answer") == "B"
    reason, detail = problem(cells.letter_of, 1, ["1", "2", "3"], "answer")  # option "1", or the second option?
    assert (reason, "different options" in detail) == ("bad_choices", True)
    reason, detail = problem(cells.letter_of, "horse", OPTIONS, "answer")
    assert "'horse' is no option of ABC" in detail
    assert problem(cells.letter_of, 3, OPTIONS, "answer")[0] == "bad_choices"
    assert problem(cells.letter_of, "", OPTIONS, "answer")[0] == "missing_value"


LLAVA = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "<image>\nWhat is it?"},
    {"from": "gpt", "value": "A dog."},
    {"from": "human", "value": "Is it big?"},
    {"from": "gpt", "value": "No."},
]
CHAT = [
    {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
]


@pytest.mark.parametrize(("turns", "slots"), [(LLAVA, 1), (json.dumps(LLAVA), 1), (CHAT, 0)])
def test_the_first_turns_of_a_conversation(turns: Any, slots: int) -> None:
    assert cells.conversation_of(turns, "conversations") == ("What is it?", "A dog.", slots)


@pytest.mark.parametrize(
    "turns", [None, "", "not json", [], LLAVA[:2], LLAVA[2:3], [{"from": "human"}, {"from": "gpt"}], {"a": 1}, [3]]
)
def test_a_conversation_without_an_answer(turns: Any) -> None:
    assert problem(cells.conversation_of, turns, "conversations")[0] == "missing_value"


def test_meta_is_carried_as_a_json_object() -> None:
    assert json.loads(cells.meta_of({"probe": "night", "n": 1})) == {"probe": "night", "n": 1}
    assert cells.meta_of('{"probe": "night"}') == '{"probe": "night"}'
    assert cells.meta_of(None) == "{}"
    assert problem(cells.meta_of, "probe")[0] == problem(cells.meta_of, [1])[0] == "missing_value"


@pytest.mark.parametrize(
    ("answer", "choices", "kind", "form"),
    [
        ("Yes", [], "yes_no", "word"),
        ("no.", [], "yes_no", "word"),
        ("Yes, there is a dog.", [], "open", "free"),
        ("know", [], "short_text", "word"),
        ("3", [], "numeric", "number"),
        ("1,234", [], "numeric", "number"),
        ("50 %", [], "numeric", "number"),
        ("three", [], "numeric", "free"),
        ("twenty five", [], "numeric", "free"),
        ("none", [], "short_text", "word"),
        ("3 dogs", [], "short_text", "free"),
        ("red", [], "short_text", "word"),
        ("light green car", [], "short_text", "free"),
        ("It is green.", [], "short_text", "sentence"),
        ("a red and green bird", [], "open", "free"),
        ("B", OPTIONS, "multiple_choice", "letter"),
        ("dog", OPTIONS, "multiple_choice", "free"),
    ],
)
def test_kind_and_form_are_inferred(answer: str, choices: list[str], kind: str, form: str) -> None:
    inferred = kinds.infer_kind(answer, choices)
    assert inferred == kind
    assert kinds.infer_form(inferred, answer, choices) == form
    kinds.check_answer(inferred, kinds.infer_form(inferred, answer, choices), answer, choices)


def test_declared_kinds() -> None:
    assert kinds.declared_kind("Yes-No") == "yes_no"
    assert kinds.declared_kind("multiple choice") == "multiple_choice"
    reason, detail = problem(kinds.declared_kind, "numerical")
    assert reason == "unknown_kind"
    assert detail.endswith("did you mean numeric")


@pytest.mark.parametrize(
    ("kind", "form", "answer", "detail"),
    [
        ("short_text", "word", "light green", "'light green' is not in the form 'word'"),
        ("open", "sentence", "green", "'green' is not in the form 'sentence'"),
        ("yes_no", "free", "maybe", "says neither yes nor no"),
        ("numeric", "free", "many", "no number in the text"),
        ("short_text", "free", "word " * 31, "1 to 30 words"),
    ],
)
def test_answers_that_cannot_serve(kind: Any, form: Any, answer: str, detail: str) -> None:
    reason, text = problem(kinds.check_answer, kind, form, answer, [])
    assert reason == "answer_not_in_form"
    assert detail in text


def test_options_are_listed_unless_shown() -> None:
    asked = kinds.with_options("What is it?", OPTIONS, "letter")
    assert asked == "What is it?\nA. cat\nB. dog\nC. bird\nAnswer with the letter."
    assert kinds.with_options(asked, OPTIONS, "letter") == asked
    assert kinds.with_options("What is it?", OPTIONS, "free").endswith("C. bird")


def test_splits_go_by_the_image_and_their_names() -> None:
    config = SamplesConfig(source="jsonl", path="x", offline_share=0.6, online_share=0.2, dev_share=0.1)
    dealt = [splits.deal(str(i), config) for i in range(4000)]
    for split, share in {"offline": 0.6, "online": 0.2, "dev": 0.1, "eval": 0.1}.items():
        assert abs(dealt.count(split) / 4000 - share) < 0.03
    assert dealt == [splits.deal(str(i), config) for i in range(4000)]
    names = {"offline": "offline", "Online": "online", "validation": "dev", "val": "dev", "dev": "dev", "test": "eval"}
    assert {name: splits.declared(name, "1", config) for name in names} == names
    trained = [splits.declared("train", str(i), config) for i in range(4000)]
    assert set(trained) == {"offline", "online"}
    assert abs(trained.count("offline") / 4000 - 0.75) < 0.03
    for shares, split in (({"offline_share": 0, "online_share": 0.3}, "online"), ({"online_share": 0}, "offline")):
        only = SamplesConfig(source="jsonl", path="x", **shares)
        assert {splits.declared("train", str(i), only) for i in range(100)} == {split}
    reason, detail = problem(splits.declared, "holdout", "1", config)
    assert (reason, "'holdout' is none of offline" in detail) == ("missing_value", True)
