"""The benchmark on a random Qwen2.5-VL: it is what it says, its run config is valid, its estimate bounds its peaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.qwen import SHAPES, save_model, text_tokens
from benchmarks.scale import QUESTION, estimates, perform, settings, write_input
from mbpo_core.memory.architecture import read_architecture
from mbpo_core.memory.workload import read_prompts
from mbpo_core.models.policy import load_policy


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale")
    write_input(folder / "input.parquet", SHAPES["tiny"], 10)
    save_model(folder / "model", SHAPES["tiny"], "float32")
    return folder


@pytest.mark.slow
def test_prompts_are_as_long_as_the_estimate_takes_them(work: Path) -> None:
    from PIL import Image

    folder = work / "model"
    assumed = read_prompts(folder, read_architecture(folder), SHAPES["tiny"].picture, text_tokens(folder, QUESTION))
    policy = load_policy(folder, settings("tiny", folder, work / "input.parquet", ["policy.device=cpu"]).policy)
    prompt = policy.prepare(QUESTION, [Image.new("RGB", SHAPES["tiny"].picture)])
    assert len(prompt.token_ids) == assumed.tokens
    assert len(prompt.images[0].pixel_values) == assumed.patches


@pytest.mark.slow
def test_rollouts_take_about_what_the_estimate_says(work: Path) -> None:
    changes = ["policy.device=cpu", "rollouts.group_size=4"]
    assert perform("samples", "tiny", work, changes)["rows"] == 10
    found = perform("rollouts", "tiny", work, changes)
    expected = estimates(settings("tiny", work / "model", work / "input.parquet", changes))["rollouts"]
    assert found["tokens"] == found["rows"] * 4 * 16
    # The meter also counts processed pictures, which lie in the host's memory where there is an accelerator.
    assert 0.7 * expected < found["peak_mib"] < 1.35 * expected


def test_both_sizes_have_a_valid_config(tmp_path: Path) -> None:
    for size in SHAPES:
        config = settings(size, tmp_path / "model", tmp_path / "input.parquet", ["training.zero_stage=3"])
        assert config.training.zero_stage == 3
        assert config.policy.dtype == ("bfloat16" if size == "large" else "float32")
