"""What one factor does: main effects and interactions, each over cells that differ in nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from statistics import fmean
from typing import Any

from mbpo_core.ablation.results import Results, columns
from mbpo_core.evaluation.intervals import mean_interval

Levels = Mapping[str, str]
_ENDS = ("low", "high")


@dataclass(frozen=True)
class Estimate:
    """A mean over cells and seeds with its t-interval over seeds; without one where there is a single seed."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, by_seed: Sequence[float], confidence: float) -> Estimate:
        """From one value a seed."""
        return cls(by_seed[0]) if len(by_seed) == 1 else cls(*mean_interval(by_seed, confidence))


@dataclass(frozen=True)
class MainEffect:
    """A factor's levels, each averaged over the same combinations of the other factors.

    Attributes:
        factor: name.
        metric: name.
        contexts: combinations of the other factors in which every level was run.
        levels: the mean at each level.
        differences: to the first level, seed by seed.
    """

    factor: str
    metric: str
    contexts: int
    levels: Mapping[str, Estimate]
    differences: Mapping[str, Estimate]


def main_effects(results: Results, metric: str) -> list[MainEffect]:
    """The main effect of every factor that has one.

        effect(l) = mean over seeds and contexts of (value at level l)

    A context is a combination of levels of the other factors; only those count in which every level of this factor was
    run, so that a level is never better because of the company it keeps. A factor without such a context is left out,
    and so is the only factor of a grid, whose levels are the cells themselves.

    Args:
        results: of the grid.
        metric: name.
    """
    effects = []
    for factor in results.factors:
        contexts = list(_contexts(results, [factor]))
        levels = list(results.factors[factor])
        means = _means(results, metric, [(level,) for level in levels], contexts)
        if len(levels) < 2 or len(results.factors) < 2 or means is None:
            continue
        confidence = results.summary["about"]["confidence"]
        first = means[(levels[0],)]
        effects.append(
            MainEffect(
                factor,
                metric,
                len(contexts),
                {level: Estimate.of(means[(level,)], confidence) for level in levels},
                {
                    level: Estimate.of([a - b for a, b in zip(means[(level,)], first, strict=True)], confidence)
                    for level in levels[1:]
                },
            )
        )
    return effects


def effect_rows(results: Results) -> list[dict[str, Any]]:
    """One row a level and metric, as `effects.json` has them: a level's mean, and its difference to the first level.

    Shares are in percent, intervals are t-intervals over seeds; null where there is none.

    Args:
        results: of the grid.
    """
    rows = []
    for metric in results.summary["metrics"]:
        scale = results.scale(metric)
        for effect in main_effects(results, metric):
            for level, found in effect.levels.items():
                difference = effect.differences.get(level)
                rows.append(
                    {"testbed": results.testbed, "factor": effect.factor, "level": level, "metric": metric}
                    | columns("mean", "", asdict(found), scale, _ENDS)
                    | columns("difference", "difference_", asdict(difference) if difference else None, scale, _ENDS)
                    | {"contexts": effect.contexts, "seeds": len(results.seeds)}
                )
    return rows


def interactions(results: Results, metric: str) -> Iterator[tuple[str, str, dict[tuple[str, str], Estimate]]]:
    """Pairs of factors all of whose combinations were run, with the mean of each combination.

    Args:
        results: of the grid.
        metric: name.

    Yields:
        Both factors, and by level of the first and of the second the mean over seeds and contexts.
    """
    confidence = results.summary["about"]["confidence"]
    for one, other in combinations(results.factors, 2):
        pairs = list(product(results.factors[one], results.factors[other]))
        means = _means(results, metric, pairs, list(_contexts(results, [one, other])))
        if means is not None and min(len(results.factors[one]), len(results.factors[other])) > 1:
            yield one, other, {(a, b): Estimate.of(means[a, b], confidence) for a, b in pairs}


def _contexts(results: Results, factors: Sequence[str]) -> Iterator[dict[tuple[str, ...], str]]:
    """Cells by their levels of these factors, for each combination of the others in which all levels were run."""
    groups: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
    for cell, levels in results.levels.items():
        others = tuple(level for factor, level in levels.items() if factor not in factors)
        groups.setdefault(others, {})[tuple(levels[factor] for factor in factors)] = cell
    wanted = set(product(*(results.factors[factor] for factor in factors)))
    yield from (group for group in groups.values() if group.keys() == wanted)


def _means(
    results: Results, metric: str, levels: Sequence[tuple[str, ...]], contexts: Sequence[Mapping[tuple[str, ...], str]]
) -> dict[tuple[str, ...], list[float]] | None:
    """At each level, one mean over contexts a seed; None where there is no context, or a value is missing."""
    found: dict[tuple[str, ...], list[float]] = {level: [] for level in levels}
    for summary in results.each.values():
        for level in levels:
            entries = [summary["policies"][context[level]].get(metric) for context in contexts]
            values = [entry["value"] for entry in entries if entry is not None and entry["value"] is not None]
            if not values or len(values) < len(contexts):
                return None
            found[level].append(fmean(values))
    return found
