"""Carrying out what a command asks for: look first, start Prefect only if there is something to compute."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from flows import console
from flows.opening import StageWord, changed_config, recorded_config
from flows.prefect_environment import prefect_runtime
from mbpo_core.config import PipelineConfig, build_config
from mbpo_core.errors import ConfigError
from mbpo_core.execution import StagePlan
from mbpo_core.explain import Explanation, collect_plans, explain
from mbpo_core.store import Store
from mbpo_core.store.lineage import stale
from tasks.run import Run, expect


def run_pipeline(store: Store, config: PipelineConfig, force: Sequence[str]) -> None:
    """Run the whole method, or only point the run to what is there when everything is cached."""
    plans = plan_pipeline(store, config, force)
    if all_cached(plans):
        point_run(store, config, plans)
        console.say(f"Run {config.run}: everything is cached.")
        console.print_notes(plans)
        return
    console.print_plans(plans, f"Run {config.run} (seed {config.seed}) in {store.root}")
    with prefect_runtime(store.root):
        from flows.pipeline import mbpo

        mbpo(config, [word for word in get_args(StageWord) if word in force])


def plan_pipeline(store: Store, config: PipelineConfig, force: Sequence[str] = ()) -> list[StagePlan]:
    """What each stage would do, by following the method without making anything.

    Raises:
        ModelError, DataError: the model or the input cannot be used; found before anything is loaded.
    """
    with prefect_runtime(store.root):
        from flows.pipeline import follow_method

        dry = Run(config, store, frozenset(force), expect)
        follow_method(dry)
    return dry.plans


def explain_run(store: Store, config: PipelineConfig | None, name: str | None, changes: list[str]) -> Explanation:
    """What running a config would do; or, of a recorded run, what rerunning each of its stages would do."""
    if config is None and name is not None:
        config = recorded_config(store, name)
        if not changes:
            base = Run(config, store).base_policy()
            return explain(store, name, policies={base.label: base})
        config = build_config(config.model_dump(mode="json"), changes, where=f"settings of run {name}")
    if config is None:
        raise ConfigError("neither a config nor a run is given", remedy="Give --config or --run.")
    config = config.model_copy(update={"run": name or config.run})
    return collect_plans(store, config.run, plan_pipeline(store, config))


@dataclass(frozen=True)
class StageChoice:
    """Which stage of which run to rerun, and with what."""

    stage: str
    run: str
    config: PipelineConfig | None  # becomes the run's; None takes the recorded one
    changes: list[str]
    force: bool = False
    round_index: int | None = None  # the last one if None
    baseline: str = ""
    images: bool = False  # negatives: those made for pairs, in place of the mining

    def arguments(self, rounds: int) -> dict[str, Any]:
        """What the stage's own `rerun` takes besides the run."""
        if self.stage == "negatives":
            return {"images": True} if self.images else {}
        if self.stage not in ("rollouts", "training"):
            return {}
        index = rounds - 1 if self.round_index is None else self.round_index
        return {"round_index": index} | ({"target": self.baseline} if self.baseline else {})


def rerun_stage(store: Store, choice: StageChoice, *, dry_run: bool) -> None:
    """Say what rerunning one stage does, do it unless `dry_run`, and name what is stale then."""
    base = choice.config.model_copy(update={"run": choice.run}) if choice.config else recorded_config(store, choice.run)
    config = changed_config(base, choice.changes, choice.stage)
    with prefect_runtime(store.root):
        flows_module = importlib.import_module(f"flows.{choice.stage}")
        arguments = choice.arguments(config.training_rounds)
        dry = Run(config, store, frozenset([choice.stage] if choice.force else []), expect)
        flows_module.rerun(dry, **arguments)
        console.print_plans(dry.plans, f"Run {config.run} in {store.root}")
        if dry_run:
            return
        if choice.config is not None:
            store.run(choice.run).save_config(base.model_dump(mode="json"))
        if all_cached(dry.plans):
            point_run(store, config, dry.plans)
        else:
            stage_flow = getattr(flows_module, choice.stage)
            stage_flow(run=choice.run, changes=choice.changes, force=choice.force, **arguments)
    key = dry.plans[-1].key
    console.say(f"{key}: {store.run(choice.run).pointers()[key].uri}")
    console.print_stale(stale(store, choice.run), choice.run)


def all_cached(plans: Sequence[StagePlan]) -> bool:
    return all(plan.status == "cached" for plan in plans)


def point_run(store: Store, config: PipelineConfig, plans: Sequence[StagePlan]) -> None:
    """Point the run to artifacts that are all there."""
    pointers = store.run(config.run)
    if pointers.document().config is None:
        pointers.save_config(config.model_dump(mode="json"))
    for plan in plans:
        pointers.point(plan.key, plan.expected())
