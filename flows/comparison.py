"""Several methods on the same samples, seeds and budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prefect import flow

from flows.hooks import SERVICE
from flows.opening import begin, open_run
from flows.pipeline import train_method
from mbpo_core.config import PipelineConfig
from mbpo_core.progress import make_progress
from mbpo_core.stage import ArtifactRef
from tasks.evaluation import evaluate_policies
from tasks.run import Run
from tasks.samples import import_samples


def follow_comparison(runs: Sequence[Run], announce: Callable[[str], None] = lambda line: None) -> ArtifactRef:
    """All methods of one seed, and one evaluation of what they made; the first run holds it.

    The same lines serve a real run and a mere plan, as in `flows.pipeline`.
    """
    first = runs[0]
    reference, policies = first.base_policy(), []
    for run in runs:
        announce(f"{run.config.method}, seed {run.config.seed}")
        samples = import_samples(run)
        policies.append(train_method(run, samples, reference)[0])
    return evaluate_policies(first, samples, [reference, *policies])


@flow(name="compare", **SERVICE)
def compare(configs: list[PipelineConfig]) -> ArtifactRef:
    """Train several methods on one seed's samples and ask them all the same questions.

    Args:
        configs: a run config a method, of one seed; they differ in `method` and `run`.
    """
    return follow_comparison([begin(open_run(config)) for config in configs], make_progress().log)
