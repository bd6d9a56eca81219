"""The stage `negatives`: offline samples in, rejected responses with the images that provoked them out."""

from __future__ import annotations

from mbpo_core.config import NegativesConfig
from mbpo_core.models.policy import load_policy
from mbpo_core.negatives.mining import Miner
from mbpo_core.negatives.summary import COLUMNS, summarize
from mbpo_core.negatives.tasks import STAGE
from mbpo_core.records import Dropped, Negative, Sample
from mbpo_core.stage import StageContext


def run(context: StageContext) -> None:
    """Mine every sample of the offline split, a batch at a time; `mining.json` counts the flips of all of them."""
    settings: NegativesConfig = context.config
    samples = context.inputs["samples"].where("split", ["offline"])
    total = samples.count()
    context.progress.start(STAGE, total)
    miner: Miner | None = None
    for part in context.output.parts(total, settings.part_rows, settings.batch_size):
        if miner is None:  # a stage whose parts are all done needs no model
            policy = load_policy(context.open_policy(context.policies["policy"]), context.policy_config)
            miner = Miner(policy, settings, context.seed)
        negatives: list[Negative] = []
        dropped: list[Dropped] = []
        for start in range(part.start, part.stop, settings.batch_size):
            rows = samples.slice(start, min(start + settings.batch_size, part.stop))
            kept, left = miner.mine([Sample.model_validate(row) for row in rows])
            negatives, dropped = negatives + kept, dropped + left
            context.progress.advance(len(rows), flipped=sum(n.flipped for n in negatives) / max(len(negatives), 1))
        part.finish([negative.model_dump() for negative in negatives], dropped)
    written = context.output.reader("part")
    summary = summarize(written.rows(columns=list(COLUMNS)), written.rows("dropped", columns=["row"]))
    context.output.add_json("mining.json", summary)
    context.progress.log(
        "negatives: {kept} of {attacked} kept, {flipped} of {clean_correct} flipped".format(**summary["all"])
    )
