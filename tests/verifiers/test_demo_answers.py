"""The verifiers on the demo's own questions: truth is confirmed in every form, the prior's answer is not."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.records import CLOSED_KINDS, Sample
from mbpo_core.verifiers.registry import extract, follows_form, require_answer, verify


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    counts = DemoCounts(offline=150, online=150, eval_probe=0, eval_small_probe=0, dev_probe=25, dev_small_probe=25)
    return [s for s in demo_samples("uniform", 11, counts) if s.kind in CLOSED_KINDS]


def test_every_reference_answer_is_in_form_and_confirms_itself(samples: list[Sample]) -> None:
    seen = Counter((sample.kind, sample.answer_form) for sample in samples)
    assert {kind for kind, _ in seen} == {"yes_no", "multiple_choice", "numeric", "short_text"}
    assert {form for _, form in seen} == {"sentence", "word", "number", "letter"}
    for sample in samples:
        require_answer(sample.kind, sample.answer, sample.choices)
        assert follows_form(sample.answer_form, sample.kind, sample.answer, sample.choices), sample.answer


def test_the_priors_answer_is_wrong_where_it_conflicts(samples: list[Sample]) -> None:
    conflicts = 0
    for sample in samples:
        meta = json.loads(sample.meta)
        if meta["prior_answer"] is not None:
            expected = "wrong" if meta["conflict"] else "correct"
            verdict = verify(sample.kind, meta["prior_answer"], sample.answer, sample.choices).verdict
            # "No, it is green" for "No, it is yellow": yes or no is what is judged.
            same = extract(sample.kind, meta["prior_answer"], sample.choices) == extract(
                sample.kind, sample.answer, sample.choices
            )
            assert verdict == expected or (sample.kind == "yes_no" and same)
            conflicts += expected == "wrong"
    assert conflicts > 50


def test_an_answer_to_another_question_is_never_confirmed_by_form_alone(samples: list[Sample]) -> None:
    """Each answer against the references of the same topic that differ from it."""
    for kind in CLOSED_KINDS:
        group = [s for s in samples if s.kind == kind and not s.choices][:40]
        for sample in group:
            for other in group:
                if extract(kind, sample.answer) != extract(kind, other.answer):
                    assert verify(kind, sample.answer, other.answer).verdict != "correct"
