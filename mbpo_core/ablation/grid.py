"""A grid: which settings are compared. A cell is one level of every factor; a trial is a cell with a seed.

A comparison of methods is the grid whose only factor is `method`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from mbpo_core.config import PipelineConfig, Section, load_config, overlaid
from mbpo_core.errors import ConfigError
from mbpo_core.stage import BASE

COLUMNS = (
    "testbed", "cell", "seed", "metric", "value", "low", "high", "seed_low", "seed_high", "n", "train_tokens",
    "sampled_tokens", "attack_passes",
)  # fmt: skip
"""Columns of the results table that a factor cannot be called by."""

_WORD = r"^[a-z][a-z0-9_]{0,31}$"
_LEVEL = r"^[a-z0-9][a-z0-9._-]{0,31}$"
_OURS = ("run", "seed", "baselines")  # settings that the grid itself gives
OVERVIEW = "overview"  # the folder of what all testbeds of a grid have in common, beside theirs

Levels = dict[str, str]


@dataclass(frozen=True)
class Cell:
    """One combination of settings.

    Attributes:
        name: in tables and run names.
        levels: of every factor, in the grid's order.
        overrides: section.field=value, over the run config that all cells have in common.
    """

    name: str
    levels: Mapping[str, str]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """One cell with one seed: a run of its own."""

    cell: str
    seed: int
    config: PipelineConfig


class Grid(Section):
    """What is compared. Without product, sweep and cells, all levels of all factors meet one another."""

    name: str = Field(pattern=_LEVEL, description="Of the grid, in the runs' names.")
    testbed: str = Field("", max_length=64, description="What the results call it; the grid's name if empty.")
    testbeds: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Testbed, settings: the same cells on each. Under `factors` settings of levels there.",
    )
    config: str = Field(description="Run config that all cells have in common: a path, or the name of a shipped one.")
    seeds: list[int] = Field(min_length=1, max_length=100, description="Every cell runs once with each.")
    tokens: int = Field(
        0, ge=0, description="Token positions that training runs forward and backward; 0 takes the run config's."
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="Laid over the run config, nested as it is.")
    factors: dict[str, dict[str, dict[str, Any]]] = Field(
        min_length=1, description="Factor, level, settings; the first level is what a cell has that names none."
    )
    product: list[str] = Field(default_factory=list, description="Factors whose levels all meet one another.")
    sweep: list[str] = Field(default_factory=list, description="Factors moved one at a time, the others at the first.")
    cells: list[Levels] = Field(default_factory=list, description="Further cells: factor and level.")
    exclude: list[Levels] = Field(default_factory=list, description="Cells left out: those with all of these levels.")
    tuned: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Settings of single cells, by name.")
    baseline: str = Field("", description="Cell that differences are also taken to.")
    plots: list[str] = Field(
        default_factory=lambda: ["prior_conflict_accuracy", "neutral_accuracy"],
        description="Metrics that plots show; the first against the second in the Pareto plot.",
    )
    pareto: list[str] = Field(default_factory=list, description="Factors whose cells are one panel of the Pareto plot.")

    @field_validator("factors", "cells", "exclude", mode="before")
    @classmethod
    def _levels_are_text(cls, value: Any) -> Any:
        """YAML reads a level called 8 as a number."""
        if isinstance(value, dict):
            return {
                k: {str(name): s or {} for name, s in v.items()} if isinstance(v, dict) else v for k, v in value.items()
            }
        if isinstance(value, list):
            return [{k: str(v) for k, v in one.items()} if isinstance(one, dict) else one for one in value]
        return value

    @model_validator(mode="after")
    def _names_fit(self) -> Grid:
        _refuse_names(self.factors)
        for factor in (*self.product, *self.sweep, *self.pareto):
            if factor not in self.factors:
                raise ValueError(f"there is no factor {factor!r}; factors are {', '.join(self.factors)}")
        _refuse_unknown(self.factors, [*self.cells, *self.exclude])
        if wrong := [name for name in self.testbeds if not re.fullmatch(_LEVEL, name) or name == OVERVIEW]:
            allowed = f"small letters, digits, dots and dashes, and not {OVERVIEW}"
            raise ValueError(f"testbeds {', '.join(wrong)} cannot be named so: {allowed}")
        there = [_levels_of(settings) for settings in self.testbeds.values()]
        _refuse_unknown(
            self.factors, [{f: level} for factors in there for f, levels in factors.items() for level in levels]
        )
        levels_settings = [
            s for factors in (self.factors, *there) for levels in factors.values() for s in levels.values()
        ]
        for settings in (self.settings, *self.testbeds.values(), *levels_settings):
            if ours := [name for name in _OURS if name in settings]:
                raise ValueError(f"{', '.join(ours)} cannot be a setting here: the grid itself gives it")
        names = [cell.name for cell in self.all_cells()]
        if not names:
            raise ValueError("every cell is excluded")
        if BASE in names or len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("cells and seeds must differ from one another, and no cell may be called base")
        if unknown := [name for name in (*self.tuned, self.baseline) if name and name not in names]:
            raise ValueError(f"there is no cell {', '.join(unknown)}; cells are {', '.join(names)}")
        return self

    def on(self, testbeds: Sequence[str] = ()) -> list[Grid]:
        """The grid of each of these testbeds; of all where none is asked for, and itself where it names none.

        Raises:
            ConfigError: there is no such testbed.
        """
        if unknown := [name for name in testbeds if name not in self.testbeds]:
            raise ConfigError(
                f"the grid {self.name} has no testbed {', '.join(unknown)}",
                where="--testbed",
                expected=f"some of {', '.join(self.testbeds)}" if self.testbeds else "none: it names no testbeds",
                remedy="Leave --testbed out for all of them.",
            )
        return [self._there(name) for name in testbeds or self.testbeds] or [self]

    def _there(self, testbed: str) -> Grid:
        settings = {name: value for name, value in self.testbeds[testbed].items() if name != "factors"}
        there = _levels_of(self.testbeds[testbed])
        factors = {
            factor: {level: overlaid(given, there.get(factor, {}).get(level, {})) for level, given in levels.items()}
            for factor, levels in self.factors.items()
        }
        return self.model_copy(
            update={
                "name": f"{self.name}-{testbed}",
                "testbed": testbed,
                "settings": overlaid(self.settings, settings),
                "factors": factors,
                "testbeds": {},
            }
        )

    def all_cells(self) -> list[Cell]:
        """Every cell, in the order in which it is first asked for."""
        levels: list[Levels] = []
        for asked in self._asked():
            if asked not in levels and not any(asked.items() >= out.items() for out in self.exclude):
                levels.append(asked)
        return [self._cell(one) for one in levels]

    def _asked(self) -> Iterator[Levels]:
        first = {factor: next(iter(levels)) for factor, levels in self.factors.items()}
        crossed = self._crossed()
        if crossed:
            for combination in itertools.product(*(self.factors[factor] for factor in crossed)):
                yield {**first, **dict(zip(crossed, combination, strict=True))}
        for factor in self.sweep:
            yield from ({**first, factor: level} for level in self.factors[factor])
        yield from ({**first, **cell} for cell in self.cells)

    def _crossed(self) -> list[str]:
        return self.product or ([] if self.sweep or self.cells else list(self.factors))

    def _cell(self, levels: Levels) -> Cell:
        words, overrides = [], []
        for factor, level in levels.items():
            if factor in self._crossed() or len(levels) == 1:
                words.append(level)
            elif level != next(iter(self.factors[factor])):
                words.append(f"{factor}-{level}")
            overrides += flat(self.factors[factor][level])
        name = ".".join(words) or "default"
        return Cell(name, levels, (*overrides, *flat(self.tuned.get(name, {}))))


def load_grid(path: Path) -> Grid:
    """Read a grid file.

    Raises:
        ConfigError: it is missing or not YAML, or something in it is unknown; names every such field.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the grid: {error.strerror}", where=str(path)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", where=str(path), remedy="Mend the file.") from error
    return build_grid(data, where=str(path))


