"""A prediction row parsed once: what every metric reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mbpo_core.evaluation.vocabulary import split_words, vocabulary_of
from mbpo_core.records import CLOSED_KINDS

COLUMNS: tuple[str, ...] = (
    "policy", "sample_id", "answer", "question_kind", "probe", "text", "verdict", "blind_text", "blind_verdict",
    "shuffled_verdict", "noised_text", "token_gains_gold", "token_gains_answer", "meta",
)  # fmt: skip
"""The columns of a Prediction that metrics need; images are not among them."""


@dataclass(frozen=True)
class CaptionCounts:
    """What a caption names, against what the image shows; object mentions count as often as they occur."""

    mentions: int
    hallucinated: int
    shown: int
    found: int
    colored: int
    wrong_color: int
    words: int


@dataclass(frozen=True)
class Outcome:
    """One policy's answer to one question."""

    sample_id: str
    probe: str
    kind: str
    answer: str
    text: str
    verdict: str
    blind_text: str | None = None
    blind_verdict: str | None = None
    shuffled_verdict: str | None = None
    noised_text: str | None = None
    gains_gold: Sequence[float] = ()
    gains_answer: Sequence[float] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def closed(self) -> bool:
        """A verifier can tell right from wrong."""
        return self.kind in CLOSED_KINDS

    @property
    def correct(self) -> bool:
        """The verdict is "correct"; unparsed counts as wrong."""
        return self.verdict == "correct"

    @property
    def clusters(self) -> dict[str, str]:
        """Which object and which picture the question is about; the question itself where neither is told."""
        scene = str(self.meta.get("scene_id") or self.sample_id)
        return {"object": str(self.meta.get("subject") or self.sample_id), "scene": scene}

    @cached_property
    def caption(self) -> CaptionCounts | None:
        """Counts of an open answer about an image whose objects are known; None for anything else."""
        objects = self.meta.get("objects")
        vocabulary = vocabulary_of(self.meta) if self.kind == "open" and isinstance(objects, list) else None
        if vocabulary is None or not isinstance(objects, list):
            return None
        shown = {str(name) for name in objects}
        mentions = vocabulary.mentions(self.text)
        colors = {item["object"]: item["color"] for item in self.meta.get("scene", ()) if "color" in item}
        colored = [item for item in mentions if item.object in shown and item.color and item.object in colors]
        return CaptionCounts(
            mentions=len(mentions),
            hallucinated=sum(item.object not in shown for item in mentions),
            shown=len(shown),
            found=len(shown & {item.object for item in mentions}),
            colored=len(colored),
            wrong_color=sum(item.color != colors[item.object] for item in colored),
            words=len(split_words(self.text)),
        )


def read_outcome(row: Mapping[str, Any]) -> Outcome:
    """One Prediction row (COLUMNS are enough)."""
    return Outcome(
        sample_id=row["sample_id"],
        probe=row["probe"],
        kind=row["question_kind"],
        answer=row["answer"],
        text=row["text"],
        verdict=row["verdict"],
        blind_text=row["blind_text"],
        blind_verdict=row["blind_verdict"],
        shuffled_verdict=row["shuffled_verdict"],
        noised_text=row["noised_text"],
        gains_gold=row["token_gains_gold"],
        gains_answer=row["token_gains_answer"],
        meta=parse_meta(row["meta"]),
    )


def parse_meta(text: str) -> dict[str, Any]:
    """A meta column's JSON object; anything else, which user data may hold, reads as empty."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
