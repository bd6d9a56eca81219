"""The stage `negatives`: offline samples in, rejected responses and the images that provoked them out.

Given pairs as well, it makes rejected images for them: their responses stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from mbpo_core.config import NegativesConfig
from mbpo_core.models.policy import load_policy
from mbpo_core.models.sight import check_sight
from mbpo_core.negatives.bench import Bench
from mbpo_core.negatives.mining import Miner
from mbpo_core.negatives.summary import COLUMNS, summarize
from mbpo_core.negatives.tasks import STAGE, Task, open_tasks, sample_of_pair
from mbpo_core.prefetch import ahead
from mbpo_core.records import Dropped, Negative, Sample
from mbpo_core.stage import Reader, Row, StageContext
from mbpo_core.verifiers.registry import require

_BATCHES = 4
"""Batches a window: its samples are sorted by length and share the slots of the attack. Windows are cut at multiples
of the input index, so part size and resuming never change which samples are mined together."""


def run(context: StageContext) -> None:
    """Mine every sample of the offline split (or every pair), a window at a time.

    Inputs: `samples`; `pairs` where rejected images are wanted for pairs that exist. Policies: `policy`.

    Writes: one `Negative` a row; `mining.json` counts the flips of all of them.

    The next window is decoded and tokenised while the model works on this one; memory holds these two and the rows of
    one part.
    """
    _mine(context)
    written = context.output.reader("part")
    letters = written.rows("dropped", columns=["reason", "row"])
    summary = summarize(written.rows(columns=list(COLUMNS)), letters, context.config.min_distinct)
    context.output.add_json("mining.json", summary)
    context.progress.log(
        "negatives: {kept} of {attacked} kept, {flipped} of {clean_correct} flipped".format(**summary["all"])
    )


def _mine(context: StageContext) -> None:
    settings: NegativesConfig = context.config
    samples = context.inputs["samples"].where("split", ["offline"])
    source = context.inputs.get("pairs", samples)
    if context.rounds > 1:  # each round mines its own share
        source = samples.share(context.round_index, context.rounds)
    total, size = source.count(), _BATCHES * settings.batch_size
    parts = context.begin(STAGE, total, settings.part_rows, size)
    if not parts:  # a stage whose parts are all done needs no model
        return
    require(row["kind"] for row in samples.rows(columns=["kind"]))
    policy = load_policy(context.open_policy(context.policies["policy"]), context.policy_config)
    check_sight(policy)
    miner = Miner(Bench(policy, settings, context.seed, samples))
    read_samples = _samples_of(context, samples)

    def read(window: tuple[int, int]) -> list[Task | Dropped]:
        return open_tasks(policy, read_samples(source.slice(*window)), settings.max_new_tokens)

    windows = [[(start, min(start + size, p.stop)) for start in range(p.start, p.stop, size)] for p in parts]
    mined = flips = 0
    with ahead((window for several in windows for window in several), read, depth=1) as opened:
        for part, several in zip(parts, windows, strict=True):
            negatives: list[Negative] = []
            dropped: list[Dropped] = []
            for window in islice(opened, len(several)):
                kept, left = miner.mine(window)
                negatives, dropped = negatives + kept, dropped + left
                mined, flips = mined + len(kept), flips + sum(negative.flipped for negative in kept)
                context.progress.advance(len(window), flipped=flips / max(mined, 1))
            part.finish([negative.model_dump() for negative in negatives], dropped)


def _samples_of(context: StageContext, samples: Reader) -> Callable[[Sequence[Row]], list[Sample]]:
    """How rows of the stage's source become samples."""
    if "pairs" not in context.inputs:
        return lambda rows: [Sample.model_validate(row) for row in rows]
    columns = ["sample_id", "answer_form", "choices", "source"]  # what a pair does not carry
    known = {row["sample_id"]: row for row in samples.rows(columns=columns)}
    return lambda rows: [sample_of_pair(row, known[row["sample_id"]]) for row in rows]
