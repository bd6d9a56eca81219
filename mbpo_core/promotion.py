"""The promotion gate: which checkpoint a run publishes.

A new checkpoint takes the promoted one's place unless its evaluation is significantly worse: both answered the same
questions, and the interval of the paired difference lies wholly on the worse side of zero in a metric that
`promotion.metrics` names. The gate asks for no gain, so small losses can add up over many promotions; the differences
to the base model in every evaluation show that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, get_args

from mbpo_core.config import PipelineConfig
from mbpo_core.errors import ConfigError, StoreError
from mbpo_core.records import Kind
from mbpo_core.stage import ArtifactRef, PolicyRef
from mbpo_core.store.core import Store
from mbpo_core.store.promotions import Comparison, Decision, promoted
from mbpo_core.store.runs import now

LEAST_COMMON = 0.5
"""Share of the promoted checkpoint's questions that the new one must have answered too: a handful of common questions
has intervals so wide that nothing is ever significantly worse."""

_QUESTION = ("sample_id", "question_kind", "probe", "question", "answer")
_TYPO = 0.85  # likeness of a name to one of ours from which on it counts as misspelt
_OWN_PROBE = "_accuracy"  # how the metrics of a user's own probes end


def check_metrics(names: Iterable[str]) -> None:
    """Refuse metrics that no evaluation knows, or of which neither way is better.

    A probe of the user's own has a metric too, `<probe>_accuracy`; such a name is taken as it is unless it looks like
    one of ours misspelt.

    Raises:
        ConfigError: names every wrong one with what is like it.
    """
    known, wrong = _known_metrics(), []
    for name in names:
        near = get_close_matches(name, known, n=3, cutoff=_TYPO if name.endswith(_OWN_PROBE) else 0.5)
        if name in known:
            if not known[name]:
                wrong.append(f"{name} (neither way is better)")
        elif near or not name.endswith(_OWN_PROBE) or name == _OWN_PROBE:
            wrong.append(f"{name} (unknown{'; like it: ' + ', '.join(near) if near else ''})")
    if wrong:
        raise ConfigError(
            f"no checkpoint can be judged by {', '.join(wrong)}",
            where="promotion.metrics",
            expected="metrics of the evaluation that have a better and a worse",
            remedy="mbpo show evaluation --json lists those of a run.",
        )


def decide(store: Store, config: PipelineConfig, evaluation: ArtifactRef, policy: PolicyRef) -> Decision | None:
    """Whether a run should promote a checkpoint; nothing is written.

    Answers are compared on the questions that both checkpoints were asked. Where fewer than half of the old ones were
    asked again the gate refuses, and does not compare unpaired: other questions may be harder or easier, so that a
    difference, or the lack of one, need not be the checkpoint's.

    Args:
        evaluation: of the checkpoint.
        policy: the checkpoint.

    Returns:
        None where there is nothing to decide: no metric is named, the checkpoint is not evaluated yet, or this
        evaluation of it is the promoted one.

    Raises:
        StoreError: the evaluation, or what was decided before, cannot be read.
    """
    candidate, before = policy.artifact, promoted(store, config.run)
    if candidate is None or not config.promotion.metrics or _label(store, evaluation, candidate) is None:
        return None
    same = before is not None and before.candidate.content == candidate.content
    if before and same and before.evaluation.content == evaluation.content:
        return None
    try:
        result = _judge(store, config, evaluation, candidate, None if same else before)
    except StoreError as error:
        result = {"promotes": False, "reason": f"the promoted evaluation cannot be read: {error}"}
    if result["promotes"]:
        result["reason"] = _permission(before, same)
    return Decision(
        time=now(),
        candidate=candidate,
        evaluation=evaluation,
        against=before.candidate if before else None,
        against_evaluation=before.evaluation if before else None,
        confidence=config.promotion.confidence,
        **result,
    )


def compare(
    candidate: Iterable[Mapping[str, Any]],
    promoted: Iterable[Mapping[str, Any]],
    metrics: Sequence[str],
    *,
    confidence: float,
    bootstrap: int,
    seed: int,
) -> list[Comparison]:
    """Each metric of two policies that answered the same questions, by the evaluation's own paired bootstrap.

    Args:
        candidate: Prediction rows of the new policy (images not needed).
        promoted: of the promoted one; none where nothing is promoted yet.
        metrics: names in the evaluation's summary.
        confidence: level of the intervals.
        bootstrap: resamples, by question.
        seed: of the bootstrap.
    """
    from mbpo_core.evaluation.summary import summarize

    rows = [row | {"policy": "promoted"} for row in map(dict, promoted)]
    rows += [row | {"policy": "candidate"} for row in map(dict, candidate)]
    summary = summarize(rows, confidence=confidence, bootstrap=bootstrap, seed=seed)
    return [_comparison(summary, name) for name in metrics]


def _judge(
    store: Store, config: PipelineConfig, evaluation: ArtifactRef, candidate: ArtifactRef, before: Decision | None
) -> dict[str, Any]:
    """The part of a decision that follows from the answers."""
    new = _answers(store, evaluation, candidate)
    old = _answers(store, before.evaluation, before.candidate) if before else {}
    common = new.keys() & old.keys() if before else new.keys()
    if len(common) < LEAST_COMMON * len(old):
        return {
            "promotes": False,
            "questions": len(common),
            "reason": f"only {len(common)} of the {len(old)} questions that the promoted checkpoint answered were "
            "asked again; keep the old questions among the new, or give the new data another run, whose first "
            "evaluation promotes",
        }
    comparisons = compare(
        [row for question, row in new.items() if question in common],
        [row for question, row in old.items() if question in common],
        config.promotion.metrics,
        confidence=config.promotion.confidence,
        bootstrap=config.evaluation.bootstrap,
        seed=config.seed,
    )
    worse = [entry.metric for entry in comparisons if entry.verdict == "worse"]
    unknown = [entry.metric for entry in comparisons if entry.verdict == "unknown"]
    reasons = [f"significantly worse in {', '.join(worse)}"] if worse else []
    reasons += [f"the evaluation has no number for {', '.join(unknown)}"] if unknown else []
    return {
        "promotes": not reasons,
        "questions": len(common),
        "comparisons": comparisons,
        "reason": "; ".join(reasons),
    }


def _permission(before: Decision | None, same: bool) -> str:
    if before is None:
        return "nothing was promoted before"
    return "the promoted checkpoint, evaluated anew" if same else "not significantly worse in any metric"


def _comparison(summary: Mapping[str, Any], name: str) -> Comparison:
    described = summary["metrics"].get(name, {"label": name, "better": ""})
    policies, differences = summary["policies"], summary["differences"]
    candidate = policies["candidate"].get(name, {}).get("value")
    difference = differences.get("candidate", {}).get(name, {})
    low, high, better = difference.get("low"), difference.get("high"), described["better"]
    worse = low is not None and (high < 0 if better == "higher" else low > 0 if better == "lower" else False)
    return Comparison(
        metric=name,
        label=described["label"],
        better=better,
        promoted=policies.get("promoted", {}).get(name, {}).get("value"),
        candidate=candidate,
        difference=difference.get("value"),
        low=low,
        high=high,
        p=difference.get("p"),
        verdict="unknown" if candidate is None else "worse" if worse else "passes",
    )


def _answers(store: Store, evaluation: ArtifactRef, checkpoint: ArtifactRef) -> dict[tuple[str, ...], dict[str, Any]]:
    """A checkpoint's predictions, without images, by question.

    Raises:
        StoreError, DamagedArtifact: they cannot be read.
    """
    from mbpo_core.evaluation.outcomes import COLUMNS

    label = _label(store, evaluation, checkpoint)
    if label is None:
        raise StoreError(
            f"the evaluation {evaluation.digest[:12]} did not ask the checkpoint {checkpoint.digest[:12]}",
            remedy="Rerun the evaluation.",
        )
    rows = store.reader(evaluation).where("policy", [label]).rows(columns=[*COLUMNS, "question"])
    return {tuple(row[name] for name in _QUESTION): row for row in rows}


def _label(store: Store, evaluation: ArtifactRef, checkpoint: ArtifactRef) -> str | None:
    """Under which name an evaluation asked a checkpoint; None if it did not."""
    for label, policy in store.reader(evaluation).manifest.policies.items():
        if policy.artifact is not None and policy.artifact.content == checkpoint.content:
            return label
    return None


@cache
def _known_metrics() -> dict[str, str]:
    """Name and better direction of every metric that needs no probe of the user's own."""
    from mbpo_core.evaluation.metrics import metrics_for

    return {metric.name: metric.better for metric in metrics_for((kind, "neutral") for kind in get_args(Kind))}
