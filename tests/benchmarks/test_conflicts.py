"""Pairs that contradict the prior, counted in a store that answers for every run of the grid."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import conflicts

ABOUT = [("color", True), ("color", False), ("caption", True), ("color", True)]


class Stand:
    """A store in which run S.source.gain has S + 2 pairs, the first of `ABOUT`."""

    def __init__(self, root: str) -> None:
        assert root == "runs"

    def run(self, name: str) -> Any:
        seed = int(name.removeprefix("ablation-sources-sources-soft-natural-").split(".")[0])
        return SimpleNamespace(pointers=lambda: {"pairs": seed + 2})

    def reader(self, count: int) -> Any:
        rows = [{"meta": json.dumps({"topic": topic, "conflict": conflict})} for topic, conflict in ABOUT[:count]]
        return SimpleNamespace(rows=lambda columns: rows)


def test_only_colours_that_contradict_the_prior_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(conflicts, "Store", Stand)
    conflicts.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 4 * 4
    assert lines[2] == "| adversarial | none | 2, 3, 4 | 4 |"
