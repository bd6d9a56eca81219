"""`mbpo smoke` as CI runs it: real stages, Prefect's embedded server, a temporary store."""

from __future__ import annotations

from pathlib import Path

from tests.flows.environment import children_cpu_s, clean, command


def test_smoke_flow(tmp_path: Path) -> None:
    before = children_cpu_s()
    printed = command(["mbpo", "smoke"], tmp_path, clean(tmp_path))
    for kind in ("negatives", "pairs", "rollouts/0", "training/0"):
        assert f"{kind}: " in printed
    assert "second run: all 7 stages cached" in printed
    assert "one stage again: moved training/0 only" in printed
    assert children_cpu_s() - before < 120, "it should take less than three minutes on two cores"
    assert not (tmp_path / "runs").exists(), "the smoke flow must not write to the user's store"
