"""Carrying out a comparison from the command line, and showing what it found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows import console
from flows.prefect_environment import prefect_runtime
from flows.running import all_cached, point_run
from mbpo_core.comparison.publish import publish_comparison
from mbpo_core.comparison.results import Comparison, Spent, compare_seeds
from mbpo_core.comparison.table import comparison_table
from mbpo_core.config import PipelineConfig, load_config
from mbpo_core.errors import ConfigError
from mbpo_core.methods import METHODS
from mbpo_core.store import Store
from tasks.run import Run, expect


def comparison_configs(
    path: Path, methods: Sequence[str], seeds: int, tokens: int, changes: Sequence[str], tuned: Sequence[str] = ()
) -> list[list[PipelineConfig]]:
    """A config a method, for each seed; run names say which: compare-<run>-<seed>.<method>.

    Args:
        path: run config that all have in common; what it says itself beats a method's settings.
        methods: names of `mbpo methods`, each once.
        seeds: how many, from the config's own.
        tokens: budget of training, token positions; 0 takes the config's.
        changes: overrides for all, section.field=value.
        tuned: overrides for one, method:section.field=value.

    Raises:
        ConfigError: a method is unknown or named twice, something is tuned for none of them, or there is no budget.
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
    own: dict[str, list[str]] = {name: [] for name in methods}
    for change in tuned:
        name, _, override = change.partition(":")
        if name not in own:
            raise ConfigError(
                f"{change!r} tunes none of the methods",
                expected="method:section.field=value",
                remedy=f"Write for instance {methods[0]}:training.learning_rate=1e-4.",
            )
        own[name].append(override)
    common = [*changes, "baselines=[]", f"training.token_budget={budget}"]
    return [
        [
            load_config(
                path,
                [*common, *own[name], f"method={name}", f"seed={seed}", f"run=compare-{plain.run}-{seed}.{name}"],
            )
            for name in methods
        ]
        for seed in range(plain.seed, plain.seed + seeds)
    ]


def compare_methods(store: Store, seeds: Sequence[Sequence[PipelineConfig]], output: Path, commands: list[str]) -> None:
    """Run what is not there yet, a seed after the other; print the table, write the page.

    Args:
        store: whose artifacts are reused.
        seeds: of each, a config a method.
        output: folder for the page, the picture and the numbers.
        commands: that make it again.
    """
    for configs in seeds:
        _run(store, configs)
    comparison = collect(store, seeds)
    console.make_console().print(comparison_table(comparison))
    console.say(f"Page: {publish_comparison(comparison, output, commands)}")


def collect(store: Store, seeds: Sequence[Sequence[PipelineConfig]]) -> Comparison:
    """The numbers of a comparison that has run."""
    first = seeds[0][0]
    summaries = [store.reader(_latest(store, configs[0], "evaluation")).json("summary.json") for configs in seeds]
    spent = [{config.label: _spent(store, config) for config in configs} for configs in seeds]
    name = first.run.removeprefix("compare-").rpartition("-")[0]
    return compare_seeds(name, summaries, spent, first.training.token_budget)


def _run(store: Store, configs: Sequence[PipelineConfig]) -> None:
    with prefect_runtime(store.root):
        from flows.comparison import compare, follow_comparison

        dry = [Run(config, store, perform=expect) for config in configs]
        follow_comparison(dry)
        title = f"Seed {configs[0].seed}: {', '.join(config.method for config in configs)}"
        if all_cached([plan for run in dry for plan in run.plans]):
            console.say(f"{title}: everything is cached.")
            for run in dry:
                point_run(store, run.config, run.plans)
            return
        console.say(title)
        compare(list(configs))


def _latest(store: Store, config: PipelineConfig, key: str) -> Any:
    return Run(config, store).latest(key)


def _spent(store: Store, config: PipelineConfig) -> Spent:
    steps: list[dict[str, Any]] = []
    sampled = 0
    for index in range(config.training_rounds):
        steps += store.reader(_latest(store, config, f"training/{index}")).rows(columns=["positions", "cpu_seconds"])
        if config.training.use_online:
            groups = store.reader(_latest(store, config, f"rollouts/{index}")).rows(columns=["completions"])
            sampled += sum(len(one["token_ids"]) for group in groups for one in group["completions"])
    return Spent.of(steps, sampled)
