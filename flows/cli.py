"""The command line. Only options are declared here; `flows.commands` does the work and is imported when needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mbpo_core import __version__
from mbpo_core.errors import MbpoError

app = typer.Typer(
    help="Modality-Balancing Preference Optimization: teach a multimodal model to look.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
demo_app = typer.Typer(pretty_exceptions_enable=False)
app.add_typer(demo_app, name="demo")
samples_app = typer.Typer(pretty_exceptions_enable=False)
app.add_typer(samples_app, name="samples", rich_help_panel="One stage again")
pool_app = typer.Typer(pretty_exceptions_enable=False, no_args_is_help=True, help="The work pool of a Prefect server.")
app.add_typer(pool_app, name="pool")
server_app = typer.Typer(pretty_exceptions_enable=False, no_args_is_help=True, help="A Prefect server on this machine.")
app.add_typer(server_app, name="server")


class StageName(StrEnum):
    """The stages, as choices of an option and commands; not read from `mbpo_core.stages`, which brings
    pydantic and is slow to import, but compared with it by a test."""

    samples = "samples"
    negatives = "negatives"
    pairs = "pairs"
    rollouts = "rollouts"
    training = "training"
    evaluation = "evaluation"
    report = "report"


Config = Annotated[Path, typer.Option("--config", help="Run config, e.g. deployments/demo.yaml.")]
MaybeConfig = Annotated[Path | None, typer.Option("--config", help="Run config; the run's own if left out.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Change one setting; may be repeated.")
]
Store = Annotated[str | None, typer.Option("--store", help="Store root; else MBPO_STORE, else ./runs.")]
RunName = Annotated[str, typer.Option("--run", help="Name of the run.")]
MaybeRun = Annotated[str | None, typer.Option("--run", help="Name of the run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=64, help="Processes that work side by side on this machine.")]
Round = Annotated[int | None, typer.Option("--round", min=0, help="Round; the last one if left out.")]

Forced = Annotated[
    list[StageName] | None,
    typer.Option("--force", metavar="STAGE", help="Compute this stage even if cached; may be repeated."),
]
Only = Annotated[
    list[StageName] | None,
    typer.Option("--only", metavar="STAGE", help="Do this stage and take the others as they are; may be repeated."),
]
StartAt = Annotated[
    StageName | None, typer.Option("--start-at", metavar="STAGE", help="Take the stages before this one as they are.")
]
Upstream = Annotated[
    str, typer.Option("--upstream", metavar="WHAT", help="latest, or digest prefixes or URIs of artifacts to read.")
]

_debug = False


class Mode(StrEnum):
    """What to do with what exists (the same words as `tasks.run.Mode`)."""

    reuse = "reuse"
    resume = "resume"
    rerun = "rerun"


HowMuch = Annotated[
    Mode,
    typer.Option(
        "--mode", help="reuse what exists; resume, but begin nothing anew; rerun, computing it even if it exists."
    ),
]


class Setting(StrEnum):
    """What the colours of the demo's training pictures do."""

    uniform = "uniform"
    natural = "natural"


class Benchmark(StrEnum):
    """What `mbpo evaluation` reads besides the run's own samples (the keys of `mbpo_core.samples.benchmarks`)."""

    pope = "pope"
    amber = "amber"
    mmhal = "mmhal"
    vilp = "vilp"
    vlind = "vlind"


class Baseline(StrEnum):
    """What may be trained in place of the method."""

    sft = "sft"
    dpo = "dpo"


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit codes: 0 done, 1 it could not be done (the reason is printed), 2 wrong usage."""
    try:
        app(arguments, prog_name="mbpo")
    except MbpoError as error:
        if _debug:
            raise
        print(f"mbpo: {error}", file=sys.stderr)
        sys.exit(1)


@app.callback(invoke_without_command=True)
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options that stand before the command."""
    global _debug
    _debug = debug
    if debug:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
    if version:
        typer.echo(f"mbpo {__version__}")
        raise typer.Exit


@app.command("run")
def run(
    config: Config,
    changes: Changes = None,
    force: Forced = None,
    only: Only = None,
    start_at: StartAt = None,
    store: Store = None,
) -> None:
    """Run the whole method; stages whose artifacts exist are reused."""
    from flows import commands

    commands.run(config, changes or [], _words(force), _words(only), start_at.value if start_at else "", store)


@app.command("explain")
def explain(
    config: MaybeConfig = None,
    run: MaybeRun = None,
    changes: Changes = None,
    as_json: AsJson = False,
    store: Store = None,
) -> None:
    """Say for each stage whether it would run, and why. Computes nothing."""
    if config is None and run is None:
        raise typer.BadParameter("give --config or --run")
    from flows import commands

    commands.explain(config, run, changes or [], store, as_json=as_json)


