"""Tables of docs/performance.md, from benchmarks/results.json and benchmarks/profiles.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from docs.filling import HERE, filled


def render_performance() -> str:
    """The page with the tables of what was measured."""
    records = json.loads((HERE.parent / "benchmarks" / "results.json").read_text(encoding="utf-8"))

    def make(name: str) -> str:
        if name == "profiles":
            return _profiles()
        return _measured([row for row in records if row["benchmark"].split("/")[0] == name], TABLES[name])

    return filled("performance.md", make)


def _profiles() -> str:
    rows = json.loads((HERE.parent / "benchmarks" / "profiles.json").read_text(encoding="utf-8"))
    lines = [
        "| " + " | ".join(name.replace("_", " ") for name in rows[0]) + " |",
        "|---|" + "---:|" * (len(rows[0]) - 1),
    ]
    for row in rows:
        cells = (f"{value:.0%}" if isinstance(value, float) else str(value) for value in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


Cell = Callable[[dict[str, Any]], str]


def _measured(records: list[dict[str, Any]], columns: dict[str, tuple[str, Cell]]) -> str:
    """A row for every grid point; a column is a heading and (the benchmark it reads, the cell)."""
    points: dict[str, dict[str, dict[str, Any]]] = {}
    for row in records:
        points.setdefault(json.dumps(row["grid"]), {})[row["benchmark"]] = row
    if not points:
        return ""
    grid = list(json.loads(next(iter(points))))
    lines = ["| " + " | ".join([*(name.replace("_", " ") for name in grid), *columns]) + " |"]
    lines.append("|" + "---:|" * (len(grid) + len(columns)))
    for point, rows in points.items():
        cells = [cell(rows[name]) if name in rows else "" for name, cell in columns.values()]
        lines.append("| " + " | ".join([*map(str, json.loads(point).values()), *cells]) + " |")
    first = records[0]
    peer = f"; {first['peer']} {first['peer_version']}" if first["peer_version"] else ""
    return "\n".join([*lines, "", f"{first['machine']}{peer}; commit {first['commit']}."]) + "\n"


def _ratio(row: dict[str, Any]) -> str:
    return f"{row['ratio']:.1f}" if row["ratio"] >= 2 else f"{row['ratio']:.2f}"


def _bound(row: dict[str, Any]) -> str:
    return f"{row['peer_cpu_s'] / row['ideal_s']:.1f}"


def _seconds(side: str) -> Cell:
    return lambda row: f"{row[f'{side}_cpu_s']:.3f}"


def _mib(row: dict[str, Any]) -> str:
    return f"{row['ours_peak_mib']:.0f} / {row['peer_peak_mib']:.0f}"


def _key(name: str, form: str = "{}") -> Cell:
    return lambda row: form.format(row[name]) if row.get(name) is not None else ""


TABLES: dict[str, dict[str, tuple[str, Cell]]] = {
    "grpo": {
        "sampling ratio": ("grpo/sampling", _ratio),
        "scoring + update ratio": ("grpo/scoring+update", _ratio),
        "whole ratio": ("grpo/whole", _ratio),
        "whole bound": ("grpo/whole", _bound),
        "ours, s": ("grpo/whole", _seconds("ours")),
        "TRL, s": ("grpo/whole", _seconds("peer")),
        "MiB, ours / TRL": ("grpo/whole", _mib),
    },
    "pairs": {
        "ratio": ("pairs/whole", _ratio),
        "bound": ("pairs/whole", _bound),
        "ours, s": ("pairs/whole", _seconds("ours")),
        "TRL, s": ("pairs/whole", _seconds("peer")),
        "MiB, ours / TRL": ("pairs/whole", _mib),
    },
    "sampling": {
        "ratio": ("sampling", _ratio),
        "bound": ("sampling", _bound),
        "ours, s": ("sampling", _seconds("ours")),
        "generate, s": ("sampling", _seconds("peer")),
        "MiB, ours / generate": ("sampling", _mib),
    },
    "mining": {
        "ratio": ("mining", _ratio),
        "ratio, frozen weights": ("mining/frozen peer", _ratio),
        "bound": ("mining", _bound),
        "ours, s": ("mining", _seconds("ours")),
        "foolbox, s": ("mining", _seconds("peer")),
        "log p reached, ours": ("mining", _key("logprob_ours")),
        "log p reached, foolbox": ("mining", _key("logprob_peer")),
    },
    "projection": {
        "ratio": ("projection", _ratio),
        "ours, s": ("projection", _seconds("ours")),
        "full logits, s": ("projection", _seconds("peer")),
        "MiB, ours / full": ("projection", _mib),
        "logits tensor, MiB": ("projection", _key("logits_mib", "{:.0f}")),
    },
    "memory": {
        "peak, MiB": ("memory", _key("ours_peak_mib", "{:.0f}")),
        "over 1,000 samples": ("memory", _key("peak_ratio", "{:.2f}")),
        "rows written": ("memory", _key("rows")),
        "ms a row": ("memory", _key("stage_ms_per_row", "{:.2f}")),
    },
    "pipeline": {
        "seconds after import": ("pipeline", _key("seconds", "{:.1f}")),
        "in the stages": ("pipeline", _key("stages_s", "{:.1f}")),
        "in the store": ("pipeline", _key("store_s", "{:.2f}")),
        "in Prefect": ("pipeline", _key("prefect_s", "{:.2f}")),
        "stages run": ("pipeline", _key("stages_run")),
        "a model was loaded": ("pipeline", _key("policy_module")),
    },
}
