"""Carrying out a plan: lease, attempt, the stage's own function, commit."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import DamagedArtifact, DataError
from mbpo_core.planning import Cause, CauseKind, StagePlan, StageRequest, differences, external_identity, plan
from mbpo_core.progress import BarProgress, make_progress
from mbpo_core.stage import ArtifactRef, PolicyRef, Progress, StageContext, StageSpec
from mbpo_core.store.core import Store
from mbpo_core.store.digests import code_digest
from mbpo_core.store.files import naming_full_disks
from mbpo_core.store.lease import who
from mbpo_core.store.manifest import Manifest
from mbpo_core.store.migrations import table_info
from mbpo_core.store.runs import now
from mbpo_core.store.writer import ArtifactWriter, Outcome, table_records

__all__ = [
    "Cause",
    "CauseKind",
    "StagePlan",
    "StageRequest",
    "checkpoint_policy",
    "differences",
    "execute",
    "plan",
    "run_stage",
]

_LIBRARIES = ("mbpo", "torch", "transformers", "deepspeed", "datasets", "pyarrow", "numpy", "pillow", "safetensors")


def execute(
    store: Store, plan: StagePlan, progress: Progress | None = None, *, spec: StageSpec | None = None
) -> ArtifactRef:
    """Make the planned artifact, unless it is there.

    Args:
        progress: told how far the stage is; a bar or log lines if None.
        spec: the stage, where it is not one of `store.stages`.

    Returns:
        The committed artifact. No run pointer is moved.

    Raises:
        LeaseHeld: another live worker is making the same artifact.
        StoreFull: no space left; finished parts are kept for the next attempt.
        MbpoError: whatever the stage raises on purpose.
    """
    spec = spec or store.stages[plan.stage]
    if plan.ref is not None:
        return plan.ref
    with store.lease(plan.stage, plan.digest) as lease, naming_full_disks(store.root):
        older = _committed(store, plan)
        if older is None or plan.request.force:  # otherwise another worker was faster
            made = _make(store, spec, plan, progress or make_progress(), older)
            store.commit(made, lease)
            older = made
        return older.ref(store.uri(plan.stage, plan.digest), plan.key)


def _make(store: Store, spec: StageSpec, plan: StagePlan, progress: Progress, older: Manifest | None) -> Manifest:
    request, code = plan.request, code_digest(spec.modules)
    if request.force:
        store.clear_scratch(plan.stage, plan.digest, code)
    config = spec.config.model_validate(request.config)
    writer = ArtifactWriter(
        store.folder(plan.stage, plan.digest),
        spec,
        config=config,
        digest=plan.digest,
        code=code,
        leftovers=None if request.force else store.leftovers(plan.stage, plan.digest, code),
    )
    try:
        spec.load()(_context(store, spec, config, request, writer, progress))
    finally:
        if isinstance(progress, BarProgress):
            progress.stop()
    manifest = _manifest(spec, plan, code, writer.attempt, writer.seal())
    if external_identity(spec, config, store.memo) != plan.identity["external"]:
        raise DataError(
            f"the input of stage {spec.name} changed while it was read",
            where=", ".join(str(source.path) for source in spec.external(config).values()),
            remedy="Run again once nothing writes there.",
        )
    if older is not None and older.content != manifest.content:
        manifest = manifest.model_copy(update={"warnings": [_not_repeatable(older)]})
        progress.log(manifest.warnings[0])
    return manifest


def run_stage(
    store: Store,
    run: str,
    plan: StagePlan,
    progress: Progress | None = None,
    *,
    spec: StageSpec | None = None,
) -> ArtifactRef:
    """`execute`, then move the run's pointer to the artifact."""
    ref = execute(store, plan, progress, spec=spec)
    store.run(run).point(plan.key, ref)
    return ref


def checkpoint_policy(ref: ArtifactRef, label: str) -> PolicyRef:
    """The policy that a training artifact holds."""
    return PolicyRef(artifact=ref, digest=ref.content, label=label)


def _context(
    store: Store, spec: StageSpec, config: Any, request: StageRequest, writer: ArtifactWriter, progress: Progress
) -> StageContext:
    return StageContext(
        config=config,
        inputs={name: store.reader(ref) for name, ref in request.inputs.items()},
        policies=request.policies,
        policy_config=PolicyConfig.model_validate(request.policy_config) if request.policy_config else None,
        output=writer,
        progress=progress,
        seed=request.seed,
        round_index=request.round_index,
        rounds=request.rounds,
        open_policy=store.open_policy,
    )


def _manifest(spec: StageSpec, plan: StagePlan, code: str, attempt: str, outcome: Outcome) -> Manifest:
    request = plan.request
    device = _device(request.policy_config)
    return Manifest(
        stage=plan.stage,
        key=request.key,
        digest=plan.digest,
        identity=plan.identity,
        code=code,
        inputs=request.inputs,
        policies=request.policies,
        tables={name: table_info(record) for name, record in table_records(spec).items()},
        attempt=attempt,
        config=request.config,
        policy_config=request.policy_config,
        libraries=_libraries(),
        device=device,
        accelerator_seconds=0.0 if device == "cpu" else outcome.seconds * request.config.get("processes", 1),
        created=now(),
        by=who(),
        **vars(outcome),
    )


def _committed(store: Store, plan: StagePlan) -> Manifest | None:
    try:
        return store.check(plan.stage, plan.digest)
    except DamagedArtifact:
        return None


def _not_repeatable(older: Manifest) -> str:
    return (
        f"the forced rerun of {older.key} came out different from the artifact of {older.created} by {older.by}, "
        f"with equal inputs, settings and seed: {older.stage} is not deterministic here"
    )


def _libraries() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _device(policy_config: Mapping[str, Any] | None) -> str:
    """Where the model ran, without importing torch here; a launched stage imports it elsewhere."""
    asked = (policy_config or {}).get("device", "cpu")
    if asked != "auto":
        return str(asked)
    torch = sys.modules.get("torch")
    there = torch.cuda.is_available() if torch is not None else Path("/dev/nvidia0").exists()
    return "cuda" if there else "cpu"
