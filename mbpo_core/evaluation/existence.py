"""POPE: is the object there? By the official parser, and by the strict one where an unreadable answer is wrong.

With yes as the positive class, over N questions (TP: yes and there, FP: yes and not there, ...):

    accuracy = (TP + TN) / N         precision = TP / (TP + FP)      recall = TP / (objects there)
    F1 = 2 TP / (answered yes + objects there)                       yes-ratio = (TP + FP) / N

The official parser reads everything that is not a "no" as a "yes"; the strict numbers come from the verifier, and an
answer that it cannot read is neither: it counts against accuracy and recall. The yes-ratio is over predictions (one
well-known harness counts labels, so that always-yes scores 0.5).

Source: POPE arXiv:2305.10355 and RUCAIBox/POPE evaluate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal

from mbpo_core.evaluation.counting import Count, Metric, Sums, flag
from mbpo_core.evaluation.outcomes import Outcome
from mbpo_core.verifiers.registry import extract

SETS: tuple[str, ...] = ("random", "popular", "adversarial")
Answer = Literal["yes", "no"]
Parser = Callable[[Outcome], Answer | None]


def official_answer(text: str) -> Answer:
    """ "no" if No, not or no is a word of the first sentence, else "yes"; commas are removed first."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no") for word in words) else "yes"


def truth(outcome: Outcome) -> Answer:
    """Whether the object is there, as the verifier reads the reference answer."""
    return _read(outcome.answer)


@lru_cache(maxsize=4096)  # there are few answers, and each is read for every measure
def _read(answer: str) -> Answer:
    return "no" if extract("yes_no", answer) == "no" else "yes"


def strict_answer(outcome: Outcome) -> Answer | None:
    """What the verifier read: the truth if correct, the opposite if wrong, None if unparsed."""
    if outcome.verdict == "unparsed":
        return None
    if outcome.correct:
        return truth(outcome)
    return "no" if truth(outcome) == "yes" else "yes"


def existence_metrics() -> Iterator[Metric]:
    """All measures: strict under `existence`, official under `pope`; pooled first, then each set apart."""
    parsers: tuple[tuple[str, str, str, Parser], ...] = (
        ("existence", "Existence", "strict parser", strict_answer),
        ("pope", "POPE", "official parser", lambda outcome: official_answer(outcome.text)),
    )
    for prefix, title, parser_name, parse in parsers:
        for subset in (None, *SETS):
            name = prefix if subset is None else f"{prefix}_{subset}"
            heading = title if subset is None else f"{title}, {subset}"
            group = f"Existence (POPE), {parser_name}"
            for measure, (count, label, better, rate) in _measures(parse).items():
                if measure == "unparsed" and prefix == "pope":
                    continue  # the official parser always reads something
                yield Metric(
                    f"{name}_{measure}", f"{heading}: {label}", group, _within(subset, count), better=better, rate=rate
                )


def _measures(parse: Parser) -> dict[str, tuple[Count, str, Literal["higher", "lower", ""], bool]]:
    """Measure -> (count, label, which way is better, whether it is a plain rate)."""

    def yes(outcome: Outcome) -> bool:
        return parse(outcome) == "yes"

    def there(outcome: Outcome) -> bool:
        return truth(outcome) == "yes"

    def f1(outcome: Outcome) -> tuple[float, float]:
        return 2.0 * (yes(outcome) and there(outcome)), float(yes(outcome)) + there(outcome)

    def specificity(outcome: Outcome) -> tuple[float, float] | None:
        return None if there(outcome) else flag(parse(outcome) == "no")

    return {
        "accuracy": (lambda o: flag(parse(o) == truth(o)), "accuracy", "higher", True),
        "precision": (lambda o: (float(yes(o) and there(o)), float(yes(o))), "precision", "higher", True),
        "recall": (lambda o: flag(yes(o)) if there(o) else None, "recall (right when present)", "higher", True),
        "specificity": (specificity, "right when absent", "higher", True),
        "f1": (f1, "F1", "higher", False),
        "yes_ratio": (lambda o: flag(yes(o)), "yes-ratio", "", True),
        "unparsed": (lambda o: flag(parse(o) is None), "unreadable answers", "lower", True),
    }


def _within(subset: str | None, count: Count) -> Count:
    """The count, for questions of that existence set (None: of any) only."""

    def counted(outcome: Outcome) -> Sums | None:
        if outcome.kind != "yes_no" or not outcome.probe.startswith("existence"):
            return None
        prefix, _, name = outcome.probe.partition("_")
        return count(outcome) if prefix == "existence" and subset in (None, name) else None

    return counted
