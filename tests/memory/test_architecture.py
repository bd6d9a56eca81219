"""A model's numbers from its config.json alone: published counts, and those of loaded models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from mbpo_core.config import PolicyConfig, TrainingConfig
from mbpo_core.errors import ModelError
from mbpo_core.memory.architecture import Architecture, read_architecture
from mbpo_core.memory.states import trained_parameters
from mbpo_core.memory.workload import Prompts, read_prompts
from mbpo_core.models.policy import load_policy
from tests.memory.published import PARAMETERS
from tests.models.tiny import TINY


def test_the_large_model_has_as_many_parameters_as_published(architecture: Architecture) -> None:
    assert architecture.total == PARAMETERS
    assert architecture.parameters["head"] == architecture.parameters["embedding"] == 152_064 * 3_584
    # A layer's projections: q, k, v with biases, o; gate, up, down; two norms. And the norm behind all layers.
    layer = 3584 * (3584 + 512 + 512 + 3584) + 3584 + 2 * 512 + 3 * 3584 * 18944 + 2 * 3584
    assert architecture.parameters["language"] == 28 * layer + 3584


def test_adapters_have_a_rank_of_inputs_and_outputs_a_layer(architecture: Architecture) -> None:
    a_layer = (3584 + 3584) + 2 * (3584 + 512) + (3584 + 3584) + 3 * (3584 + 18944)
    assert trained_parameters(architecture, TrainingConfig(lora_rank=16)) == 16 * 28 * a_layer


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "qwen3_vl_moe"])
def test_counts_are_those_of_the_loaded_model(family: str, tmp_path: Path) -> None:
    folder = TINY[family](tmp_path / "model")
    found, policy = read_architecture(folder), load_policy(folder, PolicyConfig(device="cpu"))
    assert found.total == sum(p.numel() for p in policy.model.parameters())
    assert found.tied == (family == "qwen2_vl")
    for freeze in get_args(TrainingConfig.model_fields["freeze"].annotation):
        names = set(policy.unfreeze(freeze))
        trained = sum(p.numel() for name, p in policy.model.named_parameters() if name in names)
        assert trained_parameters(found, TrainingConfig(freeze=freeze)) == trained


def test_a_picture_without_a_processor_is_cut_as_the_family_does(folder: Path, architecture: Architecture) -> None:
    # 1024 x 768 pixels go to the nearest multiples of 28, 1036 x 756: 74 x 54 patches, four a position.
    prompts = read_prompts(folder, architecture, (1024, 768), 64)
    assert prompts == Prompts(74 * 54, 37 * 27, 74 * 54 * 3 * 2 * 14 * 14, 64)
    assert prompts.tokens == 999 + 64


@pytest.mark.parametrize(
    ("family", "patches", "features"),
    [("llava", 6 * 6, 36), ("qwen2_5_vl", 12 * 12, 36)],
)
def test_a_picture_with_a_processor_is_read_by_it(family: str, patches: int, features: int, tmp_path: Path) -> None:
    folder = TINY[family](tmp_path / "model")
    prompts = read_prompts(folder, read_architecture(folder), (48, 48), 5)
    assert (prompts.patches, prompts.features, prompts.tokens) == (patches, features, features + 5)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config.json of the model cannot be read"):
        read_architecture(tmp_path)
    folder = TINY["llava"](tmp_path / "model")
    found = read_architecture(folder)
    for name in ("tokenizer_config.json", "processor_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="no processor"):
        read_prompts(folder, found, (48, 48), 5)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    with pytest.raises(ModelError, match="no adapter"):
        read_architecture(folder)
