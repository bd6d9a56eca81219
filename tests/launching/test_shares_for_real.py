"""Stages with a model, in two processes: equal bytes, and no model in the process that puts the shares together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mbpo_core.config import (
    EvaluationConfig,
    LaunchConfig,
    NegativesConfig,
    PolicyConfig,
    RolloutsConfig,
    SamplesConfig,
)
from mbpo_core.execution import execute, plan
from mbpo_core.models.digest import import_policy
from mbpo_core.progress import NullProgress
from mbpo_core.stage import ArtifactRef
from mbpo_core.stages import STAGES
from mbpo_core.store import Store

POLICY = PolicyConfig(device="cpu")
SETTINGS: dict[str, Any] = {
    "samples": SamplesConfig(demo_offline=12, demo_online=6, demo_dev=1, demo_eval=4),
    "negatives": NegativesConfig(steps=2, batch_size=1, part_rows=4, max_new_tokens=8, max_dropped_share=1.0),
    "rollouts": RolloutsConfig(prompts=6, group_size=3, temperature=1.5, batch_size=1, part_rows=2),
    "evaluation": EvaluationConfig(max_new_tokens=8, bootstrap=100, batch_size=8, part_rows=8, per_probe=1),
}


def made(store: Store, name: str, inputs: dict[str, ArtifactRef], processes: int = 1) -> ArtifactRef:
    """One stage; the evaluation compares two policies."""
    policies = {"policy": import_policy(POLICY)} if name != "samples" else {}
    if name == "evaluation":
        other = import_policy(PolicyConfig(model="demo:soft", device="cpu"))
        policies = {"base": policies["policy"], "trained": other.model_copy(update={"label": "trained"})}
    launch = LaunchConfig(processes=processes)
    planned = plan(store, STAGES[name], SETTINGS[name], inputs, policies, POLICY, launch=launch)
    return execute(store, planned, NullProgress())


@pytest.fixture
def no_model_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model in this process fails."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the workers have made all parts; nothing is left for a model")

    for place in ("models.policy", "negatives.stage", "rollouts.engines.opening"):
        monkeypatch.setattr(f"mbpo_core.{place}.load_policy", refuse)


@pytest.fixture(scope="module")
def inline() -> dict[str, ArtifactRef]:
    """Every stage made in this process."""
    store = Store("memory://shares-for-real")
    refs = {"samples": made(store, "samples", {})}
    for name in ("negatives", "rollouts", "evaluation"):
        refs[name] = made(store, name, {"samples": refs["samples"]})
        assert len(store.reader(refs[name]).manifest.parts) >= 3, "something to share"
    return refs


def test_answers_are_of_unequal_lengths(inline: dict[str, ArtifactRef]) -> None:
    """So that of two processes one has done sampling before the other."""
    groups = list(Store("memory://shares-for-real").reader(inline["rollouts"]).rows(columns=["completions"]))
    lengths = [max(len(one["token_ids"]) for one in group["completions"]) for group in groups]
    assert len(set(lengths)) > 1
    assert sum(lengths[::2]) != sum(lengths[1::2])


@pytest.mark.slow
def test_two_processes_make_equal_artifacts(
    tmp_path: Path, inline: dict[str, ArtifactRef], no_model_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBPO_NODE_FOLDER", str(tmp_path / "node"))
    store = Store(tmp_path / "store")
    refs = {"samples": made(store, "samples", {})}
    for name in ("negatives", "rollouts", "evaluation"):
        refs[name] = made(store, name, {"samples": refs["samples"]}, processes=2)
        assert (refs[name].digest, refs[name].content) == (inline[name].digest, inline[name].content)