def build_grid(data: Any, *, where: str) -> Grid:
    """Check a grid's fields; see `load_grid`."""
    if not isinstance(data, dict):
        raise ConfigError("the grid is not a mapping", where=where, remedy="See docs/ablation.md.")
    try:
        return Grid.model_validate(data)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'grid'}: {one['msg']}" for one in error.errors())
        raise ConfigError(wrong, where=where, remedy="docs/ablation.md says how to write a grid.") from error


def make_trials(
    grid: Grid,
    path: Path,
    *,
    prefix: str = "ablation",
    changes: Sequence[str] = (),
    tuned: Mapping[str, Sequence[str]] | None = None,
) -> list[Trial]:
    """A run a cell and seed, checked, and for each seed one of the base model: seed after seed, the base first.

    Args:
        grid: to lay out.
        path: of the run config that all have in common.
        prefix: of the runs' names: <prefix>-<grid>-<seed>.<cell>.
        changes: section.field=value, for all cells, over the grid's own settings.
        tuned: the same for single cells, over everything else.

    Raises:
        ConfigError: the settings of a cell are not valid, or not all cells are asked the same of the same model.
    """
    common = [*flat(grid.settings), *([f"training.token_budget={grid.tokens}"] if grid.tokens else []), *changes]
    trials = []
    for seed in grid.seeds:
        ours = ["baselines=[]", f"seed={seed}"]
        configs = {
            cell.name: load_config(
                path,
                [
                    *common,
                    *cell.overrides,
                    *(tuned or {}).get(cell.name, ()),
                    *ours,
                    f"run={_run(prefix, grid, seed, cell.name)}",
                ],
            )
            for cell in grid.all_cells()
        }
        base = next(iter(configs.values())).model_copy(update={"run": _run(prefix, grid, seed, BASE)})
        _refuse_unequal(base, configs)
        trials += [Trial(BASE, seed, base), *(Trial(name, seed, config) for name, config in configs.items())]
    return trials


