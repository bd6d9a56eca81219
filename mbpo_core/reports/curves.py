"""Training curves: the rounds of the method one after the other, the baselines over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mbpo_core.reports.charts import Chart, Series, line_chart, series_class
from mbpo_core.reports.sources import named_of, rounds_of, title_of
from mbpo_core.stage import Reader

Steps = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curves:
    """The section on training."""

    charts: list[Chart]
    lines: list[tuple[str, str]]  # run, what its table says in one line


def curves_section(inputs: Mapping[str, Reader]) -> Curves | None:
    """The section, or None where nothing was trained."""
    runs: dict[str, list[dict[str, Any]]] = {}
    rounds = [list(reader.rows()) for _, reader in rounds_of(inputs, "training")]
    if any(rounds):
        runs["trained"] = _joined(rounds)
    for name, reader in named_of(inputs, "training").items():
        runs[name] = _joined([list(reader.rows())])
    runs = {name: steps for name, steps in runs.items() if steps}
    if not runs:
        return None
    starts = [step["at"] for step in runs.get("trained", []) if step["starts_round"]][1:]
    return Curves(_charts(runs, starts), [(title_of(name), _line(steps)) for name, steps in runs.items()])


def _joined(rounds: Sequence[Steps]) -> list[dict[str, Any]]:
    """All steps with their place `at` on one axis, whether or not a round counts its steps from the start again."""
    joined: list[dict[str, Any]] = []
    for steps in rounds:
        ordered = sorted(steps, key=lambda step: step["step"])
        last = joined[-1]["at"] if joined else None
        shift = last + 1 - ordered[0]["step"] if last is not None and ordered and ordered[0]["step"] <= last else 0
        joined += [{**step, "at": step["step"] + shift, "starts_round": not i} for i, step in enumerate(ordered)]
    return joined


def _charts(runs: Mapping[str, Steps], starts: Sequence[float]) -> list[Chart]:
    method = runs.get("trained", [])

    def all_runs(title: str, column: str, unit: str, note: str = "") -> Chart:
        lines = [
            _series(title_of(name), series_class(name, i), steps, column)
            for i, (name, steps) in enumerate(runs.items())
        ]
        return line_chart(title, lines, y_label=unit, marks=starts, note=note)

    def of_method(title: str, columns: Mapping[str, tuple[str, str]], unit: str, note: str = "") -> Chart:
        lines = [_series(name, style, method, column) for column, (name, style) in columns.items()]
        return line_chart(title, lines, y_label=unit, marks=starts, note=note)

    losses = {
        "loss": ("total", "s-trained"), "offline_loss": ("offline", "s-chosen"), "online_loss": ("online", "s-other2"),
    }  # fmt: skip
    logprobs = {"chosen_logprob": ("chosen", "s-chosen"), "rejected_logprob": ("rejected", "s-rejected")}
    charts = [
        of_method("MBPO loss", losses, "loss", "about 0 by construction where policy and sampling policy agree"),
        of_method("Log-probability of the pairs", logprobs, "nats per token"),
        of_method("Reward of rollouts", {"reward": ("mean reward", "s-trained")}, "reward"),
        of_method("Clip fraction", {"clip_fraction": ("clipped tokens", "s-trained")}, "share"),
    ] if method else []  # fmt: skip
    charts += [
        all_runs("KL to the base model", "kl", "nats"),
        all_runs("Gradient norm", "grad_norm", "norm"),
    ]
    baselines = {name: steps for name, steps in runs.items() if name != "trained"}
    for index, (name, steps) in enumerate(baselines.items()):
        line = _series("loss", series_class(name, index), steps, "loss")
        charts.append(line_chart(f"{title_of(name)} loss", [line], y_label="loss"))
    if len(runs) > 1:
        charts.append(all_runs("Log-probability of chosen answers", "chosen_logprob", "nats per token"))
    return charts


def _series(name: str, style: str, steps: Steps, column: str) -> Series:
    return Series(name, style, [(step["at"], step[column]) for step in steps])


def _line(steps: Steps) -> str:
    tokens = sum(step["tokens"] for step in steps)
    pairs, groups = sum(step["groups_offline"] for step in steps), sum(step["groups_online"] for step in steps)
    text = f"{len(steps):,} optimizer steps, {pairs:,} pairs and {groups:,} online groups, {tokens:,} tokens"
    stopped = [step["at"] for step in steps if step["stopped"]]
    return f"{text}; the stop rule fired at step {stopped[0]}" if stopped else text
