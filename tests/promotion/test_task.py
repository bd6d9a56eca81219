"""The task: what a pipeline sees of the gate. Inside a flow run it is tested in tests/flows/test_promotion.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbpo_core.errors import ConfigError
from mbpo_core.store import Store
from mbpo_core.store.promotions import decisions
from tasks.promotion import describe_decision, promote
from tasks.run import Run, expect
from tests.promotion.making import answers, checkpoint, config, evaluate


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def test_pointers_move_or_stay_and_the_log_says_why(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(config(), store)
    good, bad = checkpoint(store, "good"), checkpoint(store, "bad")
    promote(run, evaluate(store, good, answers(90, 10)), good)
    promote(run, evaluate(store, bad, answers(50, 50), seed=1), bad)
    assert good.artifact
    assert store.run("r").pointers()["promoted"].content == good.artifact.content
    assert [told.promotes for told in decisions(store, "r")] == [True, False]
    said = capsys.readouterr()
    assert said.out == ""
    assert "is promoted: nothing was promoted before" in said.err
    assert "is not promoted: significantly worse in accuracy" in said.err


def test_planning_promotes_nothing_and_refuses_unknown_metrics(store: Store) -> None:
    policy = checkpoint(store, "a")
    evaluation = evaluate(store, policy, answers(9, 1))
    promote(Run(config(), store, perform=expect), evaluation, policy)
    promote(Run(config(promotion={"metrics": []}), store), evaluation, policy)
    assert store.runs() == []
    assert decisions(store, "r") == []
    with pytest.raises(ConfigError, match="acuracy"):
        promote(Run(config(promotion={"metrics": ["acuracy"]}), store, perform=expect), evaluation, policy)


def test_names_from_the_data_cannot_write_markdown(store: Store) -> None:
    run = Run(config("a|b*<x>_accuracy"), store)
    policy = checkpoint(store, "a")
    promote(run, evaluate(store, policy, answers(9, 1, probe="a|b*<x>")), policy)
    (decision,) = decisions(store, "r")
    note = describe_decision("r", decision)
    row = next(line for line in note.splitlines() if "90.0" in line)
    assert r"A\|b\*&lt;x&gt;" in row
    assert row.replace(r"\|", "").count("|") == 6
