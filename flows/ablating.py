"""Carrying out a grid from the command line, and showing what it found."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from flows import console
from flows.opening import planned
from flows.prefect_environment import prefect_runtime
from flows.running import all_cached, point_run
from mbpo_core.ablation.collecting import collect
from mbpo_core.ablation.estimate import estimate_seconds
from mbpo_core.ablation.grid import Grid, Trial, build_grid
from mbpo_core.ablation.publish import publish_results, refuse_other_folder
from mbpo_core.ablation.results import Results
from mbpo_core.ablation.table import results_table
from mbpo_core.config import load_config
from mbpo_core.errors import ConfigError, MbpoError
from mbpo_core.execution import StagePlan
from mbpo_core.methods import METHODS
from mbpo_core.progress import duration
from mbpo_core.stage import BASE, ArtifactRef
from mbpo_core.store import Store
from tasks.run import Run, expect


def methods_grid(
    path: Path, methods: Sequence[str], seeds: int, tokens: int, changes: Sequence[str], baseline: str = ""
) -> Grid:
    """The grid whose only factor is the method.

    Args:
        path: run config that all have in common; its name is the testbed's.
        methods: names of `mbpo methods`, each once.
        seeds: how many, from the config's own.
        tokens: budget of training, token positions; 0 takes the config's.
        changes: overrides for all, section.field=value.
        baseline: the one that differences are also taken to, or "".

    Raises:
        ConfigError: a method is unknown or named twice, or there is no budget.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown or len(set(methods)) < len(methods) or not methods:
        raise ConfigError(
            f"methods {', '.join(unknown or methods) or 'none'} cannot be compared",
            expected="names of methods, each once",
            remedy="mbpo methods lists them.",
        )
    plain = load_config(path, list(changes))
    budget = tokens or plain.training.token_budget
    if not budget:
        raise ConfigError(
            "the comparison has no budget",
            where=str(path),
            expected="token positions to run forward and backward, the same for each method",
            remedy="Give --tokens. What a run of yours used is in mbpo show training --json.",
        )
    factors = {"method": {name: {"method": name} for name in methods}}
    given = {"name": plain.run, "config": str(path), "tokens": budget, "factors": factors, "baseline": baseline}
    return build_grid(given | {"seeds": list(range(plain.seed, plain.seed + seeds))}, where="mbpo compare")


def split_tuned(cells: Sequence[str], tuned: Sequence[str]) -> Mapping[str, list[str]]:
    """Overrides of single cells from cell:section.field=value.

    Raises:
        ConfigError: one names no cell.
    """
    own: dict[str, list[str]] = {name: [] for name in cells}
    for change in tuned:
        name, _, override = change.partition(":")
        if name not in own:
            raise ConfigError(
                f"{change!r} tunes none of the methods or cells",
                expected=f"one of {', '.join(cells)}, a colon, and section.field=value",
                remedy=f"Write for instance {cells[0]}:training.learning_rate=1e-4.",
            )
        own[name].append(override)
    return own


def carry_out(
    store: Store,
    grid: Grid,
    trials: Sequence[Trial],
    output: Path,
    commands: Sequence[str],
    *,
    jobs: int = 1,
    dry_run: bool = False,
) -> Results | None:
    """Make the trials that are not there yet, print the table and write the page.

    Args:
        store: whose artifacts are reused.
        grid: that the trials lay out.
        trials: all of them.
        output: folder for the page, the pictures and the numbers.
        commands: that make it again, for the page.
        jobs: processes that work side by side.
        dry_run: only say what would be made, and how long it takes.

    Returns:
        What was found; None of a dry run.

    Raises:
        ConfigError: the output folder holds something else.
        MbpoError: some trials failed; raised at the end, once the others are made and shown.
    """
    refuse_other_folder(output)
    with prefect_runtime(store.root):
        plans = {trial.config.run: _planned(store, trial) for trial in trials}
        todo = [trial for trial in trials if not all_cached(plans[trial.config.run])]
        for trial in trials:
            if trial not in todo:
                point_run(store, trial.config, plans[trial.config.run])
        console.say(_forecast(grid, trials, todo, plans, jobs))
        if dry_run:
            return None
        wrong = _make(store, todo, jobs)
    made = {run: _made(store, run, planned) for run, planned in plans.items() if run not in wrong}
    results = collect(store, grid, trials, made)
    console.make_console().print(results_table(results))
    console.say(f"Page: {publish_results(results, output, commands)}")
    if wrong:
        named = "\n".join(f"{run}: {error}" for run, error in wrong.items())
        raise MbpoError(
            f"{len(wrong)} of {len(trials)} runs failed, and the cells they belong to are left out\n{named}"
        )
    return results


def _planned(store: Store, trial: Trial) -> list[StagePlan]:
    from flows.ablation import follow_trial

    return planned(Run(trial.config, store, perform=expect), partial(follow_trial, base=trial.cell == BASE))


def _forecast(
    grid: Grid, trials: Sequence[Trial], todo: Sequence[Trial], plans: Mapping[str, Sequence[StagePlan]], jobs: int
) -> str:
    """How much there is to do, and for how long."""
    count = f"{grid.name}: {len(grid.all_cells())} cells and the base, seeds {', '.join(map(str, grid.seeds))}"
    if not todo:
        return f"{count}; everything is cached."
    seconds = estimate_seconds([(trial.config, plans[trial.config.run]) for trial in todo])
    cores = "one core" if jobs == 1 else f"{jobs} cores"
    about = "" if seconds is None else f", about {duration(seconds / min(jobs, len(todo)))} on {cores}"
    return f"{count}; {len(todo)} of {len(trials)} runs to make{about}."


def _made(store: Store, run: str, plans: Sequence[StagePlan]) -> dict[str, ArtifactRef]:
    """What a finished run made; it may have had other pointers before."""
    pointers = store.run(run).pointers()
    return {plan.key: pointers[plan.key] for plan in plans}


def _note(line: str) -> None:
    print(console.plain(line), file=sys.stderr, flush=True)


def _make(store: Store, todo: Sequence[Trial], jobs: int) -> dict[str, str]:
    """Make them; returns what went wrong, by the run's name."""
    if not todo:
        return {}
    from flows.trials import in_turn, make_here, make_side_by_side

    todo = in_turn(todo)
    if jobs == 1:
        return make_here(todo, _note)
    return make_side_by_side(todo, min(jobs, len(todo)), store.root, _note)
