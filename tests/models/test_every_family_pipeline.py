"""The whole method on a random tiny model of every family: mined pairs, rollouts, two steps, evaluation, report.

That a family's numbers are right is for the contract's tests; this one sees that nothing in any stage knows another
family's shapes.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from flows.paths import config_file
from flows.pipeline import follow_method
from mbpo_core.config import load_config
from mbpo_core.models.families import FAMILIES
from mbpo_core.models.resolve import resolve_model
from mbpo_core.store import Store
from tasks.run import Run
from tests.models.tiny import TINY

QUICK = ("gemma3", "qwen2_5_vl")
"""Of `make test`: windows and image blocks, and positions on three axes; LLaVA's turn is the smoke flow."""

SETTINGS = [
    "samples.demo_offline=8", "samples.demo_online=6", "samples.demo_dev=1", "samples.demo_eval=1",
    "negatives.steps=1", "negatives.max_new_tokens=6",
    # A random model's answers fail every filter of taste.
    "negatives.min_distinct=0", "negatives.min_length_ratio=0", "negatives.max_length_ratio=100",
    "rollouts.prompts=4", "rollouts.group_size=3", "rollouts.max_new_tokens=6",
    "training.pairs_per_step=16", "training.groups_per_step=4", "training.inner_steps=2",
    "evaluation.max_new_tokens=6", "evaluation.bootstrap=100",
]  # fmt: skip


@pytest.mark.parametrize(
    "model_type", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(FAMILIES)]
)
def test_the_whole_method_runs(tmp_path: Path, model_type: str) -> None:
    folder = TINY[model_type](tmp_path / "model")
    run_name = model_type.replace("_", "-")
    config = load_config(config_file("smoke"), [f"policy.model={folder}", f"run={run_name}", *SETTINGS])
    run = Run(config, Store(tmp_path / "store"))
    follow_method(run)
    for key in ("negatives", "pairs", "rollouts/0"):
        reader = run.store.reader(run.latest(key))
        assert reader.count() > 0, key
        assert not {"unreadable_image", "prompt_too_long"}.intersection(reader.manifest.dropped), key
    steps = list(run.store.reader(run.latest("training/0")).rows())
    assert len(steps) == 2
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in steps)
    predictions = list(run.store.reader(run.latest("evaluation")).rows(columns=["policy", "sample_id"]))
    asked: dict[str, set[str]] = {row["policy"]: set() for row in predictions}
    for row in predictions:
        asked[row["policy"]].add(row["sample_id"])
    base, trained = asked.values()
    assert base == trained
    assert list(Path(run.latest("report").uri).rglob("*.html"))
    artifact = Path(run.latest("training/0").uri)
    (checkpoint,) = {path.parent for path in artifact.rglob("model.safetensors") if path.parent.name == "checkpoint"}
    assert resolve_model(config.policy.model_copy(update={"model": str(checkpoint)})) == checkpoint
