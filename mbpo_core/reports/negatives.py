"""What negatives did to the answers: how often a rejected image changed one, and towards which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mbpo_core.reports.finding import found_counts, says_the_other
from mbpo_core.reports.kinds import Words, origin, settings_line, words_for
from mbpo_core.reports.sources import Rounds, filled, parse_meta, percent, same_words
from mbpo_core.stage import Reader, Row

COLUMNS: tuple[str, ...] = (
    "kind", "question_kind", "chosen", "rejected", "clean_answer", "clean_correct", "attacked_answer", "blind_answer",
    "flipped", "flipped_unrounded", "logprob_clean", "logprob_attacked", "logprob_rounded", "perturbation_linf",
    "detector", "attack", "meta",
)  # fmt: skip

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
    )


@dataclass(frozen=True)
class _Mined:
    """One mining.

    Attributes:
        rows: the negatives.
        unmoved: question kinds of the samples that gave none, because their answer stayed right.
        shows_images: the rejected side is an image that the policy was asked about.
    """

    kind: str
    rows: list[Row]
    unmoved: Counter[str]
    shows_images: bool

    @classmethod
    def of(cls, reader: Reader) -> _Mined:
        rows = list(reader.rows(columns=COLUMNS))
        shows = bool(reader.slice(0, 1, columns=["rejected_images"])[0]["rejected_images"])
        return cls(rows[0]["kind"], rows, _unmoved_kinds(reader) if shows else Counter(), shows)

    @property
    def words(self) -> Words:
        return words_for(self.kind)

    @property
    def right(self) -> list[Row]:
        return [row for row in self.rows if row["clean_correct"]]

    def lines(self) -> list[Line]:
        """All facts of this mining."""
        if not self.shows_images:
            return [self._right_line(), *_of_answers(self.rows)]
        flips = [*self._flips(), *self._unmoved_line()]
        return [self._right_line(), *flips, *_directions(self.rows, self.words), *self._likelihoods()]

    def _right_line(self) -> Line:
        unmoved = self.unmoved.total()
        right = percent(len(self.right) + unmoved, len(self.rows) + unmoved)
        note = f"of the samples that gave a negative or stayed right under {self.words.by}" if unmoved else ""
        return "Right on the clean image", right, note

    def _unmoved_line(self) -> list[Line]:
        unmoved = self.unmoved.total()
        what = f"Stayed right under {self.words.by}, and gave no negative"
        return [(what, f"{unmoved:,}", "counted among those that were right")] if unmoved else []

    def _flips(self) -> list[Line]:
        whole = len(self.right) + self.unmoved.total()
        before = sum(row["flipped_unrounded"] for row in self.right)
        after = percent(sum(row["flipped"] for row in self.right), whole)
        if not self.words.in_ball:
            return [("of these, answered otherwise on the rejected image", after, "")]
        survived = sum(row["flipped"] and row["flipped_unrounded"] for row in self.right)
        return [
            (f"of these, flipped by {self.words.by}", percent(before, whole), "before rounding"),
            ("of these flips, still there on the saved 8-bit image", percent(survived, before), ""),
            ("Flipped on the saved image", after, "the same question, rounding included"),
        ]

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


def _unmoved_kinds(negatives: Reader) -> Counter[str]:
    """Question kinds of the samples that were dropped because their answer stayed right on the rejected image."""
    if not negatives.manifest.dropped.get("same_answer"):
        return Counter()
    letters = negatives.rows("dropped", columns=["reason", "row"])
    samples = [parse_meta(letter["row"]) for letter in letters if letter["reason"] == "same_answer"]
    return Counter(str(sample.get("kind")) for sample in samples if sample.get("clean_correct", True))


def _directions(rows: Sequence[Row], words: Words) -> list[Line]:
    """Where the changed answers went."""
    flips = [row for row in rows if row["flipped"]]
    what = "Flips" if words.in_ball else "Changed answers"
    to_blind = sum(same_words(row["attacked_answer"], row["blind_answer"]) for row in flips)
    lines = [(f"{what} to what the policy says without the image", percent(to_blind, len(flips)), "word for word")]
    if told := _told(flips):
        to_prior = percent(sum(same_words(row["attacked_answer"], answer) for row, answer in told), len(told))
        note = f"among {what.lower()} where the prior says something else than the truth"
        lines.append((f"{what} to the prior's answer", to_prior, note))
    return lines


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
    rows = [row for mined in several for row in mined.rows]
    unmoved = sum((mined.unmoved for mined in several), Counter[str]())
    lines = []
    for kind in sorted({*unmoved, *(row["question_kind"] for row in rows)}):
        of_kind = [row for row in rows if row["question_kind"] == kind]
        right = sum(row["clean_correct"] for row in of_kind) + unmoved[kind]
        count = len(of_kind) + unmoved[kind]
        line = [kind.replace("_", " "), f"{count:,}", percent(right, count)]
        changed = percent(sum(row["flipped"] for row in of_kind), right)
        lines.append([*line, changed] if several[0].shows_images else line)
    return lines


def _path(*values: float) -> str:
    return " → ".join(f"{value:.2f}" for value in values).replace("-", "−")
