"""Carrying out what a command asks for: look first, start Prefect only if there is something to compute."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from flows import console
from flows.forms import LATEST, StageForm
from flows.opening import WORDS, open_stage, planned, recorded_config
from flows.prefect_environment import prefect_runtime
from mbpo_core.config import PipelineConfig, build_config
from mbpo_core.errors import ConfigError
from mbpo_core.execution import StagePlan
from mbpo_core.explain import Explanation, collect_plans, explain
from mbpo_core.store import Store
from mbpo_core.store.lineage import stale
from tasks.run import Choice, Mode, Run, expect


def run_pipeline(store: Store, config: PipelineConfig, choice: Choice = Choice()) -> None:  # noqa: B008 (frozen)
    """Run the whole method, or only point the run to what is there when everything is cached."""
    plans = plan_pipeline(store, config, choice)
    if all_cached(plans):
        point_run(store, config, plans)
        if config.promotion.metrics:  # named since, perhaps: the gate still has to decide
            follow_cached(store, config, choice)
        console.say(f"Run {config.run}: everything is cached.")
        console.print_notes(plans)
        return
    console.print_plans(plans, f"Run {config.run} (seed {config.seed}) in {store.root}")
    with prefect_runtime(store.root):
        from flows.pipeline import pipeline

        only = [word for word in WORDS if choice.does(word)] if choice.only is not None else []
        pipeline(config=config, only=only, force=[word for word in WORDS if word in choice.force])


def plan_pipeline(store: Store, config: PipelineConfig, choice: Choice = Choice()) -> list[StagePlan]:  # noqa: B008
    """What each stage would do, by following the method without making anything.

    Raises:
        ModelError, DataError: the model or the input cannot be used; found before anything is loaded.
    """
    with prefect_runtime(store.root):
        from flows.pipeline import follow_method

        return planned(Run(config, store, choice, expect), follow_method)


def follow_cached(store: Store, config: PipelineConfig, choice: Choice) -> None:
    """Follow the method where every artifact is there, for what it does besides."""
    with prefect_runtime(store.root):
        from flows.pipeline import follow_method

        follow_method(Run(config, store, choice))


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
    upstream: str = LATEST
    mode: str = "reuse"
    round_index: int | None = None  # the last one if None
    baseline: str = ""
    images: bool = False  # negatives: those made for pairs, in place of the mining

    def form(self) -> StageForm:
        """The same as the stage's form would say it; a round is checked where one is named."""
        named = self.round_index if not self.baseline else None
        mode = cast(Mode, self.mode)
        return StageForm(
            self.stage, self.run, self.upstream, None, self.changes, mode, images=self.images, round_index=named
        )

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
    base, form = choice.config.model_copy(update={"run": choice.run}) if choice.config else None, choice.form()
    with prefect_runtime(store.root):
        run = open_stage(form, base)
        flows_module = importlib.import_module(f"flows.{choice.stage}")
        arguments = choice.arguments(run.config.training_rounds)
        plans = planned(run, partial(flows_module.rerun, **arguments))
        console.print_plans(plans, f"Run {choice.run} in {store.root}")
        if dry_run:
            return
        if base is not None:
            store.run(choice.run).save_config(base.model_dump(mode="json"))
        if all_cached(plans):
            point_run(store, run.config, plans)
        else:
            asked = {"run": form.run, "upstream": form.upstream, "changes": form.changes, "mode": form.mode}
            getattr(flows_module, choice.stage)(**asked, **arguments)
    key = plans[-1].key
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
