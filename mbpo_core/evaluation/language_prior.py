"""Benchmarks of the language prior: ViLP, VLind-Bench, and counterfactual twins of any closed questions.

ViLP asks a question of three pictures: answer 1 follows from the text alone, 2 and 3 need the picture.

    Score = right answers to 2 and 3 / all of them       Prior = right answers to 1 / all of them

apart for prompts with the distracting fact (F) and without (P). Words are compared after `normalise_word`.

VLind-Bench puts a statement and its opposite; a check is passed if both are judged rightly, and later checks count only
where earlier ones were passed (N instances):

    S_CK = pass CK / N     S_VP = pass VP / N     S_CB = pass CB and CK / pass CK
    S_LP = sum over instances passing CK, VP and CB of the share of their pictures passed / number of such instances

and without gates CB over N, and the mean over N of the share of pictures passed.

Twins are a question asked of a picture and of a counterfactual one with another right answer:

    pair accuracy = pairs with both right / pairs            flip rate = pairs whose answers differ / pairs
    prior rate = answers that the prior gives / answers

Source: ViLP arXiv:2501.00569 and ViLP-team/ViLP; VLind-Bench arXiv:2406.08702 and klee972/VLind-Bench
eval/score_pipeline.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set

from mbpo_core.evaluation.counting import GroupMetric, Metric, Sums, flag
from mbpo_core.evaluation.outcomes import Outcome
from mbpo_core.evaluation.vocabulary import split_words

VILP_PROBES: dict[str, str] = {"vilp_f": "ViLP-F", "vilp_p": "ViLP-P"}
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_PLURALS = {
    "leaves": "leaf", "knives": "knife", "wolves": "wolf", "mice": "mouse", "geese": "goose", "children": "child",
    "teeth": "tooth", "feet": "foot", "people": "person", "men": "person", "women": "person", "man": "person",
    "woman": "person",
}  # fmt: skip
_SYNONYMS = {
    "refrigerator": "fridge", "television": "tv", "automobile": "car", "airplane": "plane", "aeroplane": "plane",
    "bike": "bicycle", "motorbike": "motorcycle", "cellphone": "phone", "telephone": "phone", "boat": "ship",
    "hippopotamus": "hippo", "rhinoceros": "rhino", "circle": "round", "circular": "round", "triangular": "triangle",
    "hexagonal": "hexagon", "donut": "torus", "doughnut": "torus", "grey": "gray", "ocean": "sea", "kitten": "cat",
    "alligator": "crocodile", "tortoise": "turtle",
}  # fmt: skip
_TRUE, _FALSE = {"true", "yes"}, {"false", "no"}
_VLIND = "VLind-Bench"
_TWINS = "Counterfactual twins"


def normalise_word(text: str) -> str:
    """A short answer in one spelling: lower case, digits, singular, one of several synonyms.

    The published list of synonyms is longer than ours, so that our scores can be lower, never higher by luck.
    """
    words = [_normal(word) for word in split_words(text)]
    return " ".join(words)


def language_prior_metrics(probes: Set[str]) -> Iterator[Metric]:
    """Of the benchmarks that were asked; of twins always, since any question may have one.

    Args:
        probes: of all questions.
    """
    for probe in (probe for probe in VILP_PROBES if probe in probes):
        yield from _vilp(probe)
    if "vlind" in probes:
        yield from _vlind()
    yield from _twins()


def _vilp(probe: str) -> Iterator[Metric]:
    def of(numbers: tuple[int, ...]) -> Callable[[Outcome], Sums | None]:
        def count(outcome: Outcome) -> Sums | None:
            if outcome.probe != probe or outcome.meta.get("vilp_answer") not in numbers:
                return None
            return flag(normalise_word(outcome.text) == normalise_word(outcome.answer))

        return count

    title = VILP_PROBES[probe]
    yield Metric(f"{probe}_score", f"{title}: right where the image is needed (Score)", "ViLP", of((2, 3)))
    yield Metric(f"{probe}_prior", f"{title}: right where text is enough (Prior)", "ViLP", of((1,)), better="")


def _vlind() -> Iterator[Metric]:
    def rate(name: str, label: str, count: Callable[[Sequence[Outcome]], Sums]) -> GroupMetric:
        return GroupMetric(name, label, _VLIND, key="instance", together=_only_vlind(count), rate=name in _RATES)

    yield rate("vlind_ck", "Commonsense knowledge (S_CK)", lambda o: flag(_passes(o, "CK")))
    yield rate("vlind_vp", "Visual perception (S_VP)", lambda o: flag(_passes(o, "VP")))
    yield rate("vlind_cb", "Commonsense bias (S_CB), of those with CK", _gated_bias)
    yield rate("vlind_lp", "Language prior (S_LP), of those with CK, VP and CB", _gated_prior)
    yield rate("vlind_cb_all", "Commonsense bias, all", lambda o: flag(_passes(o, "CB")))
    yield rate("vlind_lp_all", "Language prior, all", lambda o: (_pictures_passed(o), 1.0))


_RATES = {"vlind_ck", "vlind_vp", "vlind_cb", "vlind_cb_all"}


def _gated_bias(outcomes: Sequence[Outcome]) -> Sums:
    knows = _passes(outcomes, "CK")
    return float(knows and _passes(outcomes, "CB")), float(knows)


def _gated_prior(outcomes: Sequence[Outcome]) -> Sums:
    gates = all(_passes(outcomes, check) for check in ("CK", "VP", "CB"))
    return (_pictures_passed(outcomes), 1.0) if gates else (0.0, 0.0)


def _passes(outcomes: Sequence[Outcome], check: str) -> bool:
    """All statements of a check are judged rightly, and there are some."""
    asked = [outcome for outcome in outcomes if outcome.meta.get("check") == check]
    return bool(asked) and all(_judged(outcome) for outcome in asked)


def _pictures_passed(outcomes: Sequence[Outcome]) -> float:
    """Share of the language-prior pictures whose statements are all judged rightly."""
    pictures: dict[str, bool] = {}
    for outcome in outcomes:
        if outcome.meta.get("check") == "LP":
            picture = outcome.clusters["scene"]
            pictures[picture] = pictures.get(picture, True) and _judged(outcome)
    return sum(pictures.values()) / len(pictures) if pictures else 0.0


def _judged(outcome: Outcome) -> bool:
    """The statement is called what it is; an answer that says both or neither is wrong."""
    said = set(split_words(outcome.text))
    true, false = bool(said & _TRUE), bool(said & _FALSE)
    return true != false and true == outcome.meta.get("statement")


def _only_vlind(count: Callable[[Sequence[Outcome]], Sums]) -> Callable[[Sequence[Outcome]], Sums | None]:
    return lambda outcomes: count(outcomes) if outcomes[0].probe == "vlind" else None


def _twins() -> Iterator[Metric]:
    def pairs(count: Callable[[Sequence[Outcome]], bool]) -> Callable[[Sequence[Outcome]], Sums | None]:
        return lambda outcomes: flag(count(outcomes)) if len(outcomes) > 1 else None

    def differ(outcomes: Sequence[Outcome]) -> bool:
        return len({tuple(split_words(outcome.text)) for outcome in outcomes}) > 1

    def prior(outcome: Outcome) -> Sums | None:
        says = outcome.meta.get("says_prior")
        return flag(bool(says)) if "twin" in outcome.meta and says is not None else None

    both = pairs(lambda outcomes: all(outcome.correct for outcome in outcomes))
    yield GroupMetric("twin_pair_accuracy", "Both of a pair right", _TWINS, key="twin", together=both)
    yield GroupMetric("twin_flip_rate", "Answer changes with the picture", _TWINS, key="twin", together=pairs(differ))
    yield Metric("twin_prior_rate", "Says the prior", _TWINS, prior, better="lower")


def _normal(word: str) -> str:
    if word in _NUMBERS:
        return str(_NUMBERS.index(word))
    word = _PLURALS.get(word, word)
    if word not in _SYNONYMS:
        word = _singular(word)
    return _SYNONYMS.get(word, word)


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("ches", "shes", "xes", "sses", "oes")) else word[:-1]
