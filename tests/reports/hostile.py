"""A run whose data and models wrote something unpleasant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mbpo_core.stage import Reader
from tests.reports.fake_run import MemoryReader

_KEPT = ("role", "type", "verdict", "blind_verdict", "meta", "policy", "split", "finish_reason", "attack")


def spoiled_run(run: Mapping[str, Reader], text: str) -> dict[str, Reader]:
    """The run with everything that data or models wrote replaced by this text."""
    spoiled: dict[str, Reader] = {}
    for key, source in run.items():
        assert isinstance(source, MemoryReader)
        tables = {name: _hostile(rows, text) for name, rows in source.tables.items()}
        for row in tables["part"]:
            if "meta" in row:
                names = ("prior_answer", "probe", "subject", text)
                row["meta"] = json.dumps({**dict.fromkeys(names, text), "conflict": True, "objects": [text]})
            if "attack" in row:
                names = ("from", "sample", "answer", "cosine", "old", "new", "epsilon")
                how = {**dict.fromkeys(names, text), "crops": [text], "same_question": True}
                row["attack"] = json.dumps({**json.loads(row["attack"]), **how})
        manifest = source.manifest.model_copy(
            update={"config": {"title": text, text: text}, "warnings": [text], "dropped": {text: 3}, "device": text}
        )
        spoiled[key] = replace(source, manifest=manifest, tables=tables)
    # A probe's name reaches labels of the summary.
    summary = json.loads(json.dumps(run["evaluation"].json("summary.json")))
    summary["metrics"]["accuracy"] |= {"label": text, "group": text}
    evaluation = spoiled["evaluation"]
    assert isinstance(evaluation, MemoryReader)
    return spoiled | {"evaluation": replace(evaluation, files={"summary.json": summary})}


def _hostile(value: Any, text: str) -> Any:
    """Every string of a row replaced, but verdicts, messages' fixed words and JSON."""
    if isinstance(value, dict):
        return {key: item if key in _KEPT else _hostile(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [_hostile(item, text) for item in value]
    return text if isinstance(value, str) else value
