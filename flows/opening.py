"""Opening a run: what a command or a form asked for becomes a Run that plans, and then one that works."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

from flows.forms import Fields, StageForm, StageWord, pipeline_changes
from flows.hooks import follow_worker
from flows.paths import named_config, use_store
from flows.refusing import Problems
from flows.upstream import check_read, resolve_upstream
from mbpo_core.config import PipelineConfig, build_config, load_config
from mbpo_core.errors import ConfigError
from mbpo_core.execution import StagePlan
from mbpo_core.stage import ArtifactRef
from mbpo_core.store import Store
from mbpo_core.store.search import runs_like
from tasks.run import Choice, Run, expect

WORDS: tuple[StageWord, ...] = get_args(StageWord)


def choose(only: Sequence[str] = (), start_at: str = "", force: Sequence[str] = ()) -> Choice:
    """Which stages of the method are done.

    Args:
        only: stages to do; all if empty.
        start_at: stages before it are not done; none are left out if empty.
        force: stages to compute even if their artifacts exist.

    Raises:
        ConfigError: nothing is left to do, or a stage is forced that is not done.
    """
    done = [word for word in WORDS[_place(start_at) :] if word in (only or WORDS)]
    idle = [word for word in force if word not in done]
    if not done or idle:
        raise ConfigError(
            f"force names {', '.join(idle)}, which is not to be done" if done else "no stage is left to do",
            where=f"only: {', '.join(only) or 'all'}; start_at: {start_at or WORDS[0]}",
            expected=f"some of {', '.join(done)}" if done else f"one of {', '.join(WORDS[_place(start_at) :])} in only",
            remedy="Change only, start_at or force.",
        )
    return Choice(only=None if tuple(done) == WORDS else frozenset(done), force=frozenset(force))


def _place(start_at: str) -> int:
    return [str(word) for word in WORDS].index(start_at) if start_at else 0


def open_run(
    config: PipelineConfig,
    base: str = "",
    fields: Fields = "changed",
    *,
    only: Sequence[str] = (),
    start_at: str = "",
    force: Sequence[str] = (),
) -> Run:
    """The run that a pipeline's parameters ask for. It only plans so far: see `begin`.

    The store's root comes from the environment (MBPO_STORE), never from a flow's parameters.

    Args:
        config: settings of the run.
        base: name of a run config that the fields of `config` are laid over. Without one, the `config` of a
            deployment is a filled-in form too, and is laid over the defaults; any other one is taken as it is.
        fields: which fields of `config` count; see `flows.forms`.

    Raises:
        ConfigError: lists everything that is wrong.
    """
    from prefect.runtime import deployment

    follow_worker()
    problems, choice, settings = Problems(), Choice(), config
    with problems.noting():
        choice = choose(only, start_at, force)
    with problems.noting():
        if base:
            settings = load_config(named_config(base), pipeline_changes(config, fields))
        elif deployment.id:
            settings = build_config({}, pipeline_changes(config, fields), where="the form")
    problems.refuse(f"run {config.run}")
    return Run(settings, Store(use_store(None)), choice, expect)


def open_stage(form: StageForm, base: PipelineConfig | None = None) -> Run:
    """The recorded run that a stage is asked of. It only plans so far: see `as_tasks`.

    Changed settings are not recorded as the run's: the artifact's manifest has them.

    Args:
        base: settings to use in place of the recorded ones.

    Raises:
        ConfigError: lists everything that is wrong.
    """
    follow_worker()
    store, problems = Store(use_store(None)), Problems()
    config, upstream = base or PipelineConfig(), dict[str, ArtifactRef]()
    with problems.noting():
        config = base or recorded_config(store, form.run)
    with problems.noting():
        config = changed_config(config, form.all_changes(), form.stage)
        _check_round(config, form)
    with problems.noting():
        upstream = resolve_upstream(store, form.stage, form.upstream, form.run)
    problems.refuse(f"{form.stage} of run {form.run}")
    return Run(config, store, Choice(mode=form.mode, upstream=upstream), expect)


def planned(run: Run, follow: Callable[[Run], object]) -> list[StagePlan]:
    """What following the method, or rerunning a stage, would do; nothing is made and no pointer moves.

    Raises:
        ConfigError: an artifact was named as upstream that nothing would read.
        ModelError, DataError, StoreError: model, input or an upstream artifact cannot be used.
    """
    dry = dataclasses.replace(run, perform=expect, plans=[], kept={})
    follow(dry)
    check_read(dict(run.choice.upstream), dry.plans)
    return dry.plans


def begin(run: Run) -> Run:
    """The run whose stages become Prefect tasks, and whose settings are recorded from now on."""
    run.store.run(run.config.run).save_config(run.config.model_dump(mode="json"))
    return as_tasks(run)


def as_tasks(run: Run) -> Run:
    """The run whose stages become Prefect tasks."""
    from tasks.prefect_stage import perform_as_task

    return dataclasses.replace(run, perform=partial(perform_as_task, run.config.run), plans=[], kept={})


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
            expected=f"one of the store's runs ({runs_like(store, name)})",
            remedy="Check the name and the store, or give the run's settings with --config.",
        )
    return build_config(recorded | {"run": name}, [], where=f"settings of run {name}")


def changed_config(config: PipelineConfig, changes: Sequence[str], stage: str) -> PipelineConfig:
    """Settings with changes to one stage's section.

    Raises:
        ConfigError: changes are not valid, or the stage would not notice them; lists every such change.
    """
    problems, fitting = Problems(), list[str]()
    mine = ("negatives", "images") if stage == "negatives" else (stage,)
    for change in changes:
        with problems.noting():
            _check_concerns(change, mine, stage)
            fitting.append(change)
    with problems.noting():
        config = build_config(config.model_dump(mode="json"), fitting, where=f"settings of run {config.run}")
    problems.refuse(f"changes to {stage}")
    return config


def _check_concerns(change: str, mine: Sequence[str], stage: str) -> None:
    section, separator, _ = change.partition("=")
    if not separator:
        raise ConfigError(f"change {change!r} is not section.field=value", remedy=f"Write {stage}.field=value.")
    if section.split(".")[0].strip() not in (*mine, "policy", "launch", "seed"):
        raise ConfigError(
            f"{change!r} does not concern {stage}, the only stage that is rerun",
            expected=f"{'.field=value, '.join(mine)}.field=value, policy.field=value, launch.field=value or seed=value",
            remedy="Rerun the stage it belongs to, or everything with mbpo run.",
        )


def _check_round(config: PipelineConfig, form: StageForm) -> None:
    if form.round_index is not None and form.round_index >= config.training_rounds:
        raise ConfigError(
            f"there is no round {form.round_index}",
            where=f"run {form.run}, which trains {config.training_rounds} rounds",
            expected=f"0 to {config.training_rounds - 1}",
            remedy="Choose one of its rounds.",
        )