def flat(settings: Mapping[str, Any], before: str = "") -> list[str]:
    """Nested settings as overrides: {"training": {"beta": 0.1}} is ["training.beta=0.1"]."""
    changes = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            changes += flat(value, f"{before}{name}.")
        else:
            changes.append(f"{before}{name}={json.dumps(value)}")
    return changes


def _run(prefix: str, grid: Grid, seed: int, cell: str) -> str:
    return f"{prefix}-{grid.name}-{seed}.{cell}"


def _refuse_names(factors: Mapping[str, Mapping[str, Any]]) -> None:
    for factor, levels in factors.items():
        wrong = [name for name in levels if not re.fullmatch(_LEVEL, name)]
        if not levels or wrong or not re.fullmatch(_WORD, factor) or factor in COLUMNS or factor.startswith("cpu_"):
            raise ValueError(
                f"factor {factor!r} with levels {', '.join(levels) or 'none'} cannot be named so: letters, digits and "
                "underscores, for levels also dots and dashes, and no factor like a column of the results"
            )


def _levels_of(testbed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Factor, level, settings, that a testbed lays over the grid's own."""
    factors = testbed.get("factors", {})
    if not isinstance(factors, Mapping) or not all(isinstance(levels, Mapping) for levels in factors.values()):
        raise ValueError("factors of a testbed are a mapping of factor, level, settings")
    return {factor: {str(level): given or {} for level, given in levels.items()} for factor, levels in factors.items()}


def _refuse_unknown(factors: Mapping[str, Mapping[str, Any]], several: Sequence[Levels]) -> None:
    for levels in several:
        for factor, level in levels.items():
            if level not in factors.get(factor, {}):
                raise ValueError(f"there is no level {level!r} of a factor {factor!r}")


def _refuse_unequal(base: PipelineConfig, configs: Mapping[str, PipelineConfig]) -> None:
    """One base model and one set of questions for all, or differences would say nothing."""
    for name, config in configs.items():
        for section in ("policy", "evaluation"):
            if getattr(config, section).identity() != getattr(base, section).identity():
                raise ConfigError(
                    f"cell {name} changes section {section}",
                    expected="the same base model and the same questions for every cell of a grid",
                    remedy="Write a grid for each base model, with a name of its own.",
                )
