"""The stage `pairs`: negatives in, preference pairs out, in two phases.

First every negative is scored (table `scored`, kept for ablations and reports). Then the filters
and the share of each question kind decide which of them enter the main table; that needs all
scores at once, but not the pictures.
"""

from __future__ import annotations

from mbpo_core.config import PairsConfig
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.pairs.filters import COLUMNS, Scores, reason_against
from mbpo_core.pairs.scoring import STAGE, drop, score
from mbpo_core.pairs.selection import outside_share
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
    total = negatives.count()
    context.progress.start(f"{STAGE}: scoring", total)
    policy: Policy | None = None
    for part in context.output.parts(total, config.part_rows, config.batch_size, table=SCORED):
        if policy is None:  # a stage whose parts are all done needs no model
            policy = load_policy(context.open_policy(context.policies["policy"]), context.policy_config)
        rows: list[Row] = []
        dropped: list[Dropped] = []
        for start in range(part.start, part.stop, config.batch_size):
            batch = negatives.slice(start, min(start + config.batch_size, part.stop))
            pairs, left = score(policy, [Negative.model_validate(row) for row in batch], config.blind)
            rows += [pair.model_dump() for pair in pairs]
            dropped += left
            context.progress.advance(len(batch))
        part.finish(rows, dropped)


def _select(context: StageContext, scored: Reader) -> None:
    config: PairsConfig = context.config
    verdicts = _verdicts(scored, config, context.seed)
    total = scored.count(SCORED)
    context.progress.start(f"{STAGE}: selecting", total)
    for part in context.output.parts(total, config.part_rows):
        rows: list[Row] = []
        dropped: list[Dropped] = []
        for row in scored.slice(part.start, part.stop, SCORED):
            if verdict := verdicts.get(row["sample_id"]):
                dropped.append(drop(PreferencePair.model_validate(row), *verdict))
            else:
                rows.append(row)
        part.finish(rows, dropped)
        context.progress.advance(part.stop - part.start, kept=len(rows))


def _verdicts(scored: Reader, config: PairsConfig, seed: int) -> dict[str, tuple[str, str]]:
    """sample_id -> (reason, detail) of every pair that is not kept: filters first, then the share of what is left."""
    verdicts: dict[str, tuple[str, str]] = {}
    candidates: list[Scores] = []
    for row in scored.rows(SCORED, COLUMNS):
        scores = Scores.of(row)
        if against := reason_against(scores, config):
            verdicts[scores.sample_id] = against
        else:
            candidates.append(scores)
    left_out = outside_share(candidates, config.select, config.share, seed)
    return verdicts | {sample_id: ("outside_share", detail) for sample_id, detail in left_out.items()}
