"""What the attack did: flips, flips that survive rounding to 8 bits, and towards which answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mbpo_core.reports.sources import parse_meta, percent, same_words
from mbpo_core.stage import Reader

COLUMNS: tuple[str, ...] = (
    "kind", "question_kind", "chosen", "clean_correct", "attacked_answer", "blind_answer", "flipped",
    "flipped_unrounded", "logprob_clean", "logprob_attacked", "logprob_rounded", "epsilon", "perturbation_linf",
    "attack", "meta",
)  # fmt: skip
_UNSHOWN = ("method", "seed", "steps_taken", "stopped", "flip_checks")


@dataclass(frozen=True)
class Fact:
    """One line: what was counted, the count, and how it was counted."""

    what: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class AttackFacts:
    """The attack section: facts in order, then a line a question kind."""

    facts: list[Fact]
    by_kind: list[tuple[str, int, str, str]]  # question kind, samples, right on clean, flipped of these
    method: str


def attacks_section(negatives: Reader | None) -> AttackFacts | None:
    """The section, or None where nothing was mined."""
    if negatives is None or negatives.count() == 0:
        return None
    rows = list(negatives.rows(columns=COLUMNS))
    unmoved = _unmoved_kinds(negatives)
    kinds = sorted({*unmoved, *(row["question_kind"] for row in rows)})
    return AttackFacts(
        facts=[*_flips(rows, unmoved.total()), *_directions(rows), *_likelihoods(rows)],
        by_kind=[
            _kind_line(kind, [row for row in rows if row["question_kind"] == kind], unmoved[kind]) for kind in kinds
        ],
        method=_method(rows),
    )


def _unmoved_kinds(negatives: Reader) -> Counter[str]:
    """Question kinds of the samples that were dropped because their answer stayed right under the attack."""
    if not negatives.manifest.dropped.get("same_answer"):
        return Counter()
    dropped = negatives.rows("dropped", columns=["reason", "row"])
    return Counter(str(parse_meta(row["row"]).get("kind")) for row in dropped if row["reason"] == "same_answer")


def _flips(rows: list[dict[str, Any]], unmoved: int) -> list[Fact]:
    right = [row for row in rows if row["clean_correct"]]
    before = sum(row["flipped_unrounded"] for row in right)
    after = sum(row["flipped"] for row in right)
    survived = sum(row["flipped"] and row["flipped_unrounded"] for row in right)
    return [
        Fact(
            "Right on the clean image",
            percent(len(right) + unmoved, len(rows) + unmoved),
            f"{unmoved:,} of them gave no negative, because their answer stayed right under the attack; they count "
            "here as right and not flipped"
            if unmoved
            else "of the samples that gave a negative",
        ),
        Fact("of these, flipped by the attack", percent(before, len(right) + unmoved), "before rounding"),
        Fact("of these flips, still there on the saved 8-bit image", percent(survived, before)),
        Fact(
            "Flipped on the saved image", percent(after, len(right) + unmoved), "the same question, rounding included"
        ),
    ]


def _directions(rows: list[dict[str, Any]]) -> list[Fact]:
    """Where the flipped answers went."""
    flips = [row for row in rows if row["flipped"]]
    prior = [(row, parse_meta(row["meta"]).get("prior_answer")) for row in flips]
    told = [(row, answer) for row, answer in prior if isinstance(answer, str) and not same_words(answer, row["chosen"])]
    to_prior = sum(same_words(row["attacked_answer"], answer) for row, answer in told)
    to_blind = sum(same_words(row["attacked_answer"], row["blind_answer"]) for row in flips)
    facts = [Fact("Flips to what the policy says without the image", percent(to_blind, len(flips)), "word for word")]
    if told:
        note = "among flips where the prior says something else than the truth"
        facts.append(Fact("Flips to the prior's answer", percent(to_prior, len(told)), note))
    return facts


def _likelihoods(rows: list[dict[str, Any]]) -> list[Fact]:
    def mean(column: str) -> float:
        return float(sum(row[column] for row in rows) / len(rows))

    largest = max(row["perturbation_linf"] for row in rows)
    clean, attacked, rounded = (mean(f"logprob_{name}") for name in ("clean", "attacked", "rounded"))
    return [
        Fact(
            "Mean log p(chosen)",
            f"{clean:.2f} → {attacked:.2f} → {rounded:.2f}".replace("-", "−"),
            "nats per token: clean image, attacked, attacked and rounded",
        ),
        Fact("Largest change of a pixel", f"{255 * largest:.0f}/255", "on the saved images"),
    ]


def _kind_line(kind: str, rows: list[dict[str, Any]], unmoved: int) -> tuple[str, int, str, str]:
    of_kind = [row for row in rows if row["question_kind"] == kind]
    right = sum(row["clean_correct"] for row in of_kind) + unmoved
    flipped, count = sum(row["flipped"] for row in of_kind), len(of_kind) + unmoved
    return kind.replace("_", " "), count, percent(right, count), percent(flipped, right)


def _method(rows: list[dict[str, Any]]) -> str:
    """Kinds of negative and the settings they share, in one line."""
    kinds = ", ".join(sorted({row["kind"] for row in rows}))
    settings: Mapping[str, Any] = parse_meta(rows[0]["attack"])
    # What is off (0, false, "none") or said elsewhere would only lengthen the line.
    shown = {key: value for key, value in settings.items() if value and value != "none" and key not in _UNSHOWN}
    listed = ", ".join(key if value is True else f"{key} {_short(value)}" for key, value in shown.items())
    return f"{kinds}; {listed}" if listed else kinds


def _short(value: object) -> str:
    if isinstance(value, float) and 0 < value < 1 and abs(value * 255 - round(value * 255)) < 1e-6:
        return f"{round(value * 255)}/255"
    return f"{value:g}" if isinstance(value, float) else str(value)
