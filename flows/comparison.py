"""Several methods on the same samples, seeds and budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows.opening import open_run
from flows.pipeline import train_method
from mbpo_core.config import PipelineConfig, load_config
from mbpo_core.errors import ConfigError
from mbpo_core.methods import METHODS
from mbpo_core.stage import ArtifactRef
from tasks.evaluation import evaluate_policies
from tasks.run import Run
from tasks.samples import import_samples


def comparison_configs(
    path: Path, methods: Sequence[str], seeds: int, tokens: int, changes: Sequence[str]
) -> list[list[PipelineConfig]]:
    """A config a method, for each seed; run names say which: compare-<run>-<seed>.<method>.

    Args:
        path: run config that all have in common; what it says itself beats a method's settings.
        methods: names of `mbpo methods`, each once.
        seeds: how many, from the config's own.
        tokens: budget of training, token positions; 0 takes the config's.
        changes: overrides for all, section.field=value.

    Raises:
        ConfigError: a method is unknown or named twice, or there is no budget.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown or len(set(methods)) < len(methods) or not methods:
        raise ConfigError(
            f"methods {', '.join(unknown or methods) or 'none'} cannot be compared",
            expected="names of methods, each once",
            remedy="mbpo methods lists them.",
        )
    plain = load_config(path, list(changes))
    budget = tokens or plain.training.token_budget
    if not budget:
        raise ConfigError(
            "the comparison has no budget",
            where=str(path),
            expected="token positions to run forward and backward, the same for each method",
            remedy="Give --tokens. What a run of yours used is in mbpo show training --json.",
        )
    common = [*changes, "baselines=[]", f"training.token_budget={budget}"]
    return [
        [
            load_config(path, [*common, f"method={name}", f"seed={seed}", f"run=compare-{plain.run}-{seed}.{name}"])
            for name in methods
        ]
        for seed in range(plain.seed, plain.seed + seeds)
    ]


def follow_comparison(runs: Sequence[Run]) -> ArtifactRef:
    """All methods of one seed, and one evaluation of what they made; the first run holds it.

    The same lines serve a real run and a mere plan, as in `flows.pipeline`.
    """
    first = runs[0]
    reference, policies = first.base_policy(), []
    for run in runs:
        samples = import_samples(run)
        policies.append(train_method(run, samples, reference)[0])
    return evaluate_policies(first, samples, [reference, *policies])


@flow(name="compare")
def compare(configs: list[PipelineConfig]) -> ArtifactRef:
    """Train several methods on one seed's samples and ask them all the same questions.

    Args:
        configs: a run config a method, of one seed; they differ in `method` and `run`.
    """
    return follow_comparison([open_run(config, []) for config in configs])
