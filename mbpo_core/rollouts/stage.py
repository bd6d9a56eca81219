"""The stage `rollouts`: closed-ended online questions in, verified groups of completions out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean

from mbpo_core.config import RolloutsConfig
from mbpo_core.errors import DataError
from mbpo_core.prefetch import ahead
from mbpo_core.records import CLOSED_KINDS, Dropped, RolloutGroup, Sample
from mbpo_core.rollouts import mopps, redrawing
from mbpo_core.rollouts.collecting import STAGE, Collector
from mbpo_core.rollouts.drawing import draw
from mbpo_core.rollouts.engines.opening import check_engine, opened
from mbpo_core.rollouts.redrawing import Draw
from mbpo_core.stage import PartWriter, Reader, StageContext
from mbpo_core.verifiers.registry import require

SUSPICIOUS_GAP = 0.1
"""Mean difference of two programs' log-probs, nats a token, that is no longer their arithmetic."""


def run(context: StageContext) -> None:
    """Ask the round's prompts, part by part, in the order in which they were drawn.

    Inputs: `samples`; `rollouts`, of the round before, where prompts are picked by what it has shown. Policies:
    `policy`.

    Writes: one `RolloutGroup` a row; where prompts are picked by it, `posterior.json` with what is known of each now;
    where prompts may stand in for others, `redraw.json` with what that came to.

    Raises:
        DataError: there is no closed-ended question in the online split; before a model is loaded.
        ConfigError: the engine, or what judges some kind of question, is not installed, or the endpoint not allowed;
            before a model is loaded.
        EngineError: the endpoint cannot be reached, or refuses.
    """
    config: RolloutsConfig = context.config
    check_engine(config)
    posterior = mopps.read_posterior(context.inputs.get("rollouts"))
    _collect(context, config, posterior)
    if config.select == "mopps":
        groups = context.output.reader("part").rows(columns=["sample_id", "completions"])
        context.output.add_json(mopps.FILE, mopps.learn(posterior, groups, config.mopps_decay))
    if config.redraw:
        counts = redrawing.summary(context.output.reader("part").rows(columns=["zero_variance", "stand_in"]))
        context.output.add_json(redrawing.FILE, counts)
        context.progress.log(
            f"{counts['asked']} prompts were asked, {counts['redrawn']} of them in place of others; "
            f"{counts['mixed']} groups teach, {counts['agreed']} agree"
        )
    if config.engine == "endpoint":
        rows = context.output.reader("part").rows(columns=["engine_gap"])
        context.progress.log(_mismatch([row["engine_gap"] for row in rows if row["engine_gap"] is not None]))


def _collect(context: StageContext, config: RolloutsConfig, posterior: mopps.Posterior) -> None:
    """All groups of the round that are not there yet."""
    samples = context.inputs["samples"].where("split", ["online"]).where("kind", CLOSED_KINDS)
    picked = _pick(context, config, samples, posterior)
    counted = f"{STAGE}, round {context.round_index}"
    parts = context.begin(counted, len(picked.drawn), config.part_rows, config.batch_size)
    if not parts:  # a stage whose parts are all done needs no model
        return
    require(row["kind"] for row in samples.rows(columns=["kind"]))
    reference = context.policies["policy"]
    read = partial(_read, samples.share(0, 1))  # a view of its own: the other one is read by another thread
    with opened(context.open_policy(reference), context.policy_config, config) as (policy, engine):
        collector = Collector(policy, reference.digest, config, context.seed, context.round_index, engine)
        with ahead(_batches(samples, picked.drawn, parts, config.batch_size), collector.open_batch) as batches:
            for part in parts:
                groups: list[RolloutGroup] = []
                dropped: list[Dropped] = []
                for start, batch in zip(range(part.start, part.stop, config.batch_size), batches, strict=False):
                    more, letters = redrawing.ask(collector, batch, picked, start, read)
                    groups, dropped = groups + more, dropped + letters
                    context.progress.advance(len(batch.places), **_figures(groups))
                part.finish([group.model_dump() for group in groups], dropped)


def _batches(
    samples: Reader, drawn: Sequence[int], parts: Sequence[PartWriter], size: int
) -> Iterator[Sequence[Sample]]:
    """The parts' samples, a part read at a time."""
    for part in parts:
        asked = _read(samples, drawn[part.start : part.stop])
        for start in range(0, len(asked), size):
            yield asked[start : start + size]


def _pick(context: StageContext, config: RolloutsConfig, samples: Reader, posterior: mopps.Posterior) -> Draw:
    """The round's prompts, and those that may stand in."""
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
    asked, spare = min(config.prompts, count), config.redraw * config.prompts
    if config.select == "shuffle":
        positions = draw(sample_ids, config.prompts, context.round_index, context.seed, spare)
    else:
        positions = mopps.pick(
            sample_ids,
            posterior,
            prompts=config.prompts,
            pool=config.mopps_pool,
            round_index=context.round_index,
            seed=context.seed,
            spare=spare,
        )
    return Draw(positions[:asked], positions[asked:])


def _mismatch(gaps: Sequence[float]) -> str:
    """What the endpoint's own log-probs say about whether it samples from the policy."""
    if not gaps:
        return "the endpoint tells no log-probs of its own: that it serves this round's weights is taken on trust"
    mean = fmean(gaps)
    verdict = "another model, or another prompt" if mean > SUSPICIOUS_GAP else "the same weights"
    return (
        f"the endpoint's log-probs differ from the policy's by {mean:.2g} nats a token, by {max(gaps):.2g} in the "
        f"worst of {len(gaps)} groups: {verdict}"
    )


def _read(samples: Reader, positions: Sequence[int]) -> list[Sample]:
    """Scattered rows, in the order of positions; read in table order, so that each row group is read once."""
    rows = {position: samples.slice(position, position + 1)[0] for position in sorted(positions)}
    return [Sample.model_validate(rows[position]) for position in positions]


def _figures(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    rewards = [completion.reward for group in groups for completion in group.completions]
    still = sum(group.zero_variance for group in groups)
    gaps = [group.engine_gap for group in groups if group.engine_gap is not None]
    measured = {"engine_gap": sum(gaps) / len(gaps)} if gaps else {}
    return {"reward": sum(rewards) / max(len(rewards), 1), "zero_variance": still / max(len(groups), 1), **measured}
