"""AMBER: what descriptions name (generative), and yes/no questions with "no" as the positive class (discriminative).

Generative. R are the words of a response that belong to the benchmark's vocabulary, A the objects annotated as shown,
H the annotated typical hallucinations; a word counts for the object whose list of synonyms it is in.

    CHAIR = mentions in R outside A / |R|        Cover = objects of A named / |A|
    Hal = responses with such a mention / all    Cog = objects of H named / |H|       (as the published code counts it)

Discriminative:

    precision = right "no" / answered "no"       recall = right "no" / truth "no"     F1 = 2 right "no" / (both)
    AMBER score = ((1 - CHAIR) + F1) / 2

Two things differ from the published code: its nouns come from a tagger and its synonyms also from vector similarity
above 0.8, ours from the published word lists alone; and its counters start at 0.001.

Source: AMBER arXiv:2311.07397 and junyangwang0410/AMBER inference.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from typing import Any, Literal

from mbpo_core.evaluation.counting import Count, Metric, Sums, flag
from mbpo_core.evaluation.existence import strict_answer, truth
from mbpo_core.evaluation.outcomes import Outcome
from mbpo_core.evaluation.paired import Floats, ratio
from mbpo_core.evaluation.vocabulary import Vocabulary

DESCRIPTION = "amber_generative"
ASPECTS: tuple[str, ...] = ("amber_existence", "amber_attribute", "amber_relation")
_GROUP = "AMBER"


@dataclass(frozen=True)
class Described:
    """What one response names; mentions count as often as they occur, objects once."""

    mentions: int
    hallucinated: int
    covered: int
    shown: int
    targets_hit: int
    targets: int


def read_description(outcome: Outcome) -> Described:
    """Count a response by the word lists of its sample's meta."""
    meta = outcome.meta
    shown, targets = _names(meta, "truth"), _names(meta, "hallucination")
    safe = set(meta.get("safe_words", ()))
    words = {str(word).lower(): str(word) for word in (*meta.get("vocabulary", ()), *shown, *targets)}
    named = [mention.object for mention in Vocabulary(words).mentions(outcome.text)]
    judged = [word for word in named if word not in safe]
    return Described(
        mentions=len(named),
        hallucinated=sum(word not in shown for word in judged),
        covered=len({shown[word] for word in judged if word in shown}),
        shown=len(set(shown.values())),
        targets_hit=len({targets[word] for word in judged if word in targets and word not in shown}),
        targets=len(set(targets.values())),
    )


def amber_metrics(probes: Set[str]) -> Iterator[Metric]:
    """Of the halves that were asked.

    Args:
        probes: of all questions.
    """
    asked = [aspect for aspect in ASPECTS if aspect in probes]
    if asked and DESCRIPTION in probes:
        yield Metric("amber_score", "AMBER score", _GROUP, _score, rate=False, value=_score_value)
    if DESCRIPTION in probes:
        yield from _generative()
    if asked:
        yield from _discriminative("amber", "AMBER", ASPECTS)
    for aspect in asked:
        yield from _discriminative(aspect, aspect.replace("_", ", ").replace("amber", "AMBER"), (aspect,))


def _generative() -> Iterator[Metric]:
    measures: dict[str, tuple[str, Callable[[Described], Sums], Literal["higher", "lower"]]] = {
        "chair": ("Named objects that are not there (CHAIR)", lambda d: (d.hallucinated, d.mentions), "lower"),
        "cover": ("Objects there that are named (Cover)", lambda d: (d.covered, d.shown), "higher"),
        "hal": ("Responses that name one not there (Hal)", lambda d: flag(d.hallucinated > 0), "lower"),
        "cog": ("Typical hallucinations named (Cog)", lambda d: (d.targets_hit, d.targets), "lower"),
    }
    for name, (label, count, better) in measures.items():
        yield Metric(f"amber_{name}", label, _GROUP, _described(count), better=better, rate=name == "hal")


def _discriminative(prefix: str, title: str, aspects: tuple[str, ...]) -> Iterator[Metric]:
    measures: dict[str, tuple[Count, str, bool]] = {
        "accuracy": (lambda o: flag(o.correct), "accuracy", True),
        "precision": (lambda o: (float(_no(o) and truth(o) == "no"), float(_no(o))), 'precision of "no"', True),
        "recall": (lambda o: flag(_no(o)) if truth(o) == "no" else None, 'recall of "no"', True),
        "f1": (_f1, 'F1 of "no"', False),
        "unparsed": (lambda o: flag(o.verdict == "unparsed"), "unreadable answers", True),
    }
    for measure, (count, label, rate) in measures.items():
        better: Literal["higher", "lower"] = "lower" if measure == "unparsed" else "higher"
        counted = _of(aspects, count)
        yield Metric(f"{prefix}_{measure}", f"{title}: {label}", _GROUP, counted, better=better, rate=rate)


def _names(meta: Any, key: str) -> dict[str, str]:
    """Word -> object of a list of objects, by their synonyms and their own names; the first object wins."""
    objects = [str(name) for name in meta.get(key, ())]
    synonyms = meta.get("synonyms", {})
    words: dict[str, str] = {}
    for name in objects:
        words.update({str(word): name for word in synonyms.get(name, ()) if str(word) not in words})
    return words | {name: name for name in objects}


def _no(outcome: Outcome) -> bool:
    return strict_answer(outcome) == "no"


def _f1(outcome: Outcome) -> Sums:
    no, absent = _no(outcome), truth(outcome) == "no"
    return 2.0 * (no and absent), float(no) + absent


def _score(outcome: Outcome) -> Sums | None:
    """Sums of CHAIR, then of F1."""
    if outcome.probe == DESCRIPTION:
        described = read_description(outcome)
        return described.hallucinated, described.mentions, 0.0, 0.0
    return (0.0, 0.0, *_f1(outcome)) if outcome.probe in ASPECTS else None


def _score_value(sums: Floats) -> Floats:
    return (1.0 - ratio(sums[..., 0], sums[..., 1]) + ratio(sums[..., 2], sums[..., 3])) / 2


def _described(count: Callable[[Described], Sums]) -> Count:
    return lambda outcome: count(read_description(outcome)) if outcome.probe == DESCRIPTION else None


def _of(aspects: tuple[str, ...], count: Count) -> Count:
    return lambda outcome: count(outcome) if outcome.probe in aspects and outcome.kind == "yes_no" else None
