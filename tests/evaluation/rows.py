"""Hand-made prediction rows for the tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mbpo_core.evaluation.summary import POOLED_CLUSTERS, Summary, count_rows, summary_of


def prediction(number: int, verdict: str = "correct", **columns: Any) -> dict[str, Any]:
    """A Prediction row of question `number`; meta may be given as a dict."""
    row: dict[str, Any] = {
        "policy": "base",
        "sample_id": f"q{number:05d}",
        "images": [],
        "question": "?",
        "answer": "green",
        "question_kind": "short_text",
        "probe": "neutral",
        "text": "green",
        "extracted": None,
        "verdict": verdict,
        "blind_text": None,
        "blind_verdict": None,
        "shuffled_verdict": None,
        "noised_text": None,
        "token_gains_gold": [],
        "token_gains_answer": [],
        "meta": {},
    } | columns
    return row | {"meta": json.dumps(row["meta"])}


def existence(counts: Sequence[tuple[int, str, str, str]], subset: str = "random") -> list[dict[str, Any]]:
    """Rows of (how many, reference answer, text, verdict) on one existence probe."""
    outcomes = [row for times, *row in counts for _ in range(times)]
    return [
        prediction(number, verdict, probe=f"existence_{subset}", question_kind="yes_no", answer=answer, text=text)
        for number, (answer, text, verdict) in enumerate(outcomes)
    ]


def caption(number: int, text: str, scene: dict[str, str], **columns: Any) -> dict[str, Any]:
    """A caption of a demo scene given as {object: colour}."""
    placed = [{"object": name, "color": color, "cell": "top left"} for name, color in scene.items()]
    meta = {"scene": placed, "objects": list(scene)}
    return prediction(number, "wrong", probe="caption", question_kind="open", text=text, meta=meta, **columns)


def pooled(rows_by_seed: Sequence[Iterable[Mapping[str, Any]]], **settings: Any) -> Summary:
    """The summary of several runs, as the ablation makes it."""
    return summary_of(count_rows(rows_by_seed), **{"clusters": POOLED_CLUSTERS} | settings)
