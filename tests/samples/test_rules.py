"""Kinds with rules of their own: how an input declares them, and what the samples say of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mbpo_core.config import SamplesConfig
from mbpo_core.records import Sample
from mbpo_core.samples import cells, kinds
from mbpo_core.verifiers.registry import Rules, rules_of, verify
from tests.samples.helpers import encoded, import_samples, picture, write_lines

ROWS: list[dict[str, Any]] = [
    {"id": "votes", "answers": ["sofa", "couch", "sofa", "Couch.", "settee", ""], "kind": ""},
    {"id": "own", "answers": ["sofa"], "kind": "short_text", "meta": {"aliases": ["divan"], "probe": "rooms"}},
    {"id": "one", "answers": "sofa", "kind": "short_text"},
    {"id": "number", "answers": ["100", "99"], "kind": "numeric"},
    {"id": "exact", "answers": "100", "kind": "numeric", "meta": {"tolerance": 0}},
    {"id": "box", "answers": [100, 200, 300.5, 400], "kind": "box"},
    {"id": "words", "answers": "in [100, 200, 300, 400]", "kind": "box", "meta": {"box_iou": 0.9}},
    {"id": "count", "answers": "There are no dogs.", "kind": "counting"},
    {"id": "sum", "answers": "\\boxed{\\frac{1}{2}}", "kind": "math"},
    {"id": "bad meta", "answers": "100", "kind": "numeric", "meta": {"tolerance": 5}},
    {"id": "bad box", "answers": "[100, 200, 300, 4000]", "kind": "box"},
    {"id": "bad sum", "answers": "who knows", "kind": "math"},
]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Sample], dict[str, str]]:
    folder = tmp_path_factory.mktemp("in")
    (folder / "a.png").write_bytes(encoded(picture()))
    path = write_lines(folder / "rows.jsonl", [{"image": "a.png", "question": "What?", **row} for row in ROWS])
    reader = import_samples(
        folder / "store", source="jsonl", path=str(path), id_column="id", kind_column="kind", answer_column="answers",
        aliases_column="answers", tolerance=0.05, box_scale="thousand", box_iou=0.75,
    )  # fmt: skip
    letters = {row["sample_id"]: f"{row['reason']}: {row['detail']}" for row in reader.rows("dropped")}
    return {row["sample_id"]: Sample.model_validate(row) for row in reader.rows()}, letters


def test_what_the_settings_declare_goes_with_every_row(imported: tuple[dict[str, Sample], dict[str, str]]) -> None:
    samples, _ = imported
    found = {name: json.loads(sample.meta) for name, sample in samples.items()}
    assert found == {
        "votes": {"aliases": ["couch", "settee"]},
        "own": {"aliases": ["divan"], "probe": "rooms"},
        "one": {},
        "number": {"tolerance": 0.05},
        "exact": {"tolerance": 0},
        "box": {"box_scale": "thousand", "box_iou": 0.75},
        "words": {"box_scale": "thousand", "box_iou": 0.9},
        "count": {},
        "sum": {},
    }
    forms = {name: (sample.kind, sample.answer_form, sample.answer) for name, sample in samples.items()}
    assert forms["votes"] == ("short_text", "word", "sofa")
    assert forms["box"] == ("box", "corners", "[100, 200, 300.5, 400]")
    assert forms["count"] == ("counting", "sentence", "There are no dogs.")
    assert forms["sum"] == ("math", "boxed", "\\boxed{\\frac{1}{2}}")


@pytest.mark.parametrize(
    ("name", "text", "verdict"),
    [
        ("votes", "a couch", "correct"),
        ("one", "couch", "wrong"),
        ("own", "couch", "wrong"),
        ("number", "104", "correct"),
        ("exact", "104", "wrong"),
        ("box", "[100, 200, 300, 390]", "correct"),
        ("words", "[100, 200, 300, 370]", "wrong"),
        ("box", "[0.1, 0.2, 0.3, 2000]", "unparsed"),
        ("count", "none", "correct"),
        ("sum", "0.5", "correct"),
    ],
)
def test_and_decides_the_verdict(
    imported: tuple[dict[str, Sample], dict[str, str]], name: str, text: str, verdict: str
) -> None:
    sample = imported[0][name]
    assert verify(sample.kind, text, sample.answer, sample.choices, rules_of(sample.meta)).verdict == verdict


def test_an_answer_or_a_rule_that_cannot_be_drops_the_row(imported: tuple[dict[str, Sample], dict[str, str]]) -> None:
    _, letters = imported
    assert sorted(letters) == ["bad box", "bad meta", "bad sum"]
    assert "answer_not_in_form" in letters["bad meta"]
    assert "meta.tolerance is 5" in letters["bad meta"]
    assert "is not in the scale thousand" in letters["bad box"]
    assert "no expression in the text" in letters["bad sum"]


def test_new_kinds_are_declared_and_never_inferred() -> None:
    for answer in ("[1, 2, 3, 4]", "$\\frac{1}{2}$", "\\boxed{3}", "There are 3 dogs.", "a dog", "none"):
        assert kinds.infer_kind(answer, []) not in ("box", "math", "counting"), answer
    assert cells.box_of(["3", "3", "4", "3"]) == ["3", "3", "4", "3"], "texts of four annotators are no box"


def test_settings_that_declare_nothing_leave_rows_and_identities_as_they_were() -> None:
    config = SamplesConfig()
    assert {"aliases_column", "tolerance", "box_scale", "box_iou"}.isdisjoint(config.identity())
    for kind in ("short_text", "numeric", "box", "yes_no"):
        assert kinds.with_rules('{"a":1}', kind, "sofa", [], config) == '{"a":1}'
    assert SamplesConfig(tolerance=0.05).identity()["tolerance"] == 0.05
    assert Rules(tolerance=0.05) == rules_of(kinds.with_rules("{}", "numeric", "3", [], SamplesConfig(tolerance=0.05)))
