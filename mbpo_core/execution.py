"""Carrying out a plan: lease, attempt, the stage's own function, commit."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mbpo_core.errors import DamagedArtifact, DataError, LeaseHeld
from mbpo_core.launching.context import stage_context
from mbpo_core.launching.placing import placed
from mbpo_core.launching.shares import Later, share_out
from mbpo_core.planning import Cause, CauseKind, StagePlan, StageRequest, differences, external_identity, plan
from mbpo_core.progress import BarProgress, make_progress
from mbpo_core.stage import ArtifactRef, PolicyRef, Progress, StageSpec, Workers
from mbpo_core.store.attempts import Leftovers
from mbpo_core.store.core import Store
from mbpo_core.store.digests import code_digest
from mbpo_core.store.files import naming_full_disks
from mbpo_core.store.lease import Lease, who
from mbpo_core.store.manifest import Manifest
from mbpo_core.store.migrations import table_info
from mbpo_core.store.reader import ArtifactReader
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

_ASK_EVERY_S = 1.0
_SAY_EVERY_S = 30.0
"""While somebody else makes the artifact, seconds."""

_LIBRARIES = ("mbpo", "torch", "transformers", "deepspeed", "datasets", "pyarrow", "numpy", "pillow", "safetensors")


def execute(
    store: Store, plan: StagePlan, progress: Progress | None = None, *, spec: StageSpec | None = None
) -> ArtifactRef:
    """Make the planned artifact, unless it is there.

    Where another live worker is making it, that one is waited for, and what it made is used.

    Args:
        progress: told how far the stage is, and what it waits for; a bar or log lines if None.
        spec: the stage, where it is not one of `store.stages`.

    Returns:
        The committed artifact. No run pointer is moved.

    Raises:
        GpuUnavailable: an accelerator that the stage needs is not there, or did not come free in time.
        LeaseHeld: another worker took the artifact over while this one was suspended.
        StoreFull: no space left; finished parts are kept for the next attempt.
        WorkerFailed: one of the stage's processes died or took too long; finished parts are kept.
        MbpoError: whatever the stage raises on purpose.
    """
    spec = spec or store.stages[plan.stage]
    if plan.ref is not None:
        return plan.ref
    progress = progress or make_progress()
    with contextlib.ExitStack() as stack:
        lease = _entered(store, plan, progress, stack)
        stack.enter_context(naming_full_disks(store.root))
        older = _committed(store, plan)
        if older is None or plan.request.force:  # otherwise another worker was faster
            made = _make(store, spec, plan, progress, older)
            store.commit(made, lease)
            older = made
        return older.ref(store.uri(plan.stage, plan.digest), plan.key)


def _entered(store: Store, plan: StagePlan, progress: Progress, stack: contextlib.ExitStack) -> Lease:
    """The right to make the artifact; while somebody else has it, say whom we wait for."""
    say_at = time.monotonic()
    while True:
        lease = store.lease(plan.stage, plan.digest)
        try:
            return stack.enter_context(lease)
        except LeaseHeld:
            if time.monotonic() >= say_at and (held := lease.holder()) is not None:
                say_at = time.monotonic() + _SAY_EVERY_S
                progress.log(
                    f"{plan.key}: waiting for {held.holder}, which is making this artifact "
                    f"(last heard of {held.silent_s:.0f} s ago)"
                )
            time.sleep(_ASK_EVERY_S)


def _make(store: Store, spec: StageSpec, plan: StagePlan, progress: Progress, older: Manifest | None) -> Manifest:
    request, code = plan.request, code_digest(spec.modules)
    if request.force:
        store.clear_scratch(plan.stage, plan.digest, code)
    try:
        with placed(store, spec, plan, progress) as workers:
            manifest = _compute(store, spec, plan, code, progress, workers)
    finally:
        if isinstance(progress, BarProgress):
            progress.stop()
    config = spec.config.model_validate(request.config)
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


def _compute(
    store: Store, spec: StageSpec, plan: StagePlan, code: str, progress: Progress, workers: Workers | None
) -> Manifest:
    """Let workers make what they can share, and the stage's function the rest."""
    request, shares = plan.request, None
    if workers is not None and spec.shared:
        shares = share_out(workers, store, spec, plan, code, progress)
        progress = Later(progress)
    writer = ArtifactWriter(
        store.folder(plan.stage, plan.digest),
        spec,
        config=spec.config.model_validate(request.config),
        digest=plan.digest,
        code=code,
        leftovers=_leftovers(store, plan, code, shares),
    )
    goes_on_from = _goes_on_from(store, plan, progress)
    spec.load()(stage_context(store, spec, request, writer, progress, workers, goes_on_from))
    processes = workers.processes if workers is not None else 1
    before = goes_on_from.manifest if goes_on_from is not None else None
    return _manifest(spec, plan, code, writer.attempt, writer.seal(), processes, before)


def _goes_on_from(store: Store, plan: StagePlan, progress: Progress) -> ArtifactReader | None:
    """The same work without its last step, unless somebody has removed it since."""
    ref = plan.goes_on_from
    if ref is None or store.manifest(ref.stage, ref.digest) is None:
        return None
    progress.log(f"{plan.key}: goes on from {ref.digest[:12]}, which differs in its last step only")
    return store.reader(ref)


def _leftovers(store: Store, plan: StagePlan, code: str, shares: list[str] | None) -> Leftovers | None:
    """Finished parts that may be adopted: all, or, of a forced rerun, those that its own workers made."""
    if plan.request.force and shares is None:
        return None
    return Leftovers(store.folder(plan.stage, plan.digest), code, shares if plan.request.force else None)


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


def _manifest(
    spec: StageSpec,
    plan: StagePlan,
    code: str,
    attempt: str,
    outcome: Outcome,
    processes: int,
    before: Manifest | None,
) -> Manifest:
    """What was made; its times are those of making it from its inputs, with those of what it went on from."""
    request = plan.request
    device = _device(request.policy_config)
    accelerator_seconds = 0.0 if device == "cpu" else outcome.seconds * processes
    if before is not None:
        accelerator_seconds += before.accelerator_seconds
        outcome = replace(
            outcome, seconds=outcome.seconds + before.seconds, cpu_seconds=outcome.cpu_seconds + before.cpu_seconds
        )
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
        accelerator_seconds=accelerator_seconds,
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