@app.command("plan-memory")
def plan_memory(
    config: Config,
    changes: Changes = None,
    device_gib: Annotated[
        float | None,
        typer.Option("--device-gib", min=0.001, help="Memory of one accelerator; this node's own if left out."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, max=1024, help="Worker processes; launch.processes if left out.")
    ] = None,
    picture: Annotated[
        str, typer.Option("--picture", metavar="WIDTHxHEIGHT", help="Size that pictures are taken to have, pixels.")
    ] = "1024x768",
    text_tokens: Annotated[
        int, typer.Option("--text-tokens", min=1, help="Tokens of a prompt besides its picture.")
    ] = 64,
    as_json: AsJson = False,
) -> None:
    """Estimate each stage's memory from config.json and settings alone; exit code 1 if one does not fit."""
    from flows import commands

    commands.plan_memory(config, changes or [], device_gib, processes, picture, text_tokens, as_json=as_json)


@app.command("runs")
def runs(as_json: AsJson = False, store: Store = None) -> None:
    """List the runs of the store: when each was last worked on, how far it is, what is stale in it."""
    from flows import commands

    commands.runs(store, as_json=as_json)


@app.command("show")
def show(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[WHAT]", help="A stage (pairs, training/1) or a digest prefix; all if left out."),
    ] = None,
    run: RunName = "demo",
    as_json: AsJson = False,
    full: Annotated[bool, typer.Option("--full", help="Evaluation: every metric.")] = False,
    store: Store = None,
) -> None:
    """Show what a stage made: rows, dropped rows by reason, place; of the evaluation, its table."""
    from flows import commands

    commands.show(what, run, store, as_json=as_json, full=full)


@app.command("trace")
def trace(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A stage (training/1), a digest prefix, or a sample_id (one row).")
    ],
    run: RunName = "demo",
    as_json: AsJson = False,
    store: Store = None,
) -> None:
    """Follow a checkpoint, an artifact or one row back to the input."""
    from flows import commands

    commands.trace(what, run, store, as_json=as_json)


