"""What mining counts, on counts made by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mbpo_core.negatives.summary import flip_outcome, summarize


@pytest.mark.parametrize(
    ("text", "prior", "kind", "expected"),
    [
        ("The banana is yellow.", "the banana is yellow", "open", "prior"),
        ("yellow", "The banana is yellow.", "short_text", "prior"),  # as the kind's verifier reads it
        ("Yellow.", "yellow", "short_text", "prior"),
        ("purple", "yellow", "short_text", "other"),
        ("purple", None, "short_text", "other"),
        ("Yes", "yes", "yes_no", "prior"),
        ("banana banana", "yes", "yes_no", "nonsense"),
        ("5", "4", "numeric", "other"),
        ("many", "4", "numeric", "nonsense"),
        ("  ", "yellow", "short_text", "nonsense"),
        ("a dog a dog a dog a dog a dog", None, "open", "nonsense"),
        ("I'm sorry, I cannot see the image.", "yellow", "short_text", "refusal"),
        ("The image is blurry.", None, "open", "refusal"),
        ("red", "B", "multiple_choice", "other"),
    ],
)
def test_outcomes(text: str, prior: str | None, kind: str, expected: str) -> None:
    assert flip_outcome(text, prior, kind=kind, min_distinct=0.6) == expected


def test_options_tell_an_answer_from_nonsense() -> None:
    options = {"kind": "multiple_choice", "choices": ["red", "blue"], "min_distinct": 0.6}
    assert flip_outcome("green", None, **options) == "nonsense"  # type: ignore[arg-type]
    assert flip_outcome("blue", "B", **options) == "prior"  # type: ignore[arg-type]


def sample(said: str, *flags: bool, prior: str | None = "yellow", kind: str = "short_text") -> dict[str, Any]:
    """Flags: right on the clean image, flipped, flipped before rounding."""
    clean, flipped, unrounded = flags
    return {
        "question_kind": kind, "chosen": "green", "clean_correct": clean, "flipped": flipped,
        "flipped_unrounded": unrounded, "attacked_answer": said, "blind_answer": "Yellow",
        "attack": json.dumps({"steps_taken": 10, "stopped": "steps"}), "meta": json.dumps({"prior_answer": prior}),
    }  # fmt: skip


def letter(reason: str, row: dict[str, Any], *absent: str) -> dict[str, Any]:
    told = {**row, "kind": row["question_kind"], "answer": row["chosen"], "attack": json.loads(row["attack"])}
    kept = {name: value for name, value in told.items() if name not in ("question_kind", "chosen", *absent)}
    return {"reason": reason, "row": json.dumps(kept)}


def test_every_attacked_sample_counts_kept_or_not() -> None:
    """Of 8 attacked 7 were right; 5 flipped on the saved image, 4 of these before rounding too, and a 6th only then."""
    kept = [
        sample("yellow", True, True, True),
        sample("purple", True, True, False),
        sample("green", True, False, True, prior="green"),
        sample("purple", False, False, False),
    ]
    dropped = [
        letter("refusal", sample("I cannot see the image.", True, True, True)),
        letter("repetition", sample("", True, True, True, kind="numeric"), "attacked_answer"),
        letter("length", sample("yellow", True, True, True, prior=None)),
        letter("same_answer", sample("green", True, False, False)),
        {"reason": "prompt_too_long", "row": '{"kind": "numeric"}'},
    ]
    counts = summarize(kept, dropped, 0.6)
    assert counts["all"] == {
        "attacked": 8, "kept": 4, "clean_correct": 7, "flipped": 5, "flipped_unrounded": 5,
        "flips_kept_by_rounding": 4, "to_prior": 1, "to_other": 2, "to_nonsense": 1, "to_refusal": 1,
        "prior_told": 4, "to_blind": 2, "steps": 80, "ended_early": 0, "mean_steps": 10.0,
    }  # fmt: skip
    assert sorted(counts["by_kind"]) == ["numeric", "short_text"]
    assert counts["by_kind"]["numeric"]["to_nonsense"] == 1
