"""A benchmark people know: its questions read, a model or the policies of a run asked."""

from __future__ import annotations

from prefect import flow

from flows.evaluation import policies_of
from flows.hooks import SERVICE
from flows.opening import as_tasks, open_run, recorded_config
from mbpo_core.config import PipelineConfig
from mbpo_core.stage import ArtifactRef, PolicyRef
from tasks.evaluation import evaluate_policies
from tasks.run import Run
from tasks.samples import import_samples


def follow_benchmark(run: Run, trained: str) -> ArtifactRef:
    """The benchmark's questions, and everybody's answers to them.

    Args:
        run: what samples and evaluation become pointers of. The benchmark is the source of its samples.
        trained: name of a run whose policies are asked; empty asks the configured model alone.
    """
    policies = asked_policies(run, trained)  # first: a model that cannot be used is told before pictures are read
    return evaluate_policies(run, import_samples(run), policies)


def asked_policies(run: Run, trained: str) -> list[PolicyRef]:
    """The configured model, or base, baselines and last checkpoint of a run.

    Raises:
        ConfigError, StoreError: there is no such run, or it has not been trained.
        ModelError: the model cannot be used.
    """
    if not trained:
        return [run.base_policy()]
    return policies_of(Run(recorded_config(run.store, trained), run.store))


@flow(name="benchmark", **SERVICE)
def benchmark(config: PipelineConfig, trained: str = "") -> ArtifactRef:
    """Ask a benchmark's questions.

    Args:
        config: samples.source is the benchmark; the run's name is the one under which the answers are found.
        trained: Name of a run whose policies are asked; the configured model if empty.
    """
    return follow_benchmark(as_tasks(open_run(config)), trained)
