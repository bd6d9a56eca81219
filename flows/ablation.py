"""One cell of a grid with one seed. What is common to several cells is one artifact, and made once."""

from __future__ import annotations

from prefect import flow

from flows.hooks import SERVICE
from flows.opening import begin, open_run
from flows.pipeline import train_method
from mbpo_core.config import PipelineConfig
from mbpo_core.stage import ArtifactRef
from tasks.evaluation import evaluate_policies
from tasks.run import Run
from tasks.samples import import_samples


def follow_trial(run: Run, base: bool = False) -> ArtifactRef:
    """Train the cell's policy, unless the base is meant, and ask it alone: a new cell asks no other one again.

    The same lines serve a real run and a mere plan, as in `flows.pipeline`.
    """
    samples, policy = import_samples(run), run.base_policy()
    if not base:
        policy, _ = train_method(run, samples, policy)
    return evaluate_policies(run, samples, [policy])


@flow(name="ablation", **SERVICE)
def ablation(config: PipelineConfig, base: bool = False) -> ArtifactRef:
    """Train and ask the policy of one cell with one seed.

    Args:
        config: Settings of the cell.
        base: Only ask the model that all cells start from.
    """
    return follow_trial(begin(open_run(config)), base)
