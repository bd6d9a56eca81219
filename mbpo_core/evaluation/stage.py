"""The stage: every policy answers every held-out question; predictions and their summary come out."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import groupby, islice
from operator import itemgetter

from mbpo_core.evaluation.answering import answer_questions, open_questions
from mbpo_core.evaluation.balance import Balance, choose_balance
from mbpo_core.evaluation.outcomes import COLUMNS
from mbpo_core.evaluation.questions import questions_of
from mbpo_core.evaluation.seeing import gain_curves
from mbpo_core.evaluation.summary import summarize
from mbpo_core.prefetch import ahead
from mbpo_core.records import Dropped
from mbpo_core.stage import BASE, PartWriter, Reader, Row, StageContext
from mbpo_core.verifiers.registry import require

Batch = tuple[str, int, int]  # policy label, first question, end
Answers = tuple[list[Row], list[Dropped]]


def run(ctx: StageContext) -> None:
    """Write a Prediction for each (policy, question), then `summary.json` and, of `config.balance`, `gains.json`.

    Policies are taken one after the other, in the order of ctx.policies, and each is loaded once; all differences are
    taken to the first. Only the rows of the policy called base carry the images. Parts lie in the index space of
    policies x questions, where each policy's share is rounded up to whole batches: so all policies are asked in the
    same batches, whatever the part size, and equal policies give equal answers.

    Raises:
        DataError: no question in the split.
        ConfigError: what judges some kind of question is not installed; before a model is loaded.
    """
    config = ctx.config
    questions = questions_of(ctx.inputs["samples"], config)
    require(row["kind"] for row in questions.rows(columns=["kind"]))
    count = questions.count()
    places = math.ceil(count / config.batch_size) * config.batch_size
    labels = list(ctx.policies)
    parts = list(ctx.output.parts(places * len(labels), config.part_rows, batch=config.batch_size))
    batches = {part.index: list(_batches(part, labels, places, count, config.batch_size)) for part in parts}
    older = (b for part in ctx.output.finished() for b in _batches(part, labels, places, count, config.batch_size))
    ctx.progress.start("questions", count * len(labels), sum(stop - start for _, start, stop in older))
    todo = [batch for part in parts for batch in batches[part.index]]
    balance = choose_balance(questions, config) if todo else Balance()
    with closing(_answered(ctx, questions, balance, todo)) as answered:
        for part in parts:
            rows: list[Row] = []
            dropped: list[Dropped] = []
            for predictions, left in islice(answered, len(batches[part.index])):
                rows += predictions
                dropped += left
                ctx.progress.advance(len(predictions) + len(left))
            part.finish(rows, dropped)
    ctx.output.add_json("summary.json", _summary(ctx))
    if config.balance:
        ctx.output.add_json("gains.json", gain_curves(_Rows(ctx.output.reader("part"))))


def _batches(part: PartWriter | range, labels: list[str], places: int, count: int, batch: int) -> Iterator[Batch]:
    """The batches of a part."""
    for index in range(part.start, part.stop, batch):
        policy, start = divmod(index, places)
        yield labels[policy], start, min(start + batch, count)


def _answered(
    ctx: StageContext, questions: Reader, balance: Balance, batches: list[Batch]
) -> Generator[Answers, None, None]:
    """What each batch yields, in order; one policy is in memory at a time."""
    for label, same in groupby(batches, key=itemgetter(0)):
        yield from _answered_by(ctx, label, questions, balance, list(same))


def _answered_by(
    ctx: StageContext, label: str, questions: Reader, balance: Balance, batches: list[Batch]
) -> Iterator[Answers]:
    from mbpo_core.models.policy import load_policy

    policy = load_policy(ctx.open_policy(ctx.policies[label]), ctx.policy_config)
    keep_images = label == BASE
    with ahead(batches, lambda b: open_questions(policy, questions.slice(*b[1:]), ctx.config, balance)) as opened:
        for batch in opened:
            yield answer_questions(policy, label, batch, ctx.config, keep_images=keep_images), batch.dropped


def _summary(ctx: StageContext) -> dict[str, object]:
    predictions: Reader = ctx.output.reader("part")
    summary = summarize(
        _Rows(predictions),
        confidence=ctx.config.confidence,
        bootstrap=ctx.config.bootstrap,
        seed=ctx.seed,
        clusters=ctx.config.clusters,
    )
    summary["about"] |= {"split": ctx.config.split, "blind": ctx.config.blind}
    return summary


class _Rows:
    """All predictions without their images, read anew each time they are gone through."""

    def __init__(self, predictions: Reader) -> None:
        self._predictions = predictions

    def __iter__(self) -> Iterator[Row]:
        return self._predictions.rows(columns=COLUMNS)
