"""Carrying out a benchmark from the command line, and showing what came out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flows import console
from flows.opening import planned, recorded_config
from flows.prefect_environment import prefect_runtime
from flows.running import all_cached
from mbpo_core.config import PipelineConfig, build_config
from mbpo_core.errors import ConfigError
from mbpo_core.evaluation.table import summary_table
from mbpo_core.store import Store
from tasks.run import Run, expect

TITLES = {"pope": "POPE", "amber": "AMBER", "mmhal": "MMHal-Bench", "vilp": "ViLP", "vlind": "VLind-Bench"}
_POPE = ("accuracy", "precision", "recall", "f1", "yes_ratio")
TABLES: dict[str, tuple[str, ...]] = {
    "pope": (
        *(f"pope_{subset}_{name}" for subset in ("random", "popular", "adversarial") for name in _POPE),
        "existence_unparsed",
        "blind_gap",
    ),
    "amber": (
        "amber_chair", "amber_cover", "amber_hal", "amber_cog", "amber_accuracy", "amber_precision", "amber_recall",
        "amber_f1", "amber_existence_f1", "amber_attribute_f1", "amber_relation_f1", "amber_score",
    ),
    "vilp": ("vilp_f_score", "vilp_f_prior", "vilp_p_score", "vilp_p_prior"),
    "vlind": ("vlind_ck", "vlind_vp", "vlind_cb", "vlind_lp", "vlind_cb_all", "vlind_lp_all"),
    "mmhal": (),
}  # fmt: skip
"""The numbers that each benchmark reports itself, in its order. MMHal-Bench's come from a judge."""

LONGEST = {"amber": 512, "mmhal": 512}
"""Tokens of an answer where descriptions are asked for; elsewhere the run's own evaluation.max_new_tokens."""


@dataclass(frozen=True)
class Question:
    """What is to be asked of whom.

    Attributes:
        benchmark: a key of TITLES.
        data: its file or folder.
        images: folder of its pictures; that of the data if None.
        model: folder or name of a model, or
        run: name of a run whose policies are asked; one of the two is empty.
        changes: overrides, section.field=value.
    """

    benchmark: str
    data: Path
    images: Path | None = None
    model: str = ""
    run: str = ""
    changes: Sequence[str] = ()

    def config(self, store: Store) -> PipelineConfig:
        """Settings of the two stages; the name says what was asked whom.

        Raises:
            ConfigError: neither model nor run is given, or both, the run is not known, or a change is not valid.
        """
        if bool(self.model) == bool(self.run):
            raise ConfigError(
                f"{'both a model and a run are' if self.run else 'neither a model nor a run is'} to be asked",
                where=f"mbpo evaluation --benchmark {self.benchmark}",
                expected="--model FOLDER, or --run RUN for the policies of a run",
                remedy="Give one of them.",
            )
        data: dict[str, Any] = recorded_config(store, self.run).model_dump(mode="json") if self.run else {}
        images = str(self.images) if self.images else ""
        data["samples"] = {"source": self.benchmark, "path": str(self.data), "image_root": images}
        asked = dict(data.get("evaluation", {})) | {"split": "eval", "probes": [], "per_probe": 0}
        if self.benchmark in LONGEST:
            asked["max_new_tokens"] = LONGEST[self.benchmark]
        data |= {"evaluation": asked, "run": self.name}
        if self.model:
            data["policy"] = {"model": self.model}
        return build_config(data, list(self.changes), where=f"mbpo evaluation --benchmark {self.benchmark}")

    @property
    def name(self) -> str:
        """The run under which samples and evaluation are found: <benchmark>-<run or model>."""
        whom = self.run or Path(self.model).name
        return f"{self.benchmark}-{re.sub(r'[^a-z0-9._-]+', '-', whom.lower())}"[:64]


