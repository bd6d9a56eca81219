"""What negatives did to the answers: how often a rejected image changed one, and towards which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mbpo_core.reports.charts import Chart
from mbpo_core.reports.finding import found_counts, says_the_other
from mbpo_core.reports.kinds import Words, origin, settings_line, words_for
from mbpo_core.reports.likelihoods import likelihood_charts
from mbpo_core.reports.sources import Rounds, filled, parse_meta, percent, same_words
from mbpo_core.stage import Reader, Row

COLUMNS: tuple[str, ...] = (
    "kind", "chosen", "rejected", "clean_answer", "attacked_answer", "blind_answer", "logprob_clean",
    "logprob_attacked", "logprob_rounded", "perturbation_linf", "detector", "attack", "meta",
)  # fmt: skip
_OUTCOMES: tuple[tuple[str, str, str], ...] = (
    ("to_prior", "to the prior's answer", "what the language prior says, where the data tell it and it is wrong"),
    ("to_other", "to another wrong answer", ""),
    ("to_nonsense", "to nonsense", "empty, repeating itself, or no answer of its kind"),
    ("to_refusal", "to a refusal", "no answer, or a remark on the image"),
)
"""Counts of mining.json that add up to all flips, in words, and how they were counted."""

Line = tuple[str, str, str]
"""What was counted, the count, and how it was counted."""


@dataclass(frozen=True)
class Fact:
    """One line: what was counted, the count a round, and how it was counted."""

    what: str
    values: list[str]
    note: str = ""


@dataclass(frozen=True)
class NegativeFacts:
    """Facts in order, then a line a question kind.

    Attributes:
        title: heading of the section.
        method: the kind of negative and its settings.
        origin: where the rejected side comes from, in one clause.
        rounds: headings of the facts' columns; none where there is one mining.
        heads: headings of `by_kind`.
        by_kind: over all rounds.
        counts: what was counted and by what: detectors of key regions, ways to a rejected image.
        says: how often the policy answers another image of the same question as that image's own sample does.
        charts: how likely the chosen answers were, before and after.
    """

    title: str
    method: str
    origin: str
    rounds: list[str]
    facts: list[Fact]
    heads: list[str]
    by_kind: list[list[str]]
    counts: list[tuple[str, list[tuple[str, int]]]]
    says: str
    charts: list[Chart]


def negatives_section(rounds: Rounds) -> NegativeFacts | None:
    """The section, or None where nothing was mined."""
    rounds = filled(rounds)
    if not rounds:
        return None
    several = [_Mined.of(reader) for _, reader in rounds]
    first, rows = several[0], [row for mined in several for row in mined.rows]
    return NegativeFacts(
        title=_title(first),
        method=settings_line(first.kind, parse_meta(first.rows[0]["attack"])),
        origin=origin(first.kind),
        rounds=[f"round {index + 1}" for index, _ in rounds] if len(rounds) > 1 else [],
        facts=_merged([mined.lines() for mined in several]),
        heads=["question kind", "samples", "right on the clean image", *([_flipped(first.words)] * first.shows_images)],
        by_kind=_by_kind(several),
        counts=found_counts(rows),
        says=says_the_other(rows),
        charts=likelihood_charts(first.words, rows) if first.shows_images else [],
    )


@dataclass(frozen=True)
class _Mined:
    """One mining.

    Attributes:
        rows: the negatives.
        counts: of mining.json: over all samples that were attacked, kept or not.
        by_kind: the same by question kind.
        shows_images: the rejected side is an image that the policy was asked about.
    """

    kind: str
    rows: list[Row]
    counts: Mapping[str, Any]
    by_kind: Mapping[str, Mapping[str, Any]]
    shows_images: bool

    @classmethod
    def of(cls, reader: Reader) -> _Mined:
        rows = list(reader.rows(columns=COLUMNS))
        shows = bool(reader.slice(0, 1, columns=["rejected_images"])[0]["rejected_images"])
        mining = reader.json("mining.json")
        return cls(rows[0]["kind"], rows, mining["all"], mining["by_kind"], shows)

    @property
    def words(self) -> Words:
        return words_for(self.kind)

    def lines(self) -> list[Line]:
        """All facts of this mining."""
        counts = self.counts
        right = percent(counts["clean_correct"], counts["attacked"])
        first = (
            "Right on the clean image",
            right,
            "of all samples that were tried, whether they gave a negative or not",
        )
        if not self.shows_images:
            return [first, *_of_answers(self.rows)]
        return [first, *self._flips(), *self._directions(), *self._likelihoods()]

    def _flips(self) -> list[Line]:
        counts = self.counts
        whole, before = counts["clean_correct"], counts["flipped_unrounded"]
        after = percent(counts["flipped"], whole)
        if not self.words.in_ball:
            return [("of these, answered otherwise on the rejected image", after, "")]
        lines = [(f"of these, flipped by {self.words.by}", percent(before, whole), "before rounding")]
        if "flips_kept_by_rounding" in counts:
            survived = percent(counts["flips_kept_by_rounding"], before)
            lines.append(("of these flips, still there on the saved 8-bit image", survived, ""))
        return [*lines, ("Flipped on the saved image", after, "the same question, rounding included")]

    def _directions(self) -> list[Line]:
        """Where the changed answers went; an artifact from before this was counted says nothing."""
        counts, what = self.counts, "Flips" if self.words.in_ball else "Changed answers"
        if "to_blind" not in counts:
            return []
        lines = [(f"{what} {words}", percent(counts[name], counts["flipped"]), note) for name, words, note in _OUTCOMES]
        if counts["prior_told"]:
            to_prior = percent(counts["to_prior"], counts["prior_told"])
            lines.append(
                ("The prior's answer, where the prior is known to be wrong", to_prior, "a flip can reach it there")
            )
        to_blind = percent(counts["to_blind"], counts["flipped"])
        return [*lines, (f"{what} to what the policy says without the image", to_blind, "among all of the above")]

    def _likelihoods(self) -> list[Line]:
        def mean(column: str) -> float:
            return float(sum(row[column] for row in self.rows) / len(self.rows))

        clean, attacked, rounded = (mean(f"logprob_{name}") for name in ("clean", "attacked", "rounded"))
        less = sum(row["logprob_rounded"] < row["logprob_clean"] for row in self.rows)
        weaker = percent(less, len(self.rows))
        if not self.words.in_ball:
            path = _path(clean, rounded)
            return [
                ("Chosen answer less likely on the rejected image", weaker, "elsewhere nothing is wrong with it"),
                ("Mean log p(chosen)", path, "nats per token: clean image, rejected image"),
            ]
        largest = max(row["perturbation_linf"] for row in self.rows)
        note = f"nats per token: clean image, under {self.words.by}, and rounded"
        return [
            ("Chosen answer less likely on the saved image", weaker, ""),
            ("Mean log p(chosen)", _path(clean, attacked, rounded), note),
            ("Largest change of a pixel", f"{255 * largest:.0f}/255", "on the saved images"),
        ]


def _title(mined: _Mined) -> str:
    if mined.words.is_attack:
        return "What the attack did"
    return "What the rejected images did" if mined.shows_images else "Where the rejected answers come from"


def _flipped(words: Words) -> str:
    return "of these, flipped on the saved image" if words.in_ball else "of these, answered otherwise"


def _of_answers(rows: Sequence[Row]) -> list[Line]:
    """What the rejected answers are, where no image was made to provoke them."""
    there = [row for row in rows if row["rejected"] is not None]
    lines = [
        (f"Rejected answers that the policy gives {where}", percent(_same(there, column), len(there)), "word for word")
        for where, column in (("to the clean image", "clean_answer"), ("without the image", "blind_answer"))
    ]
    if told := _told(there):
        to_prior = percent(sum(same_words(row["rejected"], answer) for row, answer in told), len(told))
        lines.append(("Rejected answers that the prior gives", to_prior, "where it says something else than the truth"))
    return lines


def _same(rows: Sequence[Row], column: str) -> int:
    return sum(same_words(row["rejected"], row[column]) for row in rows)


def _told(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """The rows about which the prior says something else than the truth, with what it says."""
    said = [(row, parse_meta(row["meta"]).get("prior_answer")) for row in rows]
    return [(row, answer) for row, answer in said if isinstance(answer, str) and not same_words(answer, row["chosen"])]


def _merged(rounds: Sequence[Sequence[Line]]) -> list[Fact]:
    """A fact a line, with a value a round; a dash where a round lacks it. The fullest round gives the order."""
    names = dict.fromkeys(what for lines in sorted(rounds, key=len, reverse=True) for what, _, _ in lines)
    values = [{what: value for what, value, _ in lines} for lines in rounds]
    notes = {what: note for lines in reversed(rounds) for what, _, note in lines}
    return [Fact(what, [known.get(what, "–") for known in values], notes[what]) for what in names]


def _by_kind(several: Sequence[_Mined]) -> list[list[str]]:
    """A line a question kind, over all rounds."""

    def total(kind: str, name: str) -> int:
        return sum(int(mined.by_kind.get(kind, {}).get(name, 0)) for mined in several)

    lines = []
    for kind in sorted({kind for mined in several for kind in mined.by_kind}):
        count, right = total(kind, "attacked"), total(kind, "clean_correct")
        line = [kind.replace("_", " "), f"{count:,}", percent(right, count)]
        lines.append([*line, percent(total(kind, "flipped"), right)] if several[0].shows_images else line)
    return lines


def _path(*values: float) -> str:
    return " → ".join(f"{value:.2f}" for value in values).replace("-", "−")
