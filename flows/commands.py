"""What the commands do. Prefect is imported only once there is something to compute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows import console
from flows.paths import config_file, use_store
from flows.prefect_environment import prefect_runtime
from mbpo_core.config import load_config
from mbpo_core.errors import ConfigError
from mbpo_core.store import Store


def run(config: Path, changes: list[str], force: list[str], only: list[str], start_at: str, store: str | None) -> None:
    """Run the whole method, or some of its stages, and print the results."""
    from flows.opening import choose
    from flows.running import run_pipeline
    from flows.showing import show_results

    settings = load_config(config_file(config), changes)
    place = Store(use_store(store))
    run_pipeline(place, settings, choose(only, start_at, force))
    show_results(place, settings.run)


def demo(setting: str, seeds: int, changes: list[str], store: str | None) -> None:
    """Run the demo, once a seed, and print the results."""
    from flows.demo import demo_configs
    from flows.running import run_pipeline
    from flows.showing import show_results, show_seeds

    place = Store(use_store(store))
    configs = demo_configs(setting, seeds, changes)
    for settings in configs:
        run_pipeline(place, settings)
        show_results(place, settings.run)
    if len(configs) > 1:
        show_seeds(place, [settings.run for settings in configs])


def compare(
    config: Path,
    methods: str,
    seeds: int,
    tokens: int,
    output: Path,
    changes: list[str],
    tuned: list[str],
    baseline: str,
    jobs: int,
    store: str | None,
    *,
    dry_run: bool,
) -> None:
    """Train several methods on the same samples and show how they compare."""
    from flows.ablating import carry_out, methods_grid, split_tuned
    from mbpo_core.ablation.grid import make_trials

    names = [name.strip() for name in methods.split(",") if name.strip()]
    path = config_file(config)
    grid = methods_grid(path, names, seeds, tokens, changes, baseline)
    trials = make_trials(grid, path, prefix="compare", changes=changes, tuned=split_tuned(names, tuned))
    command = ["mbpo", "compare", "--config", str(config), "--methods", ",".join(names), "--seeds", str(seeds)]
    command += ["--tokens", str(grid.tokens), *(["--baseline", baseline] if baseline else [])]
    again = _again(command, [], changes, tuned)
    carry_out(Store(use_store(store)), grid, trials, output, again, jobs=jobs, dry_run=dry_run)


def ablation(
    grid: Path,
    testbeds: list[str],
    output: Path,
    changes: list[str],
    tuned: list[str],
    jobs: int,
    store: str | None,
    *,
    dry_run: bool,
) -> None:
    """Train and ask every cell of a grid, and show how they compare."""
    from flows.ablating import carry_out, split_tuned
    from flows.paths import grid_file
    from mbpo_core.ablation.grid import OVERVIEW, load_grid, make_trials
    from mbpo_core.ablation.publish import publish_overview, refuse_other_folder
    from mbpo_core.models.resolve import resolve_model

    whole = load_grid(grid_file(grid))
    own = split_tuned([cell.name for cell in whole.all_cells()], tuned)
    command = ["mbpo", "ablation", "--grid", str(grid)]
    asked = whole.on(testbeds)
    trials = [make_trials(one, config_file(one.config), changes=changes, tuned=own) for one in asked]
    for made in trials:
        resolve_model(made[0].config.policy)  # a base that is missing is told before hours of work on another one
    several = len(asked) > 1
    if several:
        refuse_other_folder(output / OVERVIEW)
    opened = Store(use_store(store))
    found = []
    for one, made in zip(asked, trials, strict=True):
        again = _again(command, [one.testbed] if whole.testbeds else [], changes, tuned)
        folder = output / one.testbed if whole.testbeds else output
        found.append(carry_out(opened, one, made, folder, again, jobs=jobs, dry_run=dry_run))
    if several and (results := [one for one in found if one is not None]):
        page = publish_overview(results, output, whole.name, _again(command, testbeds, changes, tuned))
        console.say(f"All testbeds: {page}")


def _again(command: list[str], testbeds: list[str], changes: list[str], tuned: list[str]) -> list[str]:
    """The command with its changes, as a page shows it."""
    import shlex

    words = [word for testbed in testbeds for word in ("--testbed", testbed)]
    words += [word for change in changes for word in ("--set", change)]
    words += [word for change in tuned for word in ("--tuned", change)]
    return [shlex.join(command + words)]


def explain(config: Path | None, run: str | None, changes: list[str], store: str | None, *, as_json: bool) -> None:
    """Print what would run, and why."""
    from flows.running import explain_run

    settings = load_config(config_file(config), changes) if config else None
    console.print_explanation(explain_run(Store(use_store(store)), settings, run, changes), as_json=as_json)


def plan_memory(
    config: Path,
    changes: list[str],
    device_gib: float | None,
    processes: int | None,
    picture: str,
    text_tokens: int,
    *,
    as_json: bool,
) -> None:
    """Print how much memory a run's stages need, and what to turn where that is too much."""
    from flows.memory import read_picture, show_memory

    more = [f"launch.processes={processes}"] if processes else []
    settings = load_config(config_file(config), [*changes, *more])
    show_memory(settings, device_gib, read_picture(picture), text_tokens, as_json=as_json)


