"""Opening a run inside a flow, and opening a recorded one to rerun a stage of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from flows.paths import use_store
from mbpo_core.config import RUN_NAME, PipelineConfig, build_config
from mbpo_core.errors import ConfigError
from mbpo_core.store import Store
from tasks.run import Run

StageWord = Literal["samples", "negatives", "pairs", "rollouts", "training", "evaluation", "report"]
# Prefect's forms take bounds from the annotation and descriptions from the flow's docstring.
RunName = Annotated[str, Field(pattern=RUN_NAME)]
RoundIndex = Annotated[int, Field(ge=0)]


def open_run(config: PipelineConfig, force: Iterable[str] = ()) -> Run:
    """A run whose stages become Prefect tasks, and whose settings are recorded from now on.

    The store's root comes from the environment (MBPO_STORE), never from a flow's parameters.
    """
    from tasks.prefect_stage import perform_as_task

    run = Run(config, Store(use_store(None)), frozenset(force), perform_as_task)
    run.store.run(config.run).save_config(config.model_dump(mode="json"))
    return run


def open_stage(stage: str, name: str, changes: list[str], force: bool) -> Run:
    """A recorded run, opened to rerun one stage of it as a Prefect task.

    Changed settings are not recorded as the run's: the artifact's manifest has them.
    """
    from tasks.prefect_stage import perform_as_task

    store = Store(use_store(None))
    config = changed_config(recorded_config(store, name), changes, stage)
    return Run(config, store, frozenset([stage] if force else []), perform_as_task)


def recorded_config(store: Store, name: str) -> PipelineConfig:
    """The settings a run was last run with.

    Raises:
        ConfigError: there is no such run, or its settings are no longer valid.
    """
    recorded = store.run(name).document().config
    if recorded is None:
        raise ConfigError(
            f"run {name!r} is not known",
            where=store.root,
            expected=f"one of the store's runs ({', '.join(store.runs()) or 'none yet'})",
            remedy="Check the name and the store, or give the run's settings with --config.",
        )
    return build_config(recorded | {"run": name}, [], where=f"settings of run {name}")


def changed_config(config: PipelineConfig, changes: list[str], stage: str) -> PipelineConfig:
    """Settings with changes to one stage's section.

    Raises:
        ConfigError: a change is not valid, or the stage would not notice it.
    """
    for change in changes:
        section = change.partition("=")[0].split(".")[0].strip()
        mine = ("negatives", "images") if stage == "negatives" else (stage,)
        if section not in (*mine, "policy", "seed"):
            raise ConfigError(
                f"{change!r} does not concern {stage}, the only stage that is rerun",
                expected=f"{'.field=value, '.join(mine)}.field=value, policy.field=value or seed=value",
                remedy="Rerun the stage it belongs to, or everything with mbpo run.",
            )
    return build_config(config.model_dump(mode="json"), changes, where=f"settings of run {config.run}")
