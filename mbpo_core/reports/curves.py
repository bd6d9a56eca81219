"""Training curves: the rounds of the method one after the other, the baselines over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mbpo_core.methods import title_of
from mbpo_core.reports.charts import Chart, Series, line_chart, series_class
from mbpo_core.reports.margins import margin_charts
from mbpo_core.reports.rollouts import entropies
from mbpo_core.reports.sources import filled, method_label, named_of, rounds_of
from mbpo_core.stage import Reader

Steps = Sequence[Mapping[str, Any]]
_TERMS = ("add_image", "add_anchor", "add_likelihood", "perception_weight")  # weights of further terms of the loss


@dataclass(frozen=True)
class Curves:
    """The section on training."""

    charts: list[Chart]
    lines: list[tuple[str, str]]  # run, what its table says in one line
    starts: list[float]  # steps at which a further round starts


@dataclass(frozen=True)
class _Trained:
    """One policy's training.

    Attributes:
        label: of the policy.
        steps: of all rounds, with their place `at` on one axis.
        config: settings of the training; empty where the artifact does not say.
    """

    label: str
    steps: Steps
    config: Mapping[str, Any]

    @property
    def title(self) -> str:
        return title_of(self.label)

    @property
    def style(self) -> str:
        return series_class(self.label)

    @property
    def takes_ratios(self) -> bool:
        """Whether the loss is of clipped ratios."""
        return self.config.get("objective") in ("grpo", "none")

    @property
    def starts_at_zero(self) -> bool:
        """Whether nothing but ratios of centred advantages makes the loss."""
        return self.takes_ratios and not any(self.config.get(term) for term in _TERMS)

    def line(self, column: str, name: str = "", style: str = "") -> Series:
        """One column over the steps."""
        points = [(step["at"], step.get(column)) for step in self.steps]
        return Series(name or self.title, style or self.style, points)


def curves_section(inputs: Mapping[str, Reader]) -> Curves | None:
    """The section, or None where nothing was trained."""
    rounds = [reader for _, reader in rounds_of(inputs, "training")]
    method = _trained(method_label(inputs), rounds) if rounds else None
    baselines = [_trained(name, [reader]) for name, reader in named_of(inputs, "training").items()]
    runs = [run for run in (method, *baselines) if run is not None and run.steps]
    if not runs:
        return None
    starts = [step["at"] for step in (method.steps if method else ()) if step["starts_round"]][1:]
    charts = [
        *(_of_method(method, starts) if method and method.steps else []),
        *(_of_rollouts(method, inputs, starts) if method and method.steps else []),
        *_of_all(runs, baselines, starts),
    ]
    # A method without groups has no reward, one without pairs no log-probs of them: no empty charts for these.
    charts = [chart for chart in charts if not chart.empty]
    return Curves(charts, [(run.title, _line(run.steps)) for run in runs], starts)


def _trained(label: str, readers: Sequence[Reader]) -> _Trained:
    return _Trained(label, _joined([list(reader.rows()) for reader in readers]), readers[0].manifest.config)


def _joined(rounds: Sequence[Steps]) -> list[dict[str, Any]]:
    """All steps with their place `at` on one axis, whether or not a round counts its steps from the start again."""
    joined: list[dict[str, Any]] = []
    for steps in rounds:
        ordered = sorted(steps, key=lambda step: step["step"])
        last = joined[-1]["at"] if joined else None
        shift = last + 1 - ordered[0]["step"] if last is not None and ordered and ordered[0]["step"] <= last else 0
        joined += [{**step, "at": step["step"] + shift, "starts_round": not i} for i, step in enumerate(ordered)]
    return joined


def _of_method(method: _Trained, starts: Sequence[float]) -> list[Chart]:
    """What only the method's own training shows."""
    parts = [method.line("offline_loss", "offline", "s-chosen"), method.line("online_loss", "online", "s-part")]
    losses = [method.line("loss", "total"), *(parts if all(part.numbers for part in parts) else [])]
    note = "about 0 by construction where policy and sampling policy agree" if method.starts_at_zero else ""
    logprobs = [
        method.line("chosen_logprob", "chosen", "s-chosen"),
        method.line("rejected_logprob", "rejected", "s-rejected"),
    ]
    charts = [
        line_chart(f"Loss of {method.title}", losses, y_label="loss", marks=starts, note=note),
        line_chart("Log-probability of the pairs", logprobs, y_label="nats per token", marks=starts),
        *margin_charts(method.steps, starts),
        line_chart("Reward of rollouts", [method.line("reward", "mean reward")], y_label="reward", marks=starts),
    ]
    if method.takes_ratios or any(step["groups_online"] for step in method.steps):
        clipped = method.line("clip_fraction", "clipped tokens")
        charts.append(line_chart("Clip fraction", [clipped], y_label="share", marks=starts))
    return charts


def _of_rollouts(method: _Trained, inputs: Mapping[str, Reader], starts: Sequence[float]) -> list[Chart]:
    """Entropy of what each round sampled, at the step where the round starts."""
    found = entropies(filled(rounds_of(inputs, "rollouts")))
    places = [step["at"] for step in method.steps if step["starts_round"]]
    line = Series("entropy", method.style, list(zip(places, found, strict=False)))
    note = "minus the mean log-probability of a round's sampled tokens, where the round starts"
    return [line_chart("Entropy of rollouts", [line], y_label="nats per token", marks=starts, note=note)]


def _of_all(runs: Sequence[_Trained], baselines: Sequence[_Trained], starts: Sequence[float]) -> list[Chart]:
    """What the method and its baselines can be compared by."""

    def compared(title: str, column: str, unit: str) -> Chart:
        return line_chart(title, [run.line(column) for run in runs], y_label=unit, marks=starts)

    charts = [compared("KL to the base model", "kl", "nats"), compared("Gradient norm", "grad_norm", "norm")]
    charts += [line_chart(f"Loss of {one.title}", [one.line("loss")], y_label="loss") for one in baselines]
    if len(runs) > 1:
        charts.append(compared("Log-probability of chosen answers", "chosen_logprob", "nats per token"))
    return charts


def _line(steps: Steps) -> str:
    tokens = sum(step["tokens"] for step in steps)
    counted = [
        f"{sum(step[column] for step in steps):,} {name}"
        for column, name in (("groups_offline", "pairs"), ("groups_online", "online groups"))
        if any(step[column] for step in steps)
    ]
    text = f"{len(steps):,} optimizer steps, {' and '.join(counted) or 'nothing to train on'}, {tokens:,} tokens"
    stopped = [step["at"] for step in steps if step["stopped"]]
    return f"{text}; the stop rule fired at step {stopped[0]}" if stopped else text
