"""The stage: every policy answers every held-out question; predictions and their summary come out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mbpo_core.evaluation.answering import answer_questions, questions_of
from mbpo_core.evaluation.outcomes import COLUMNS
from mbpo_core.evaluation.summary import summarize
from mbpo_core.stage import PartWriter, Reader, Row, StageContext

if TYPE_CHECKING:
    from mbpo_core.models.policy import Policy


def run(ctx: StageContext) -> None:
    """Write a Prediction for each (policy, question), then `summary.json`.

    Policies are taken one after the other, in the order of ctx.policies, and each is loaded once; the first is the
    base of all differences, and only its rows carry the images. Parts lie in the index space of policies x questions,
    where each policy's share is rounded up to whole batches: so all policies are asked in the same batches, whatever
    the part size, and equal policies give equal answers.

    Raises:
        DataError: no question in the split.
    """
    config = ctx.config
    questions = questions_of(ctx.inputs["samples"], config)
    count = questions.count()
    places = math.ceil(count / config.batch_size) * config.batch_size
    labels = list(ctx.policies)
    policies = _Loaded(ctx)
    ctx.progress.start("questions", count * len(labels))
    for part in ctx.output.parts(places * len(labels), config.part_rows, batch=config.batch_size):
        rows: list[Row] = []
        dropped = []
        for label, start, stop in _batches(part, labels, places, count, config.batch_size):
            samples = questions.slice(start, stop)
            answers = answer_questions(policies[label], label, samples, config, keep_images=label == labels[0])
            rows += answers.rows
            dropped += answers.dropped
            ctx.progress.advance(len(samples))
        part.finish(rows, dropped)
    ctx.output.add_json("summary.json", _summary(ctx))


def _batches(
    part: PartWriter, labels: list[str], places: int, count: int, batch: int
) -> Iterator[tuple[str, int, int]]:
    """(policy label, first question, end) of each batch in a part."""
    for index in range(part.start, part.stop, batch):
        policy, start = divmod(index, places)
        yield labels[policy], start, min(start + batch, count)


def _summary(ctx: StageContext) -> dict[str, object]:
    predictions: Reader = ctx.output.reader("part")
    summary = summarize(
        predictions.rows(columns=COLUMNS),
        confidence=ctx.config.confidence,
        bootstrap=ctx.config.bootstrap,
        seed=ctx.seed,
    )
    summary["about"] |= {"split": ctx.config.split, "blind": ctx.config.blind}
    return summary


class _Loaded:
    """One policy at a time; asking for another frees the last."""

    def __init__(self, ctx: StageContext) -> None:
        self._ctx = ctx
        self._label = ""
        self._policy: Policy | None = None

    def __getitem__(self, label: str) -> Policy:
        if self._policy is None or label != self._label:
            from mbpo_core.models.policy import load_policy

            self._policy = None  # before the next one is loaded: two may not fit
            folder = self._ctx.open_policy(self._ctx.policies[label])
            self._label, self._policy = label, load_policy(folder, self._ctx.policy_config)
        return self._policy
