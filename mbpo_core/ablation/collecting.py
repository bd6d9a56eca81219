"""From the runs of a grid's trials to its results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from mbpo_core.ablation.costs import Cost, cost_of
from mbpo_core.ablation.grid import Grid, Trial
from mbpo_core.ablation.results import Results, summarize_results
from mbpo_core.config import PipelineConfig
from mbpo_core.errors import DataError
from mbpo_core.evaluation.outcomes import COLUMNS
from mbpo_core.stage import BASE, ArtifactRef, Row
from mbpo_core.store import Store

Made = Mapping[str, ArtifactRef]


def collect(store: Store, grid: Grid, trials: Sequence[Trial], made: Mapping[str, Made]) -> Results:
    """Put together what has been made; a cell counts once all its seeds are there.

    Args:
        store: where the artifacts are.
        grid: that the trials lay out.
        trials: all of them.
        made: of each run that is finished, by its name, the artifacts by run pointer.

    Raises:
        DataError: there is nothing to compare yet.
    """
    missing = [f"{trial.cell} with seed {trial.seed}" for trial in trials if trial.config.run not in made]
    partial = {trial.cell for trial in trials if trial.config.run not in made}
    whole = [trial for trial in trials if trial.cell not in partial]
    if BASE in partial or len({trial.cell for trial in whole}) < 2:
        raise DataError(
            "there is nothing to compare: the base model, or every cell, lacks a seed",
            where=grid.name,
            remedy="Mend what the failed cells name, and run the same command again: what is made is kept.",
        )
    costs: dict[str, dict[int, Cost]] = {}
    for trial in whole:
        costs.setdefault(trial.cell, {})[trial.seed] = cost_of(store, made[trial.config.run])
    asked = {
        seed: _Answers(store, [(one.cell, made[one.config.run]) for one in whole if one.seed == seed])
        for seed in grid.seeds
    }
    config = next(trial.config for trial in whole)
    return summarize_results(grid, asked, costs, settings_of(config), missing)


def settings_of(config: PipelineConfig) -> dict[str, float]:
    """How the statistics are made: what every cell's evaluation has in common."""
    return {"confidence": config.evaluation.confidence, "bootstrap": config.evaluation.bootstrap}


class _Answers:
    """Predictions of all policies of a seed, named by their cells, without images; read anew each time."""

    def __init__(self, store: Store, made: Sequence[tuple[str, Made]]) -> None:
        self._readers = [(cell, store.reader(artifacts["evaluation"])) for cell, artifacts in made]

    def __iter__(self) -> Iterator[Row]:
        return chain.from_iterable(
            ({**row, "policy": cell} for row in reader.rows(columns=COLUMNS)) for cell, reader in self._readers
        )
