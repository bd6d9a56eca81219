"""What a comparison found: a summary over seeds, and what each method spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from mbpo_core.evaluation.summary import Entry, Summary, combine_summaries, in_order
from mbpo_core.methods import title_of
from mbpo_core.stage import Row


@dataclass(frozen=True)
class Spent:
    """What training one policy took, over all its rounds.

    Attributes:
        steps: optimizer steps.
        positions: token positions run forward and backward, prompts and images included.
        sampled_tokens: tokens of the rollouts.
        cpu_seconds: processor seconds of the training steps, over all processes.
    """

    steps: float
    positions: float
    sampled_tokens: float
    cpu_seconds: float

    @classmethod
    def of(cls, steps: Sequence[Row], sampled_tokens: int) -> Spent:
        """From the metrics rows of all rounds."""
        return cls(
            steps=len(steps),
            positions=sum(row["positions"] for row in steps),
            sampled_tokens=sampled_tokens,
            cpu_seconds=sum(row["cpu_seconds"] for row in steps),
        )

    @classmethod
    def mean(cls, several: Sequence[Spent]) -> Spent:
        """The mean over seeds."""
        return cls(**{name: fmean(getattr(one, name) for one in several) for name in asdict(several[0])})


@dataclass(frozen=True)
class Comparison:
    """Methods compared.

    Attributes:
        name: of the testbed, e.g. "demo-uniform".
        summary: over seeds, as `combine_summaries` gives it; of the one seed where there is one.
        spent: by policy label, means over seeds; the base has none.
        seeds: how many.
        budget: token positions that each method was given.
        each: the summaries of the seeds.
    """

    name: str
    summary: Summary
    spent: Mapping[str, Spent]
    seeds: int
    budget: int
    each: Sequence[Summary] = ()

    @property
    def metrics(self) -> list[str]:
        """Names of the headline metrics."""
        return [name for name, described in self.summary["metrics"].items() if described["headline"]]

    def rows(self) -> list[dict[str, Any]]:
        """One row a policy and metric: testbed, method, metric, mean, low, high, seeds, train_tokens.

        Shares are in percent, as everywhere in tables. `difference` is to the base.
        """
        rows = []
        for label, entries in self.summary["policies"].items():
            spent = self.spent.get(label)
            for metric, entry in entries.items():
                change = self.summary["differences"].get(label, {}).get(metric)
                scale = 100.0 if self.summary["metrics"][metric]["unit"] == "share" else 1.0
                rows.append(
                    {
                        "testbed": self.name,
                        "method": label,
                        "metric": metric,
                        **_scaled(entry, scale, ("mean", "low", "high")),
                        **_scaled(change, scale, ("difference", "difference_low", "difference_high")),
                        "seeds": self.seeds,
                        "train_tokens": round(spent.positions) if spent else 0,
                    }
                )
        return rows


def compare_seeds(
    name: str, summaries: Sequence[Summary], spent: Sequence[Mapping[str, Spent]], budget: int
) -> Comparison:
    """Put the evaluations of all seeds together.

    Args:
        name: of the testbed.
        summaries: one a seed, of the same policies.
        spent: one a seed.
        budget: token positions.

    Raises:
        DataError: the seeds do not have the same policies.
    """
    summary = combine_summaries(summaries) if len(summaries) > 1 else in_order(summaries[0])
    means = {label: Spent.mean([one[label] for one in spent]) for label in spent[0]}
    return Comparison(name, summary, means, len(summaries), budget, summaries)


def titles(comparison: Comparison) -> dict[str, str]:
    """Headings of the policies, in order."""
    return {label: title_of(label) for label in comparison.summary["policies"]}


def half_width(entry: Entry) -> float:
    """Half of the interval: the larger half where it is not symmetric."""
    return float(max(entry["value"] - entry["low"], entry["high"] - entry["value"]))


def _scaled(entry: Entry | None, scale: float, names: tuple[str, str, str]) -> dict[str, float | None]:
    if entry is None or entry["value"] is None:
        return dict.fromkeys(names)
    return {name: round(scale * entry[key], 4) for name, key in zip(names, ("value", "low", "high"), strict=True)}
