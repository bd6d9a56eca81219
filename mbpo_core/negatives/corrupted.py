"""The right answer made wrong by rule: words swapped for their kin in other answers of the data."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from mbpo_core.negatives.bench import Bench, Known
from mbpo_core.negatives.items import Made, Unmade
from mbpo_core.negatives.responses import reason_against_text
from mbpo_core.negatives.swaps import Swap, flip, other_choice, swap_words
from mbpo_core.seeds import derive_seed

_TRIES = 8
"""Draws of other words where a filter refuses the first ones."""


def corrupted(bench: Bench, several: Sequence[Known]) -> list[Made | Unmade]:
    """The chosen response with `corrupted_words` words swapped; see `mbpo_core.negatives.swaps` for the rules.

    A leading yes or no is flipped, and the letter or text of the chosen option is turned into another one's: without
    that the answer would stay right. Further words are swapped for words that stand in the same frame in answers to
    questions of the same kind, numbers for their neighbours.

    Source: POVID arXiv:2402.11411, which has GPT-4V put plausible objects, attributes and relations into the answer.
    """
    return [_corrupt(bench, known) for known in several]


def _corrupt(bench: Bench, known: Known) -> Made | Unmade:
    refused: Unmade | None = None
    for attempt in range(_TRIES):
        text, swaps = _wrong(bench, known, Random(derive_seed(known.seed, "corrupted", attempt)))
        if not swaps:
            break
        reason = reason_against_text(bench, known.task, text)
        if reason is None:
            return Made(rejected=text, how={"swaps": [list(swap) for swap in swaps], "attempt": attempt})
        refused = refused or Unmade(reason, f"made {text[:120]!r}")
    return refused or Unmade("nothing_to_change", "no word of the answer has kin in other answers to such questions")


def _wrong(bench: Bench, known: Known, random: Random) -> tuple[str, list[Swap]]:
    """A wrong answer and what was swapped in it; nothing where there is nothing to swap."""
    sample, count = known.task.sample, bench.settings.corrupted_words
    if sample.kind == "multiple_choice":
        return other_choice(sample.answer, sample.choices, random)
    text, flipped = flip(sample.answer)
    if sample.kind == "yes_no" and not flipped:
        return text, []
    text, swapped = swap_words(text, sample.question, bench.gallery.kin(sample.kind), count - len(flipped), random)
    return text, flipped + swapped