def rerun(
    stage: str,
    run: str,
    config: Path | None,
    changes: list[str],
    store: str | None,
    upstream: str,
    mode: str,
    *,
    dry_run: bool,
    place: Mapping[str, Any] | None = None,
) -> None:
    """Rerun one stage of a run from its latest inputs."""
    from flows.running import StageChoice, rerun_stage

    settings = load_config(config_file(config)) if config else None
    chosen = StageChoice(stage, run, settings, changes, upstream, mode, **(place or {}))
    rerun_stage(Store(use_store(store)), chosen, dry_run=dry_run)


def benchmark(
    name: str,
    data: Path | None,
    images: Path | None,
    model: str,
    run: str,
    judged: Path | None,
    responses: Path,
    changes: list[str],
    store: str | None,
    *,
    dry_run: bool,
) -> None:
    """Ask a benchmark's questions, or aggregate what a judge said of the answers."""
    from flows.benchmarking import Question, ask, show_judged

    if data is None:
        raise ConfigError(
            "the benchmark's files are not named",
            where=f"mbpo evaluation --benchmark {name}",
            remedy="Give --data with its file or folder; docs/benchmarks.md shows the layouts.",
        )
    if judged is not None:
        show_judged(name, judged, data)
        return
    question = Question(name, data, images, model, run, changes)
    ask(Store(use_store(store)), question, responses, dry_run=dry_run)


def runs(store: str | None, *, as_json: bool) -> None:
    """Print the store's runs."""
    from flows.inspecting import show_runs

    show_runs(Store(use_store(store)), as_json=as_json)


def show(what: str | None, run: str, store: str | None, *, as_json: bool, full: bool) -> None:
    """Print what a run, or a stage of it, made."""
    from flows import showing

    place = Store(use_store(store))
    if what == "evaluation":
        showing.show_evaluation(place, run, as_json=as_json, full=full)
    else:
        showing.show_artifacts(place, run, what, as_json=as_json)


def inspect_samples(path: str | None, config: Path | None, changes: list[str], looked: int, *, as_json: bool) -> None:
    """Print what an import would make of its input."""
    from flows.looking import show_input

    show_input(path, config, changes, looked, as_json=as_json)


def export(what: str, run: str, output: Path, store: str | None, *, dropped: bool, overwrite: bool) -> None:
    """Write an artifact as a folder with a card."""
    from flows.exporting import export as export_artifact

    export_artifact(Store(use_store(store)), what, run, output, dropped=dropped, overwrite=overwrite)


def trace(what: str, run: str, store: str | None, *, as_json: bool) -> None:
    """Print where an artifact or a row comes from."""
    from flows.inspecting import show_trace

    show_trace(Store(use_store(store)), what, run, as_json=as_json)


def verify(what: str | None, run: str | None, store: str | None, *, as_json: bool) -> None:
    """Compare files with manifests."""
    from flows.inspecting import show_verification

    show_verification(Store(use_store(store)), what, run, as_json=as_json)


def methods(name: str | None, *, as_json: bool) -> None:
    """Print what there is to choose from."""
    from flows.listing import show_methods

    show_methods(name, as_json=as_json)


def gc(store: str | None, *, delete: bool, as_json: bool) -> None:
    """Print, or delete, what no run needs."""
    from mbpo_core.store.gc import collect

    console.print_garbage(collect(Store(use_store(store)), delete=delete), as_json=as_json)


def doctor(store: str | None, *, as_json: bool) -> None:
    """Check everything a run needs."""
    from flows.service.doctor import examine

    examine(use_store(store), as_json=as_json)


def create_pool(nodes: list[str], notify: str) -> None:
    """Set up the Prefect server's side of a pool."""
    from flows.service.pool import create_pool

    create_pool(nodes, notify)


def server_up(port: int, store: str | None) -> None:
    """Start server, worker and deployments."""
    from flows.service.serving import start

    start(use_store(store), port)


def server_down(store: str | None) -> None:
    """End them."""
    from flows.service.serving import stop

    stop(use_store(store))


def smoke() -> None:
    """Run the smoke flow, which has a store of its own."""
    with prefect_runtime(use_store(None)):
        from flows.smoke import smoke as smoke_flow

        for line in smoke_flow():
            console.say(line)


def train_base(output: Path, changes: list[str]) -> None:
    """Train the demo's base models."""
    import yaml
    from pydantic import ValidationError

    from mbpo_core.demo.base_training import BaseTrainingConfig, train_base
    from mbpo_core.progress import BarProgress, make_progress

    fields = dict(change.partition("=")[::2] for change in changes)
    try:
        settings = BaseTrainingConfig.model_validate({name: yaml.safe_load(value) for name, value in fields.items()})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        known = ", ".join(BaseTrainingConfig.model_fields)
        raise ConfigError(wrong, where="--set", remedy=f"Fields: {known}.") from error
    progress, stages = make_progress(), set()

    def report(stage: str, step: int, steps: int, loss: float) -> None:
        if stage not in stages:
            stages.add(stage)
            progress.start(stage, steps)
        progress.advance(1, loss=loss)

    try:
        summary = train_base(output, settings, report)
    finally:
        if isinstance(progress, BarProgress):
            progress.stop()
    console.say(json.dumps(summary, indent=1))
    console.say(f"Wrote {output / 'absolute'} and {output / 'soft'}; use one with --set policy.model=FOLDER.")