@app.command("export")
def export(
    what: Annotated[
        str,
        typer.Argument(metavar="WHAT", help="A stage (pairs, rollouts/0, training/1, promoted) or a digest prefix."),
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder to write.")],
    run: RunName = "demo",
    dropped: Annotated[
        bool, typer.Option("--dropped", help="Also the rows that were kept aside, with their source rows.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    store: Store = None,
) -> None:
    """Write tables as a data set that load_dataset opens, or a checkpoint as a model folder, each with a card."""
    from flows import commands

    commands.export(what, run, output, store, dropped=dropped, overwrite=overwrite)


@app.command("verify")
def verify(
    what: Annotated[
        str | None, typer.Argument(metavar="[WHAT]", help="A stage or a digest prefix; the whole store if left out.")
    ] = None,
    run: MaybeRun = None,
    as_json: AsJson = False,
    store: Store = None,
) -> None:
    """Read every byte again and compare it with the manifests; exit code 1 if something is damaged."""
    from flows import commands

    commands.verify(what, run, store, as_json=as_json)


@app.command("compare")
def compare(
    config: Config,
    methods: Annotated[str, typer.Option("--methods", help="Names of `mbpo methods`, with commas between them.")],
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, max=100, help="Repeat with the config's seed and those after it.")
    ] = 1,
    tokens: Annotated[
        int, typer.Option("--tokens", min=0, help="Budget of each method: token positions forward and backward.")
    ] = 0,
    output: Annotated[Path, typer.Option("--output", help="Folder for the page, the picture and the numbers.")] = Path(
        "comparison"
    ),
    changes: Changes = None,
    tuned: Annotated[
        list[str] | None,
        typer.Option("--tuned", metavar="METHOD:SECTION.FIELD=VALUE", help="Change one setting of one method."),
    ] = None,
    baseline: Annotated[
        str, typer.Option("--baseline", help="Method that differences are also taken to, besides the base model.")
    ] = "",
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    store: Store = None,
) -> None:
    """Train several methods on the same samples, budget and seeds; print the table and write a page."""
    from flows import commands

    commands.compare(
        config, methods, seeds, tokens, output, changes or [], tuned or [], baseline, jobs, store, dry_run=dry_run
    )


@app.command("ablation")
def ablation(
    grid: Annotated[Path, typer.Option("--grid", help="Grid file, or the name of a shipped one, e.g. results.")],
    testbeds: Annotated[
        list[str] | None,
        typer.Option("--testbed", metavar="NAME", help="A testbed of the grid; may be repeated; all if left out."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", help="Folder for the page, the pictures and the numbers.")] = Path(
        "ablation"
    ),
    changes: Changes = None,
    tuned: Annotated[
        list[str] | None,
        typer.Option("--tuned", metavar="CELL:SECTION.FIELD=VALUE", help="Change one setting of one cell."),
    ] = None,
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    store: Store = None,
) -> None:
    """Train and ask every cell of a grid with every seed; print the table and write a page."""
    from flows import commands

    commands.ablation(grid, testbeds or [], output, changes or [], tuned or [], jobs, store, dry_run=dry_run)


@app.command("methods")
def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One method and what it stands for; all if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List methods, objectives and negatives: what each does, where it is from, what it needs and costs."""
    from flows import commands

    commands.methods(name, as_json=as_json)


@app.command("gc")
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Delete instead of listing.")] = False,
    as_json: AsJson = False,
    store: Store = None,
) -> None:
    """List the artifacts that no run needs."""
    from flows import commands

    commands.gc(store, delete=delete, as_json=as_json)


@app.command("doctor")
def doctor(as_json: AsJson = False, store: Store = None) -> None:
    """Check everything a run needs, and say what to do about what is missing; exit code 1 if something is."""
    from flows import commands

    commands.doctor(store, as_json=as_json)


@pool_app.command("create")
def create_pool(
    node: Annotated[
        list[str] | None,
        typer.Option("--node", metavar="NAME=DEVICES", help="A machine and its accelerators; this one if left out."),
    ] = None,
    notify: Annotated[
        str, typer.Option("--notify", metavar="TYPE/NAME", help="Prefect block that failures are told to.")
    ] = "",
) -> None:
    """Set up work pool, queues, limits and automations on the Prefect server; again changes nothing."""
    from flows import commands

    commands.create_pool(node or [], notify)


@server_app.command("up")
def server_up(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.")] = 4200,
    store: Store = None,
) -> None:
    """Start a Prefect server with auth, a worker and the deployments on this machine, and print the URL."""
    from flows import commands

    commands.server_up(port, store)


@server_app.command("down")
def server_down(store: Store = None) -> None:
    """End what `mbpo server up` started, and nothing else."""
    from flows import commands

    commands.server_down(store)


@app.command("smoke")
def smoke() -> None:
    """Run every stage on a handful of rows in a temporary store and check what they wrote."""
    from flows import commands

    commands.smoke()


@demo_app.callback(invoke_without_command=True)
def demo(
    context: typer.Context,
    setting: Annotated[Setting, typer.Option("--setting", help="Colours uniform, or as in nature.")] = Setting.uniform,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="Repeat with seeds 0, 1, ...")] = 1,
    changes: Changes = None,
    store: Store = None,
) -> None:
    """Run the method and its baselines on the demo scenes and print the results."""
    if context.invoked_subcommand is None:
        from flows import commands

        commands.demo(setting.value, seeds, changes or [], store)


@demo_app.command("train-base")
def train_base(
    output: Annotated[Path, typer.Option("--output", help="Folder to write absolute/ and soft/ to.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change one setting; may be repeated.")
    ] = None,
) -> None:
    """Train the demo's two base models anew (ten minutes or so)."""
    from flows import commands

    commands.train_base(output, changes or [])


def _words(stages: list[StageName] | None) -> list[str]:
    return [stage.value for stage in stages or []]


def rerun(
    context: typer.Context,
    run: RunName,
    config: MaybeConfig = None,
    changes: Changes = None,
    upstream: Upstream = "latest",
    mode: HowMuch = Mode.reuse,
    dry_run: DryRun = False,
    store: Store = None,
) -> None:
    """One stage again, from the run's latest inputs."""
    from flows import commands

    commands.rerun(context.info_name or "", run, config, changes or [], store, upstream, mode.value, dry_run=dry_run)


@samples_app.callback(invoke_without_command=True)
def rerun_samples(
    context: typer.Context,
    run: MaybeRun = None,
    config: MaybeConfig = None,
    changes: Changes = None,
    upstream: Upstream = "latest",
    mode: HowMuch = Mode.reuse,
    dry_run: DryRun = False,
    store: Store = None,
) -> None:
    """Rerun samples of one run, or (inspect) look at an input before it is imported."""
    if context.invoked_subcommand is None:
        if run is None:
            raise typer.BadParameter("give --run, or the command inspect")
        rerun(context, run, config, changes, upstream, mode, dry_run, store)


@samples_app.command("inspect")
def inspect_samples(
    path: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="File, folder or dataset of the hub; that of the config.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Run config whose samples section counts.")] = None,
    changes: Changes = None,
    looked: Annotated[int, typer.Option("--rows", min=0, help="Rows to look at, from the first; 0 for all.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Show what an import would make of its input: columns, ten rows, pictures, problems; exit code 1 if nothing."""
    from flows import commands

    commands.inspect_samples(path, config, changes or [], looked, as_json=as_json)


def rerun_negatives(
    run: RunName,
    config: MaybeConfig = None,
    changes: Changes = None,
    images: Annotated[
        bool, typer.Option("--images", help="The rejected images made for pairs, not the mining.")
    ] = False,
    upstream: Upstream = "latest",
    mode: HowMuch = Mode.reuse,
    dry_run: DryRun = False,
    store: Store = None,
) -> None:
    """Mining again, or the rejected images made for the run's pairs."""
    from flows import commands

    place = {"images": images}
    commands.rerun("negatives", run, config, changes or [], store, upstream, mode.value, dry_run=dry_run, place=place)


def rerun_rollouts(
    run: RunName,
    config: MaybeConfig = None,
    changes: Changes = None,
    round_index: Round = None,
    upstream: Upstream = "latest",
    mode: HowMuch = Mode.reuse,
    dry_run: DryRun = False,
    store: Store = None,
) -> None:
    """One round's rollouts again, from the policy that round started with."""
    from flows import commands

    place = {"round_index": round_index}
    commands.rerun("rollouts", run, config, changes or [], store, upstream, mode.value, dry_run=dry_run, place=place)


def rerun_training(
    run: RunName,
    config: MaybeConfig = None,
    changes: Changes = None,
    round_index: Round = None,
    baseline: Annotated[Baseline | None, typer.Option("--baseline", help="This baseline instead of a round.")] = None,
    upstream: Upstream = "latest",
    mode: HowMuch = Mode.reuse,
    dry_run: DryRun = False,
    store: Store = None,
) -> None:
    """One round's training (or a baseline's) again, from the run's latest pairs and rollouts."""
    if round_index is not None and baseline is not None:
        raise typer.BadParameter("--round and --baseline exclude each other")
    from flows import commands

    place = {"round_index": round_index, "baseline": baseline.value if baseline else ""}
    commands.rerun("training", run, config, changes or [], store, upstream, mode.value, dry_run=dry_run, place=place)


def evaluation(
    run: MaybeRun = None,
    benchmark: Annotated[
        Benchmark | None, typer.Option("--benchmark", help="Ask a benchmark's questions instead of the run's samples.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The benchmark's file or folder, as published.")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the benchmark's pictures; that of --data if left out.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="Model folder to ask; without it, the base, baselines and result of --run.")
    ] = "",
    judged: Annotated[
        Path | None, typer.Option("--judged", help="mmhal: a judge's file, to be summed up; nothing is asked.")
    ] = None,
    responses: Annotated[
        Path, typer.Option("--responses", help="mmhal, amber: folder for files that their own scripts read.")
    ] = Path("responses"),
    config: MaybeConfig = None,
    changes: Changes = None,
    upstream: Upstream = "latest",
    mode: HowMuch = Mode.reuse,
    dry_run: DryRun = False,
    store: Store = None,
) -> None:
    """The run's policies asked again, or a benchmark's questions asked of them or of any model."""
    from flows import commands

    if benchmark is not None and (config is not None or upstream != "latest" or mode is not Mode.reuse):
        raise typer.BadParameter("--config, --upstream and --mode concern a run's own samples; use --set")
    if benchmark is not None:
        commands.benchmark(
            benchmark.value, data, images, model, run or "", judged, responses, changes or [], store, dry_run=dry_run
        )
    elif run is None:
        raise typer.BadParameter("give --run, or --benchmark with --model or --run")
    else:
        commands.rerun("evaluation", run, config, changes or [], store, upstream, mode.value, dry_run=dry_run)


_RERUN: dict[str, Callable[..., None]] = {
    "evaluation": evaluation,
    "negatives": rerun_negatives,
    "rollouts": rerun_rollouts,
    "training": rerun_training,
}
_HELP = {"evaluation": "Rerun evaluation of one run, or ask a benchmark's questions."}
for _stage in (name.value for name in StageName if name != StageName.samples):  # samples has commands of its own
    app.command(_stage, help=_HELP.get(_stage, f"Rerun {_stage} of one run."), rich_help_panel="One stage again")(
        _RERUN.get(_stage, rerun)
    )
