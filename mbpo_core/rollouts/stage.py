"""The stage `rollouts`: closed-ended online questions in, verified groups of completions out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

from mbpo_core.config import RolloutsConfig
from mbpo_core.errors import DataError
from mbpo_core.models.policy import load_policy
from mbpo_core.models.sight import check_sight
from mbpo_core.prefetch import ahead
from mbpo_core.records import CLOSED_KINDS, Dropped, RolloutGroup, Sample
from mbpo_core.rollouts import mopps
from mbpo_core.rollouts.collecting import STAGE, Collector
from mbpo_core.rollouts.drawing import draw
from mbpo_core.stage import PartWriter, Reader, StageContext


def run(context: StageContext) -> None:
    """Ask the round's prompts, part by part, in the order in which they were drawn.

    Inputs: `samples`; `rollouts`, of the round before, where prompts are picked by what it has shown. Policies:
    `policy`.

    Writes: one `RolloutGroup` a row; where prompts are picked by it, `posterior.json` with what is known of each now.

    Raises:
        DataError: there is no closed-ended question in the online split; before a model is loaded.
    """
    config: RolloutsConfig = context.config
    posterior = mopps.read_posterior(context.inputs.get("rollouts"))
    _collect(context, config, posterior)
    if config.select == "mopps":
        groups = context.output.reader("part").rows(columns=["sample_id", "completions"])
        context.output.add_json(mopps.FILE, mopps.learn(posterior, groups, config.mopps_decay))


def _collect(context: StageContext, config: RolloutsConfig, posterior: mopps.Posterior) -> None:
    """All groups of the round that are not there yet."""
    samples = context.inputs["samples"].where("split", ["online"]).where("kind", CLOSED_KINDS)
    drawn = _draw(context, config, samples, posterior)
    context.progress.start(f"{STAGE}, round {context.round_index}", len(drawn))
    parts = list(context.output.parts(len(drawn), config.part_rows, config.batch_size))
    if not parts:  # a stage whose parts are all done needs no model
        return
    reference = context.policies["policy"]
    policy = load_policy(context.open_policy(reference), context.policy_config)
    check_sight(policy)
    collector = Collector(policy, reference.digest, config, context.seed, context.round_index)
    with ahead(_batches(samples, drawn, parts, config.batch_size), collector.open_batch) as batches:
        for part in parts:
            groups: list[RolloutGroup] = []
            dropped: list[Dropped] = []
            for opened in islice(batches, math.ceil((part.stop - part.start) / config.batch_size)):
                groups += collector.collect(opened)
                dropped += opened.dropped
                context.progress.advance(len(opened.samples) + len(opened.dropped), **_figures(groups))
            part.finish([group.model_dump() for group in groups], dropped)


def _batches(
    samples: Reader, drawn: Sequence[int], parts: Sequence[PartWriter], size: int
) -> Iterator[Sequence[Sample]]:
    """The parts' samples, a part read at a time."""
    for part in parts:
        asked = _read(samples, drawn[part.start : part.stop])
        for start in range(0, len(asked), size):
            yield asked[start : start + size]


def _draw(context: StageContext, config: RolloutsConfig, samples: Reader, posterior: mopps.Posterior) -> list[int]:
    """Positions of the round's prompts in the view of online questions."""
    count = samples.count()
    if not count:
        raise DataError(
            "there is no question to ask online",
            where="samples",
            expected=f"rows of the online split whose kind is {', '.join(CLOSED_KINDS)}",
            remedy="Raise samples.online_share, or map samples.kind_column and samples.split_column.",
        )
    if config.prompts > count:
        context.progress.log(f"rollouts.prompts is {config.prompts}, all {count} online questions are asked")
    sample_ids = (row["sample_id"] for row in samples.rows(columns=["sample_id"]))
    if config.select == "shuffle":
        return draw(sample_ids, config.prompts, context.round_index, context.seed)
    return mopps.pick(
        sample_ids,
        posterior,
        prompts=config.prompts,
        pool=config.mopps_pool,
        round_index=context.round_index,
        seed=context.seed,
    )


def _read(samples: Reader, positions: Sequence[int]) -> list[Sample]:
    """Scattered rows, in the order of positions; read in table order, so that each row group is read once."""
    rows = {position: samples.slice(position, position + 1)[0] for position in sorted(positions)}
    return [Sample.model_validate(rows[position]) for position in positions]


def _figures(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    rewards = [completion.reward for group in groups for completion in group.completions]
    still = sum(group.zero_variance for group in groups)
    return {"reward": sum(rewards) / max(len(rewards), 1), "zero_variance": still / max(len(groups), 1)}