def ask(store: Store, question: Question, responses: Path, *, dry_run: bool) -> None:
    """Ask what has not been asked yet; print the benchmark's table, write response files where its scripts read some.

    Args:
        store: whose artifacts are reused.
        question: what and whom.
        responses: folder for response files.
        dry_run: only say what would happen.
    """
    config = question.config(store)
    with prefect_runtime(store.root):
        from flows.benchmarks import benchmark, follow_benchmark

        plans = planned(Run(config, store, perform=expect), partial(follow_benchmark, trained=question.run))
        if dry_run or not all_cached(plans):
            console.print_plans(plans, f"{TITLES[question.benchmark]} as run {config.run} in {store.root}")
        if dry_run:
            return
        if all_cached(plans):
            for plan in plans:
                store.run(config.run).point(plan.key, plan.expected())
        else:
            benchmark(config=config, trained=question.run)
    show_benchmark(store, question.benchmark, config.run)
    write_responses(store, question, config.run, responses)


def show_benchmark(store: Store, benchmark: str, run: str) -> None:
    """The benchmark's own numbers of a run that was asked."""
    summary = headline(_evaluation(store, run).json("summary.json"), TABLES[benchmark])
    if summary["metrics"]:
        console.make_console().print(summary_table(summary, title=f"{TITLES[benchmark]}, run {run}"))
    console.say(f"All numbers: mbpo show evaluation --run {run} --full --store {store.root}")


def headline(summary: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A summary of these metrics only, in this order, all of them in the short table."""
    known = [name for name in names if name in summary["metrics"]]
    metrics = {name: summary["metrics"][name] | {"headline": True, "place": at} for at, name in enumerate(known)}
    return summary | {"metrics": metrics}


def write_responses(store: Store, question: Question, run: str, folder: Path) -> None:
    """A response file a policy, where the benchmark has a script that reads one."""
    from mbpo_core.samples.benchmarks.responses import WRITTEN, responses_of

    if question.benchmark not in WRITTEN:
        return
    folder.mkdir(parents=True, exist_ok=True)
    predictions = _evaluation(store, run)
    for label in predictions.json("summary.json")["policies"]:
        rows = predictions.where("policy", [label]).rows(columns=["sample_id", "text", "extracted", "meta"])
        file = folder / f"{run}-{label}.json"
        answers = responses_of(question.benchmark, question.data, rows)
        file.write_text(json.dumps(answers, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        console.say(f"Response file of {label}: {file}")


def show_judged(benchmark: str, file: Path, data: Path) -> None:
    """What a judge's file says of MMHal-Bench's answers.

    Raises:
        ConfigError: another benchmark, which no judge is asked about.
        DataError: the file cannot be read, or does not belong to the template.
    """
    if benchmark != "mmhal":
        raise ConfigError(
            f"{TITLES[benchmark]} has no judge",
            where="--judged",
            expected="--benchmark mmhal",
            remedy="Leave --judged out.",
        )
    from mbpo_core.evaluation.mmhal import mmhal_scores
    from mbpo_core.samples.benchmarks.responses import read_judgements

    judgements = read_judgements(file, data)
    shown = console.table(
        f"MMHal-Bench, judged in {file.name} ({len(judgements)} answers)", "", "value", right=("value",)
    )
    for name, entry in mmhal_scores(judgements).items():
        shown.add_row(name, judged_cell(name, entry))
    console.make_console().print(shown)
    console.say("Scores are 0 to 6 with the t-interval over answers; shares are percent with Wilson intervals.")


def judged_cell(name: str, entry: Mapping[str, Any]) -> str:
    """A judged number with its interval: shares in percent, scores from 0 to 6 as they are."""
    scale, digits = (100, 1) if name in SHARES else (1, 2)
    numbers = [entry["value"], entry["low"], entry["high"]]
    value, *bounds = [f"{scale * number:.{digits}f}" for number in numbers if number is not None]
    return f"{value} [{', '.join(bounds)}]" if bounds else value


SHARES = ("mmhal_normalised", "mmhal_hallucination", "mmhal_unparsed")


def _evaluation(store: Store, run: str) -> Any:
    return store.reader(store.run(run).pointers()["evaluation"])
