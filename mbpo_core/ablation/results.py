"""What a grid found: every metric of every cell, pooled over seeds, and what each cell cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mbpo_core.ablation.costs import Cost
from mbpo_core.ablation.grid import Grid
from mbpo_core.evaluation.entries import Entry
from mbpo_core.evaluation.summary import POOLED_CLUSTERS, Summary, count_rows, summary_of
from mbpo_core.methods import title_of
from mbpo_core.stage import Row
from mbpo_core.stages import STAGES

_PLOTTED = 2
INTERVALS = ("low", "high", "seed_low", "seed_high")


@dataclass(frozen=True)
class Results:
    """Cells compared.

    Attributes:
        testbed: what the grid calls it.
        factors: levels of each, in order.
        levels: of each cell; the base is none of them.
        seeds: that each cell ran with.
        summary: over all seeds; differences are to the base.
        each: the summary of each seed.
        baseline: a cell, or "".
        against: differences to the baseline: {cell: {metric: entry}}.
        costs: by cell and seed.
        pareto: factors whose levels a line joins.
        plots: metrics that plots show.
        missing: trials that are not there; their cells are left out.
    """

    testbed: str
    factors: Mapping[str, Sequence[str]]
    levels: Mapping[str, Mapping[str, str]]
    seeds: Sequence[int]
    summary: Summary
    each: Mapping[int, Summary]
    baseline: str
    against: Mapping[str, Mapping[str, Entry]]
    costs: Mapping[str, Mapping[int, Cost]]
    pareto: Sequence[str]
    plots: Sequence[str]
    missing: Sequence[str] = ()

    @property
    def metrics(self) -> list[str]:
        """Names of the headline metrics."""
        return [name for name, described in self.summary["metrics"].items() if described["headline"]]

    @property
    def plotted(self) -> list[str]:
        """The metrics that plots show: the measured ones of those that the grid names, else the first headline ones."""
        named = [name for name in self.plots if name in self.summary["metrics"]]
        return named or self.metrics[:_PLOTTED]

    @property
    def cells(self) -> list[str]:
        """The base and every cell, in order."""
        return list(self.summary["policies"])

    def cost(self, cell: str) -> Cost:
        """The mean over seeds."""
        return Cost.mean(list(self.costs[cell].values()))

    def title(self, cell: str) -> str:
        """Heading of a cell: where only methods are compared, what people call them."""
        return title_of(cell) if list(self.factors) == ["method"] else cell

    def scale(self, metric: str) -> float:
        """Shares are shown in percent."""
        return 100.0 if self.summary["metrics"][metric]["unit"] == "share" else 1.0

    def rows(self) -> list[dict[str, Any]]:
        """One row a cell and metric, over all seeds, as `results.json` has them.

        Shares are in percent, as everywhere in tables. `difference` is to the base, `baseline_difference` to the
        baseline. `low` and `high` are of the pooled bootstrap, `seed_low` and `seed_high` of the t-interval over seeds.
        """
        rows = []
        for cell, entries in self.summary["policies"].items():
            cost = self.cost(cell)
            for metric, entry in entries.items():
                scale = self.scale(metric)
                rows.append(
                    {
                        "testbed": self.testbed,
                        "method": cell,
                        "metric": metric,
                        **columns("mean", "", entry, scale),
                        **columns(
                            "difference", "difference_", self.summary["differences"].get(cell, {}).get(metric), scale
                        ),
                        **columns("baseline_difference", "baseline_", self.against.get(cell, {}).get(metric), scale),
                        "seeds": len(self.seeds),
                        "train_tokens": round(cost.train_tokens),
                    }
                )
        return rows

    def table(self) -> list[dict[str, Any]]:
        """One row a cell, seed and metric for the Parquet file, and one with seed null over all seeds.

        Values are as computed: shares between 0 and 1.
        """
        rows = []
        parts: list[tuple[int | None, Summary]] = [(None, self.summary), *self.each.items()]
        for seed, summary in parts:
            for cell, entries in summary["policies"].items():
                cost = self.cost(cell) if seed is None else self.costs[cell][seed]
                levels = self.levels.get(cell, {})
                rows += [
                    {
                        "testbed": self.testbed,
                        "cell": cell,
                        **{factor: levels.get(factor) for factor in self.factors},
                        "seed": seed,
                        "metric": metric,
                        **{name: entry.get(name) for name in ("value", *INTERVALS, "n")},
                        "train_tokens": cost.train_tokens,
                        "sampled_tokens": cost.sampled_tokens,
                        "attack_passes": cost.attack_passes,
                        **{f"cpu_{stage}": cost.cpu_seconds.get(stage) for stage in STAGES if stage != "report"},
                    }
                    for metric, entry in entries.items()
                ]
        return rows


def summarize_results(
    grid: Grid,
    asked: Mapping[int, Iterable[Row]],
    costs: Mapping[str, Mapping[int, Cost]],
    settings: Mapping[str, Any],
    missing: Sequence[str] = (),
) -> Results:
    """The statistics of a grid.

    Args:
        grid: that was run.
        asked: predictions of each seed, gone through twice; the first policy is the base.
        costs: by cell and seed.
        settings: confidence, bootstrap.
        missing: trials that are not there.

    Raises:
        DataError: the cells of a seed answered different questions.
    """
    counts = count_rows(list(asked.values()))
    pooled = summary_of(counts, **settings, clusters=POOLED_CLUSTERS)
    baseline = grid.baseline if grid.baseline in pooled["policies"] else ""
    against: Mapping[str, Mapping[str, Entry]] = {}
    if baseline:
        against = summary_of(counts, **settings, clusters=POOLED_CLUSTERS, baseline=baseline)["differences"]
    each = {seed: summary_of(counts.only(run), **settings, seed=seed) for run, seed in enumerate(asked)}
    return Results(
        testbed=grid.testbed or grid.name,
        factors={factor: list(levels) for factor, levels in grid.factors.items()},
        levels={cell.name: cell.levels for cell in grid.all_cells() if cell.name in pooled["policies"]},
        seeds=list(asked),
        summary=pooled,
        each=each,
        baseline=baseline,
        against=against,
        costs=costs,
        pareto=grid.pareto,
        plots=grid.plots,
        missing=missing,
    )


def shown(entry: Entry) -> tuple[float, float, float]:
    """Value, low and high as tables show them: over seeds where there are several, else over questions."""
    if entry.get("seed_mean") is None:
        return entry["value"], entry["low"], entry["high"]
    return entry["seed_mean"], entry["seed_low"], entry["seed_high"]


def certain(entry: Entry) -> bool:
    """Both intervals of a difference, over questions and over seeds, exclude zero."""
    ends = [(entry["low"], entry["high"]), shown(entry)[1:]]
    return all(low > 0 or high < 0 for low, high in ends)


def columns(
    name: str, prefix: str, entry: Mapping[str, Any] | None, scale: float, ends: Sequence[str] = INTERVALS
) -> dict[str, float | None]:
    """An entry as columns: its value by that name, its intervals' ends with the prefix; null where there is none."""
    found = {part: None if entry is None else entry.get(part) for part in ("value", *ends)}
    return {
        name if part == "value" else prefix + part: None if number is None else round(scale * number, 4)
        for part, number in found.items()
    }
