"""What a stage's function is given, the same in the flow's process and in a worker."""

from __future__ import annotations

from mbpo_core.config import PolicyConfig
from mbpo_core.planning import StageRequest
from mbpo_core.stage import Progress, Reader, StageContext, StageSpec, Workers
from mbpo_core.store.core import Store
from mbpo_core.store.writer import ArtifactWriter


def stage_context(
    store: Store,
    spec: StageSpec,
    request: StageRequest,
    writer: ArtifactWriter,
    progress: Progress,
    workers: Workers | None = None,
    goes_on_from: Reader | None = None,
) -> StageContext:
    """Open what a request names.

    Raises:
        StoreError, DamagedArtifact: an input is not there or broken.
    """
    return StageContext(
        config=spec.config.model_validate(request.config),
        inputs={name: store.reader(ref) for name, ref in request.inputs.items()},
        policies=request.policies,
        policy_config=PolicyConfig.model_validate(request.policy_config) if request.policy_config else None,
        output=writer,
        progress=progress,
        seed=request.seed,
        round_index=request.round_index,
        rounds=request.rounds,
        goes_on_from=goes_on_from,
        name="/".join(filter(None, (request.run, request.key))),
        open_policy=store.open_policy,
        workers=workers,
    )
