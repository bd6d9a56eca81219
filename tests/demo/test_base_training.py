"""Base training: a very short run learns, is reproducible, and writes folders that the Auto classes load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from mbpo_core.demo.base_training import BaseTrainingConfig, patch_labels, train_base
from mbpo_core.demo.measure import answers
from mbpo_core.demo.objects import COLORS, OBJECTS
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.demo.probes import LARGE_PROBES, SMALL_PROBES
from mbpo_core.demo.scenes import Placed, Scene

SHORT = BaseTrainingConfig(
    alignment_steps=12,
    alignment_batch=16,
    text_steps=12,
    language_steps=24,
    drill_steps=4,
    drill_batch=4,
    soft_steps=4,
    batch=4,
)
ONE_EACH = DemoCounts(offline=0, online=0, eval_probe=0, eval_small_probe=0, dev_probe=1, dev_small_probe=1)


def test_a_short_run_learns_and_reloads(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    summary = train_base(tmp_path, SHORT, lambda stage, step, steps_, loss: steps.append((stage, step, steps_)))
    assert steps[-1] == ("soft", 4, 4)
    assert len(steps) == 12 + 12 + 24 + 4 + 4
    for stage in ("alignment", "text", "language"):
        assert summary[f"{stage}_last_loss"] < summary[f"{stage}_first_loss"], stage
    for name in ("absolute", "soft"):
        assert (tmp_path / name / "model.safetensors").stat().st_size <= 8e6
        texts = answers(tmp_path / name, list(demo_samples("uniform", 0, ONE_EACH)))
        assert len(texts) == len(LARGE_PROBES) + len(SMALL_PROBES)


def test_equal_seeds_give_equal_weights(tmp_path: Path) -> None:
    tiny = SHORT.model_copy(
        update={"alignment_steps": 2, "text_steps": 2, "language_steps": 2, "drill_steps": 1, "soft_steps": 1}
    )
    for name in ("one", "two"):
        train_base(tmp_path / name, tiny)
    files = [(tmp_path / name / "absolute" / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_patch_labels_follow_the_cells() -> None:
    scene = Scene((Placed("cat", "red", "top right"), Placed("key", "blue", "bottom left")), 0)
    objects, colors, heights, sides = (labels.view(6, 6) for labels in patch_labels([scene]))
    assert torch.equal(objects[:3, 3:], torch.full((3, 3), OBJECTS.index("cat")))
    assert torch.equal(objects[3:, :3], torch.full((3, 3), OBJECTS.index("key")))
    assert torch.equal(objects[:3, :3], torch.full((3, 3), len(OBJECTS)))
    assert torch.equal(colors[3:, 3:], torch.full((3, 3), len(COLORS)))
    assert (int(heights[0, 5]), int(sides[0, 5]), int(heights[5, 5])) == (0, 1, 2)
    assert int(colors[0, 5]) == list(COLORS).index("red")


def test_config_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        BaseTrainingConfig.model_validate({"steps": 3})
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        BaseTrainingConfig(language_steps=0)
