"""The stage `pairs`: negatives in, preference pairs out, in two phases.

First every negative is scored (table `scored`, kept for ablations and reports). Then the filters
and the share of each question kind decide which of them enter the main table; that needs all
scores at once, but not the pictures.
"""

from __future__ import annotations

from itertools import islice

from mbpo_core.config import PairsConfig
from mbpo_core.models.policy import load_policy
from mbpo_core.models.sight import check_sight
from mbpo_core.pairs.filters import COLUMNS, Scores, reason_against
from mbpo_core.pairs.scoring import STAGE, Opened, drop, open_batch, score
from mbpo_core.pairs.selection import rank_pairs
from mbpo_core.prefetch import ahead
from mbpo_core.records import Dropped, Negative, PreferencePair
from mbpo_core.stage import Reader, Row, StageContext

SCORED = "scored"


def run(context: StageContext) -> None:
    """Score all negatives, then keep or drop each pair with a reason; input order is kept."""
    _score(context)
    _select(context, context.output.reader(SCORED))


def _score(context: StageContext) -> None:
    config: PairsConfig = context.config
    negatives = context.inputs["negatives"]
    total, size = negatives.count(), config.batch_size
    parts = context.begin(f"{STAGE}: scoring", total, config.part_rows, size, table=SCORED)
    if not parts:  # a stage whose parts are all done needs no model
        return
    policy = load_policy(context.open_policy(context.policies["policy"]), context.policy_config)
    check_sight(policy)

    def read(span: tuple[int, int]) -> Opened:
        return open_batch(policy, [Negative.model_validate(row) for row in negatives.slice(*span)])

    spans = {part.index: [(s, min(s + size, part.stop)) for s in range(part.start, part.stop, size)] for part in parts}
    with ahead((span for part in parts for span in spans[part.index]), read) as batches:
        for part in parts:
            rows: list[Row] = []
            dropped: list[Dropped] = []
            for opened in islice(batches, len(spans[part.index])):
                rows += [pair.model_dump() for pair in score(policy, opened, config.blind)]
                dropped += opened.dropped
                context.progress.advance(len(opened.negatives) + len(opened.dropped))
            part.finish(rows, dropped)


def _select(context: StageContext, scored: Reader) -> None:
    config: PairsConfig = context.config
    candidates = (Scores.of(row) for row in scored.rows(SCORED, COLUMNS))
    passed = (None if reason_against(scores, config) else scores for scores in candidates)
    ranking = rank_pairs(passed, config.select, config.share, context.seed)
    looked_at = kept = 0
    for part in context.begin(f"{STAGE}: selecting", scored.count(SCORED), config.part_rows):
        rows: list[Row] = []
        dropped: list[Dropped] = []
        for number, row in enumerate(scored.slice(part.start, part.stop, SCORED), start=part.start):
            verdict = reason_against(Scores.of(row), config)
            if verdict is None and (detail := ranking.outside(number, row["question_kind"])):
                verdict = "outside_share", detail
            if verdict is None:
                rows.append(row)
            else:
                dropped.append(drop(PreferencePair.model_validate(row), *verdict))
        part.finish(rows, dropped)
        looked_at, kept = looked_at + part.stop - part.start, kept + len(rows)
        context.progress.advance(part.stop - part.start, kept=kept / looked_at)
