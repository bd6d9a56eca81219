"""Deciding whether a stage must run, and why: identities, causes, plans.

A plan is data: it crosses processes as JSON, and `mbpo_core.execution.execute` carries it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mbpo_core.config import LaunchConfig, PolicyConfig, Section
from mbpo_core.errors import DamagedArtifact, StoreError
from mbpo_core.stage import ArtifactRef, PolicyRef, StageSpec
from mbpo_core.store.checks import HashMemo, listing
from mbpo_core.store.core import Store
from mbpo_core.store.digests import code_digest, digest_of
from mbpo_core.store.manifest import Manifest
from mbpo_core.store.migrations import table_info
from mbpo_core.store.writer import table_records
from mbpo_core.tables import later_columns

PENDING = "pending:"


class CauseKind(StrEnum):
    """Why a stage runs."""

    CONFIG = "CONFIG"
    INPUT = "INPUT"
    MODEL = "MODEL"
    REWARD = "REWARD"
    VERSION = "VERSION"
    SCHEMA = "SCHEMA"
    SEED = "SEED"
    MISSING = "MISSING"
    DAMAGED = "DAMAGED"
    FORCED = "FORCED"


class Cause(BaseModel):
    """One difference to the artifact of the run before, or the lack of one."""

    model_config = ConfigDict(frozen=True)

    kind: CauseKind
    field: str = Field(
        description='What differs, e.g. "negatives.epsilon", "inputs.samples", "policies.policy.digest".'
    )
    old: Any = None
    new: Any = None


class StageRequest(BaseModel):
    """Everything a stage is asked with."""

    model_config = ConfigDict(frozen=True)

    stage: str
    key: str
    config: dict[str, Any]
    inputs: dict[str, ArtifactRef]
    policies: dict[str, PolicyRef]
    policy_config: dict[str, Any] | None
    seed: int
    round_index: int = 0
    rounds: int = 1
    force: bool = False
    run: str = ""  # who asks, for what people watch; no part of the identity
    launch: LaunchConfig = Field(default_factory=LaunchConfig)


class StagePlan(BaseModel):
    """What will happen to a stage, and why."""

    model_config = ConfigDict(frozen=True)

    stage: str
    key: str
    status: Literal["cached", "resumes", "runs"]
    digest: str
    causes: list[Cause] = Field(default_factory=list, description="Empty when cached.")
    warnings: list[str] = Field(default_factory=list)
    ref: ArtifactRef | None = Field(default=None, description="The committed artifact, when cached.")
    parts_done: int = Field(default=0, description="Finished parts that will be adopted.")
    scratch: bool = Field(default=False, description="There is resumable state of a killed attempt.")
    goes_on_from: ArtifactRef | None = Field(
        default=None, description="The same work without its last step, which alone is left to do."
    )
    seconds_saved: float = Field(default=0.0, description="Wall-clock seconds that reuse spares.")
    accelerator_seconds_saved: float = 0.0
    identity: dict[str, Any] = Field(description="What goes in; its hash is the digest.")
    request: StageRequest

    def expected(self) -> ArtifactRef:
        """The artifact there will be; until it is made, its content is "pending:" and its digest.

        Planning on with it says for the stages after this one that their input will be new.
        """
        if self.ref is not None:
            return self.ref
        return ArtifactRef(stage=self.stage, key=self.key, digest=self.digest, content=PENDING + self.digest, uri="")


def plan(
    store: Store,
    spec: StageSpec,
    config: Section,
    inputs: Mapping[str, ArtifactRef],
    policies: Mapping[str, PolicyRef] | None = None,
    policy_config: PolicyConfig | None = None,
    seed: int = 0,
    round_index: int = 0,
    rounds: int = 1,
    *,
    previous: ArtifactRef | None = None,
    force: bool = False,
    key: str = "",
    launch: LaunchConfig | None = None,
    run: str = "",
) -> StagePlan:
    """Decide whether a stage is cached, resumes or runs; nothing is computed or written.

    Args:
        inputs: by kind, or kind and more: "samples", "rollouts/0"; some may be missing.
        policies: by name: "policy", "reference".
        previous: what the run's pointer names now; causes are differences to it.
        force: run even if the artifact is there.
        key: run pointer; the stage's name, with the round for stages that have rounds, if empty.
        launch: where the stage will run; decides nothing.
        run: whose stage it is; decides nothing either.

    Raises:
        StoreError: an input is of a kind that the stage does not read.
        DataError: an external input is missing.
    """
    unread = [name for name in inputs if name.split("/")[0] not in spec.inputs]
    if unread:
        raise StoreError(
            f"stage {spec.name} does not read {', '.join(unread)}", expected=f"one of {', '.join(spec.inputs)}"
        )
    key = key or (f"{spec.name}/{round_index}" if spec.by_round else spec.name)
    request = StageRequest(
        stage=spec.name,
        key=key,
        config=config.model_dump(mode="json"),
        inputs=dict(inputs),
        policies=dict(policies or {}),
        policy_config=policy_config.model_dump(mode="json") if policy_config else None,
        seed=seed,
        round_index=round_index,
        rounds=rounds,
        force=force,
        launch=launch or LaunchConfig(),
        run=run,
    )
    identity = identity_of(spec, config, request, policy_config, store.memo)
    return _decide(store, spec, config, request, identity, previous)


def _decide(
    store: Store,
    spec: StageSpec,
    config: Section,
    request: StageRequest,
    identity: dict[str, Any],
    previous: ArtifactRef | None,
) -> StagePlan:
    stage, key, digest, code = spec.name, request.key, digest_of(identity), code_digest(spec.modules)
    build = partial(StagePlan, stage=stage, key=key, digest=digest, identity=identity, request=request)
    if request.force:
        return build(status="runs", causes=[Cause(kind=CauseKind.FORCED, field=key)])
    found, damage = _look(store, stage, digest)
    if found is not None:
        return build(
            status="cached",
            ref=found.ref(store.uri(stage, digest), key),
            seconds_saved=found.seconds,
            accelerator_seconds_saved=found.accelerator_seconds,
            warnings=_source_changed(found, code),
        )
    leftovers, scratch = store.leftovers(stage, digest, code), store.scratch(stage, digest, code)
    parts = [part for part in leftovers.sidecars.values() if leftovers.intact(part)]
    scratch_there = scratch.is_dir() and any(scratch.iterdir())
    shorter = shorter_digest(spec, config, identity)
    before = _look(store, stage, shorter)[0] if shorter else None
    return build(
        status="resumes" if parts or scratch_there or before else "runs",
        causes=[damage] if damage else _causes(store, stage, identity, digest, previous),
        parts_done=len(parts),
        scratch=scratch_there,
        goes_on_from=before.ref(store.uri(stage, before.digest), key) if before else None,
        seconds_saved=sum(part.seconds for part in parts) + (before.seconds if before else 0),
        accelerator_seconds_saved=before.accelerator_seconds if before else 0,
    )


def shorter_digest(spec: StageSpec, config: Section, identity: Mapping[str, Any]) -> str | None:
    """Digest of the artifact that one with these settings and this identity may go on from; None if there is none."""
    settings = spec.shorter(config)
    if settings is None:
        return None
    there = {name: value for name, value in settings.identity().items() if name not in identity["external"]}
    return digest_of({**identity, "config": there})


def identity_of(
    spec: StageSpec, config: Section, request: StageRequest, policy_config: PolicyConfig | None, memo: HashMemo
) -> dict[str, Any]:
    """Everything that decides what comes out, as JSON values."""
    external = external_identity(spec, config, memo)
    identity: dict[str, Any] = {
        "stage": spec.name,
        "version": spec.version,
        "schema": {name: _schema(record) for name, record in table_records(spec).items()},
        "config": {name: value for name, value in config.identity().items() if name not in external},
        "inputs": {name: ref.content for name, ref in request.inputs.items()},
        "policies": {name: {"digest": ref.digest, "label": ref.label} for name, ref in request.policies.items()},
        "external": external,
        "seed": request.seed,
    }
    if spec.uses_policy and policy_config is not None:
        # The model's name stays out: the digests say what it is, wherever it lies.
        identity["model"] = {name: v for name, v in policy_config.identity().items() if name != "model"}
    if "mbpo_core.verifiers" in spec.modules:
        from mbpo_core.verifiers.registry import versions

        identity["verifiers"] = versions()
    if spec.by_round or request.rounds > 1:
        identity["round"] = {"round_index": request.round_index, "rounds": request.rounds}
    return identity


def external_identity(spec: StageSpec, config: Section, memo: HashMemo) -> dict[str, Any]:
    """Listings of what the stage reads from outside the store, by config field; looked at anew on every call."""
    return {name: listing(source, memo) for name, source in spec.external(config).items()}


def differences(stage: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Cause]:
    """Causes from comparing two identities."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    changed = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    return [
        Cause(kind=_kind(path), field=_field(stage, path), old=before.get(path), new=after.get(path))
        for path in changed
    ]


