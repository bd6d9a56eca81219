"""A word of warning before the engine is made, where the estimate says that the accelerator is too small."""

from __future__ import annotations

from pathlib import Path

from mbpo_core.config import LaunchConfig, NegativesConfig, PipelineConfig, RolloutsConfig
from mbpo_core.memory.architecture import read_architecture
from mbpo_core.memory.knobs import turns
from mbpo_core.memory.stages import Estimator
from mbpo_core.memory.terms import GIB
from mbpo_core.memory.workload import prompts_of
from mbpo_core.models.policy import Policy
from mbpo_core.training.data import GroupSet
from mbpo_core.training.job import Job
from mbpo_core.training.plan import Batch
from mbpo_core.training.world import World


def shortage(estimator: Estimator, device: float) -> str | None:
    """What is likely to be missing of a device's memory, and the setting that helps most; None where nothing is.

    Args:
        estimator: of this round.
        device: bytes of one accelerator.
    """
    estimate = estimator.training()
    if estimate.size <= device:
        return None
    largest = estimate.peak.largest
    line = (
        f"training may not fit: about {estimate.size / GIB:.3g} GiB are needed ({estimate.peak.name}), and the "
        f"accelerator has {device / GIB:.3g}; largest: {largest.name}, {largest.size / GIB:.3g}"
    )
    knobs = turns(estimator, "training", device)
    return line + (f"; {knobs[0].change} would save {knobs[0].saving / GIB:.3g} GiB" if knobs else "")


def estimator_of(policy: Policy, job: Job, groups: GroupSet, batches: list[Batch], world: World) -> Estimator:
    """Estimates of this round: with its longest completions, and the prompt of its first group."""
    rounds = {"offline": [i for b in batches for i in b.offline], "online": [i for b in batches for i in b.online]}
    first = next(index for indices in rounds.values() for index in indices)
    entry = groups.entry(groups.kind(first)[1])
    prompt = groups.looks([first], entry.passes[:1])[0].groups[0].prompt
    lengths = {source: [groups.lengths(index) for index in indices] for source, indices in rounds.items()}
    longest = {source: max((max(one) for one in several), default=1) for source, several in lengths.items()}
    size = max((len(one) for one in lengths["online"]), default=2)
    sections = {
        "policy": job.policy_config,
        "training": job.config,
        "negatives": NegativesConfig().model_copy(update={"max_new_tokens": longest["offline"]}),
        "rollouts": RolloutsConfig().model_copy(update={"max_new_tokens": longest["online"], "group_size": size}),
        "launch": LaunchConfig().model_copy(update={"processes": world.size}),
        "rounds": 1 if job.policy_digest == job.reference_digest else 2,  # whether there is a second model
    }
    config = PipelineConfig(method="mbpo").model_copy(update=sections)
    return Estimator(read_architecture(Path(job.reference)), config, prompts_of(prompt, policy.model.config))
