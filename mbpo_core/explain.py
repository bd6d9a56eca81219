"""What a run would do now, stage by stage, and what reuse spares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field

from mbpo_core.config import PolicyConfig, Section
from mbpo_core.errors import StoreError
from mbpo_core.planning import StagePlan, plan
from mbpo_core.stage import ArtifactRef, PolicyRef, StageSpec
from mbpo_core.store.core import Store
from mbpo_core.store.lineage import Stale, published, readable_manifest, stale
from mbpo_core.store.manifest import Manifest
from mbpo_core.store.search import runs_like


class Explanation(BaseModel):
    """Plans of a run's stages in data-flow order."""

    model_config = ConfigDict(frozen=True)

    run: str
    plans: list[StagePlan]
    stale: list[Stale] = Field(default_factory=list, description="Pointers made from what the run has replaced since.")
    lost: list[str] = Field(default_factory=list, description="Keys whose artifact is gone, so that nothing is known.")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def seconds_saved(self) -> float:
        """Wall-clock seconds that reuse spares."""
        return sum(plan.seconds_saved for plan in self.plans)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def accelerator_seconds_saved(self) -> float:
        """Seconds on an accelerator that reuse spares."""
        return sum(plan.accelerator_seconds_saved for plan in self.plans)


def collect_plans(store: Store, run: str, plans: Iterable[StagePlan]) -> Explanation:
    """An explanation of plans made elsewhere.

    A pipeline is explained before it runs by planning each stage with the `expected()` refs of
    the stages before it, and collecting the plans here.
    """
    return Explanation(run=run, plans=list(plans), stale=stale(store, run))


def explain(
    store: Store,
    run: str,
    *,
    sections: Mapping[str, Section] | None = None,
    policies: Mapping[str, PolicyRef] | None = None,
) -> Explanation:
    """What rerunning each stage of a run would do now: with today's code, input files and upstream artifacts.

    Args:
        sections: settings to use instead of the recorded ones, by run key ("training/1").
        policies: external models as they are now, by the label they were used under.

    Raises:
        StoreError: there is no such run.
    """
    pointers = {key: ref for key, ref in store.run(run).pointers().items() if not published(key)}
    if not pointers:
        raise StoreError(
            f"there is no run {run!r}",
            where=store.root,
            expected=f"one of the store's runs ({runs_like(store, run)})",
            remedy="Run the pipeline first, or give its name with --run.",
        )
    plans: dict[str, StagePlan] = {}
    lost = []
    for key, ref in pointers.items():
        manifest, spec = readable_manifest(store, ref.stage, ref.digest), store.stages.get(ref.stage)
        if manifest is None or spec is None:
            lost.append(key)
            continue
        section = (sections or {}).get(key) or _recorded_section(spec, manifest)
        plans[key] = _plan_again(store, spec, section, manifest, ref, plans, pointers, policies or {})
    return Explanation(run=run, plans=list(plans.values()), stale=stale(store, run), lost=lost)


def _plan_again(
    store: Store,
    spec: StageSpec,
    section: Section,
    manifest: Manifest,
    ref: ArtifactRef,
    plans: Mapping[str, StagePlan],
    pointers: Mapping[str, ArtifactRef],
    models: Mapping[str, PolicyRef],
) -> StagePlan:
    def newest(name: str, old: ArtifactRef) -> ArtifactRef:
        key = old.key or name
        return plans[key].expected() if key in plans else pointers.get(key, old)

    policies = {}
    for name, policy in manifest.policies.items():
        if policy.artifact is None:
            policies[name] = models.get(policy.label, policy)
        else:
            artifact = newest(name, policy.artifact)
            policies[name] = policy.model_copy(update={"artifact": artifact, "digest": artifact.content})
    round_ = manifest.identity.get("round", {})
    return plan(
        store,
        spec,
        section,
        {name: newest(name, old) for name, old in manifest.inputs.items()},
        policies,
        PolicyConfig.model_validate(manifest.policy_config) if manifest.policy_config else None,
        manifest.identity["seed"],
        **round_,
        previous=ref,
        key=ref.key,
    )


def _recorded_section(spec: StageSpec, manifest: Manifest) -> Section:
    """The settings an artifact was made with, as far as they still exist."""
    known = {name: value for name, value in manifest.config.items() if name in spec.config.model_fields}
    try:
        return spec.config.model_validate(known)
    except ValidationError as error:
        raise StoreError(
            f"the settings of {manifest.key} are no longer valid: {error.errors()[0]['msg']}",
            where=f"artifact {manifest.digest[:12]}",
            remedy="Run the stage with today's settings.",
        ) from error