_KINDS = {
    "version": CauseKind.VERSION,
    "schema": CauseKind.SCHEMA,
    "inputs": CauseKind.INPUT,
    "external": CauseKind.INPUT,
    "policies": CauseKind.MODEL,
    "model": CauseKind.MODEL,
    "verifiers": CauseKind.REWARD,
    "seed": CauseKind.SEED,
}


def _kind(path: tuple[str, ...]) -> CauseKind:
    if path[0] == "config" and "reward" in path[-1]:
        return CauseKind.REWARD
    return _KINDS.get(path[0], CauseKind.CONFIG)


def _field(stage: str, path: tuple[str, ...]) -> str:
    return ".".join([stage, *path[1:]] if path[0] == "config" else path)  # as --set would write it


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    else:
        yield path, value


def _schema(record: Any) -> dict[str, Any]:
    info, later = table_info(record), later_columns(record)
    columns = {name: kind for name, kind in info.columns.items() if name not in later}
    return {"record": info.record, "version": info.version, "columns": digest_of(columns)[:16]}


def _look(store: Store, stage: str, digest: str) -> tuple[Manifest | None, Cause | None]:
    try:
        return store.check(stage, digest), None
    except DamagedArtifact as error:
        return None, Cause(kind=CauseKind.DAMAGED, field=error.where, old=error.expected, new=error.what)


def _causes(
    store: Store, stage: str, identity: dict[str, Any], digest: str, previous: ArtifactRef | None
) -> list[Cause]:
    if previous is None:
        return [Cause(kind=CauseKind.MISSING, field="artifact", new=digest)]
    try:
        before = store.manifest(previous.stage, previous.digest)
    except DamagedArtifact as error:
        return [Cause(kind=CauseKind.DAMAGED, field=error.where, old=error.expected, new=error.what)]
    if before is None:
        return [Cause(kind=CauseKind.MISSING, field="artifact", old=previous.digest, new=digest)]
    return differences(stage, before.identity, identity) or [
        Cause(kind=CauseKind.MISSING, field="artifact", old=previous.digest, new=digest)
    ]


def _source_changed(manifest: Manifest, code: str) -> list[str]:
    if manifest.code == code:
        return []
    return [
        f"the source of stage {manifest.stage} has changed since this artifact was made, but its version is still "
        f"{manifest.identity['version']}; if other rows would come out, raise StageSpec.version, or force a rerun"
    ]
