"""All metrics that a set of questions allows, in the order in which the summary lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from typing import Literal

from mbpo_core.evaluation.amber import amber_metrics
from mbpo_core.evaluation.counting import Count, Metric, flag
from mbpo_core.evaluation.existence import SETS, existence_metrics
from mbpo_core.evaluation.language_prior import language_prior_metrics
from mbpo_core.evaluation.outcomes import CaptionCounts, Outcome
from mbpo_core.evaluation.seeing import seeing_metrics
from mbpo_core.records import CLOSED_KINDS

CaptionCount = Callable[[CaptionCounts], tuple[float, float]]

HEADLINE: tuple[str, ...] = (
    "prior_conflict_accuracy", "prior_conflict_seen_accuracy", "prior_consistent_accuracy", "neutral_accuracy",
    "shifted_conflict_accuracy", "shifted_consistent_accuracy", "shifted_neutral_accuracy",
    "existence_accuracy", "chair_i", "caption_recall", "amber_score", "amber_chair", "amber_cover", "amber_hal",
    "amber_cog", "amber_f1", "vilp_f_score", "vilp_f_prior", "vilp_p_score", "vilp_p_prior", "vlind_ck", "vlind_vp",
    "vlind_cb", "vlind_lp", "twin_pair_accuracy", "blind_gap", "accuracy",
)  # fmt: skip
"""The metrics that the short table shows, of those that the questions allow."""

_PRIOR_PROBES: dict[str, str] = {
    "prior_conflict": "Colour against the prior, unseen objects",
    "prior_conflict_seen": "Colour against the prior, trained objects",
    "prior_consistent": "Colour as the prior says",
    "neutral": "Colour without a prior",
    "shifted_conflict": "Colour against the prior, shifted scenes",
    "shifted_consistent": "Colour as the prior says, shifted scenes",
    "shifted_neutral": "Colour without a prior, shifted scenes",
}
_KINDS: dict[str, str] = {
    "yes_no": "Yes / no",
    "multiple_choice": "Multiple choice",
    "numeric": "Number",
    "short_text": "Short text",
    "counting": "Counting",
    "box": "Box (IoU)",
    "math": "Mathematics",
    "open": "Open (exact match)",
}


def metrics_for(questions: Iterable[tuple[str, str]]) -> list[Metric]:
    """The metrics that such questions may belong to; the caller leaves out those that none does.

    Overall accuracy and accuracy by kind need no probe and always exist. Where two have one name, the first counts.

    Args:
        questions: (kind, probe) of each.
    """
    asked = set(questions)
    probes = {probe for _, probe in asked}
    known = [*_prior(), *existence_metrics(), *_captions(), *amber_metrics(probes), *language_prior_metrics(probes)]
    return [*known, *_accuracy(asked), *seeing_metrics()]


def _prior() -> Iterator[Metric]:
    group = "Language prior"
    for probe, label in _PRIOR_PROBES.items():
        yield Metric(f"{probe}_accuracy", label, group, _of_probe(probe, _correct))
    for probe in ("prior_conflict", "prior_conflict_seen", "shifted_conflict"):
        label = f"{_PRIOR_PROBES[probe]}: says the prior"
        yield Metric(f"{probe}_says_prior", label, group, _of_probe(probe, _says_prior), better="lower")


def _captions() -> Iterator[Metric]:
    """CHAIR with coverage.

        chair_i = mentions of objects not shown / all mentions     chair_s = captions with one / captions
        caption_recall = shown objects that are named / shown objects

    A right object with a wrong colour is no hallucinated object; it counts in caption_wrong_color, over the right
    objects of which a colour is said.

    Source: CHAIR arXiv:1809.02156 and LisaAnne/Hallucination utils/chair.py.
    """
    group = "Captions (CHAIR)"
    counts: dict[str, tuple[str, CaptionCount]] = {
        "chair_i": ("Named objects that are not there (CHAIR_i)", lambda c: (c.hallucinated, c.mentions)),
        "chair_s": ("Captions that name one (CHAIR_s)", lambda c: flag(c.hallucinated > 0)),
        "caption_recall": ("Objects there that are named (recall)", lambda c: (c.found, c.shown)),
        "caption_wrong_color": ("Right object, wrong colour", lambda c: (c.wrong_color, c.colored)),
    }
    for name, (label, count) in counts.items():
        better: Literal["higher", "lower"] = "higher" if name == "caption_recall" else "lower"
        yield Metric(name, label, group, _of_caption(count), better=better, rate=name == "chair_s")
    words = _of_caption(lambda c: (c.words, 1.0))
    yield Metric("caption_words", "Words a caption", group, words, better="", rate=False, unit="words")


def _accuracy(asked: Set[tuple[str, str]]) -> Iterator[Metric]:
    closed = any(kind in CLOSED_KINDS for kind, _ in asked)
    label = "All closed questions" if closed else "All questions (exact match)"
    yield Metric("accuracy", label, "Accuracy", lambda o: flag(o.correct) if o.closed or not closed else None)
    present = {kind for kind, _ in asked}
    for kind, name in _KINDS.items():
        if kind in present:
            yield Metric(f"accuracy_{kind}", name, "Accuracy", _of_kind(kind))
    reported = {*_PRIOR_PROBES, *_KINDS, "existence", *(f"existence_{name}" for name in SETS)}
    for probe in sorted({probe for kind, probe in asked if kind in CLOSED_KINDS} - reported):
        label = probe.replace("_", " ").capitalize()
        yield Metric(f"{probe}_accuracy", label, "Accuracy by probe", _of_probe(probe, _correct))


def _correct(outcome: Outcome) -> tuple[float, float]:
    return flag(outcome.correct)


def _says_prior(outcome: Outcome) -> tuple[float, float] | None:
    """`says_prior` is written by `answering`, which has the verifier; absent where the sample has no prior answer."""
    says = outcome.meta.get("says_prior")
    return None if says is None else flag(bool(says))


def _of_probe(probe: str, count: Count) -> Count:
    return lambda outcome: count(outcome) if outcome.probe == probe and outcome.closed else None


def _of_kind(kind: str) -> Count:
    return lambda outcome: flag(outcome.correct) if outcome.kind == kind else None


def _of_caption(count: CaptionCount) -> Count:
    return lambda outcome: None if outcome.caption is None else count(outcome.caption)
