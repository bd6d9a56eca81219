"""The results as one page that opens from disk: nothing is fetched, and everything that is put in is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from mbpo_core.ablation.effects import Estimate, main_effects
from mbpo_core.ablation.results import Results, shown
from mbpo_core.ablation.table import (
    COST_HEADINGS,
    cell_text,
    cost_texts,
    headings,
    sentence,
    verdict,
)
from mbpo_core.evaluation.entries import Entry
from mbpo_core.methods import METHODS
from mbpo_core.pages import data_uri, load_template
from mbpo_core.stages import STAGES

Marked = tuple[str, str]  # text, and "better", "worse" or ""


def render_page(results: Results, pictures: Sequence[tuple[str, str, bytes]], commands: Sequence[str]) -> str:
    """The page as HTML.

    Args:
        results: to show.
        pictures: name, caption and SVG of each, as `all_pictures` gives them.
        commands: that make them again.
    """
    names = {cell: results.title(cell) for cell in results.cells}
    return load_template("mbpo_core.ablation", "results.html.j2").render(
        title=results.testbed,
        sentence=sentence(results).capitalize(),
        missing=results.missing,
        headings=headings(results),
        rows=[
            (name, [(cell_text(results, cell, m), verdict(results, cell, m)) for m in results.metrics])
            for cell, name in names.items()
        ],
        differences=_differences(results),
        pictures={name: (caption, data_uri(picture)) for name, caption, picture in pictures},
        effects=[table for metric in results.plotted for table in _effects(results, metric)],
        cost_headings=[*COST_HEADINGS, *(f"CPU s: {stage}" for stage in _stages(results))],
        costs=[(name, [*cost_texts(results, cell), *_seconds(results, cell)]) for cell, name in names.items()],
        metrics=_everything(results),
        names=list(names.values()),
        lines=[(name, METHODS[cell].line, METHODS[cell].source) for cell, name in names.items() if cell in METHODS],
        commands=commands,
    )


def _differences(results: Results) -> list[tuple[str, list[tuple[str, list[Marked]]]]]:
    """Heading and rows of a table against the base, and of one against the baseline where there is one."""
    tables = [("the base", results.summary["differences"], False)]
    if results.baseline:
        tables.append((results.title(results.baseline), dict(results.against), True))
    return [
        (
            name,
            [
                (
                    results.title(cell),
                    [
                        (_both(results, entries.get(m), m), verdict(results, cell, m, baseline=baseline))
                        for m in results.metrics
                    ],
                )
                for cell, entries in differences.items()
            ],
        )
        for name, differences, baseline in tables
    ]


def _both(results: Results, entry: Entry | None, metric: str) -> str:
    """ "+1.2 [-0.3, +2.7] [-2.0, +4.4]": a difference, its interval over questions, and that over seeds."""
    if entry is None or entry["value"] is None:
        return "–"
    ends = [(entry["low"], entry["high"]), shown(entry)[1:]]
    scale = results.scale(metric)
    texts = [f"[{scale * low:+.1f}, {scale * high:+.1f}]" for low, high in dict.fromkeys(ends)]
    return f"{scale * entry['value']:+.1f} {' '.join(texts)}"


def _effects(results: Results, metric: str) -> list[dict[str, object]]:
    """A table a factor: each level's mean, and how far it is from the first."""
    scale = results.scale(metric)
    return [
        {
            "metric": results.summary["metrics"][metric]["label"],
            "factor": effect.factor,
            "contexts": effect.contexts,
            "rows": [
                (level, _estimate(found, scale), _estimate(effect.differences.get(level), scale, signed=True))
                for level, found in effect.levels.items()
            ],
        }
        for effect in main_effects(results, metric)
    ]


def _estimate(found: Estimate | None, scale: float, *, signed: bool = False) -> str:
    if found is None:
        return ""
    sign = "+" if signed else ""
    text = f"{scale * found.value:{sign}.1f}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{scale * found.low:{sign}.1f}, {scale * found.high:{sign}.1f}]"


def _everything(results: Results) -> list[tuple[str, str, list[Marked]]]:
    """Group, label and cells of every metric."""
    return [
        (
            described["group"],
            described["label"],
            [(cell_text(results, cell, metric), verdict(results, cell, metric)) for cell in results.cells],
        )
        for metric, described in results.summary["metrics"].items()
    ]


def _stages(results: Results) -> list[str]:
    used = {stage for cell in results.cells for stage in results.cost(cell).cpu_seconds}
    return [stage for stage in STAGES if stage in used]


def _seconds(results: Results, cell: str) -> list[str]:
    seconds = results.cost(cell).cpu_seconds
    return [f"{seconds[stage]:.0f}" if stage in seconds else "–" for stage in _stages(results)]
