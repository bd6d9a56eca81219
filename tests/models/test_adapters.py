"""Adapters: nothing at first, the base when off, the same folded in, and readable by peft."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from PIL.Image import Image
from torch import Tensor

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import ConfigError, DataError
from mbpo_core.models.adapters import (
    adapter_names,
    add_adapters,
    base_of,
    fold_adapters,
    load_adapters,
    save_adapters,
    shrink_adapters,
)
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.scoring import group_logprobs

CPU = PolicyConfig(device="cpu")


def scored(policy: Policy, pictures: list[Image]) -> Tensor:
    """Log-probs of two answers to a question about a picture, packed."""
    answers = [policy.encode_completion(text) for text in ("red", "blue cube")]
    prompt = policy.prepare("what color is the cube?", [pictures[0]])
    return torch.cat([row for rows in group_logprobs(policy, [PromptGroup(prompt, answers)]) for row in rows])


def adapted(folder: Path, **settings: object) -> Policy:
    policy = load_policy(folder, CPU)
    add_adapters(policy, **{"rank": 2, "alpha": 4.0, "targets": [], "seed": 0, **settings})  # type: ignore[arg-type]
    return policy


def stirred(policy: Policy) -> Policy:
    """As if the adapters had been trained."""
    drawn = torch.Generator().manual_seed(1)
    for name in adapter_names(policy.model):
        parameter = policy.model.get_parameter(name)
        parameter.data.copy_(torch.randn(parameter.shape, generator=drawn) * 0.2)
    return policy


@pytest.fixture
def trained(family_folder: Path) -> Policy:
    return stirred(adapted(family_folder))


def test_at_first_and_when_off_the_policy_is_its_base_bit_by_bit(family_folder: Path, pictures: list[Image]) -> None:
    base = scored(load_policy(family_folder, CPU), pictures)
    policy = adapted(family_folder)
    assert torch.equal(scored(policy, pictures), base)
    stirred(policy)
    moved = scored(policy, pictures)
    assert not torch.allclose(moved, base, atol=1e-3), "the adapters take part"
    assert torch.equal(scored(base_of(policy), pictures), base)
    assert torch.equal(scored(policy, pictures), moved), "they are on again"


def test_only_adapters_of_the_language_model_ask_for_gradients(trained: Policy) -> None:
    asking = {name for name, parameter in trained.model.named_parameters() if parameter.requires_grad}
    assert asking == set(adapter_names(trained.model))
    assert {trained.family.part_of(name) for name in asking} == {"language"}


def test_folded_in_they_give_the_same_log_probs(trained: Policy, pictures: list[Image]) -> None:
    before, names = scored(trained, pictures), set(load_policy(Path(trained.where), CPU).model.state_dict())
    fold_adapters(trained)
    assert set(trained.model.state_dict()) == names
    torch.testing.assert_close(scored(trained, pictures), before, atol=1e-4, rtol=1e-4)


def test_peft_loads_them_onto_the_base(trained: Policy, pictures: list[Image], tmp_path: Path) -> None:
    from peft import PeftModel

    save_adapters(trained, tmp_path / "adapter")
    plain = load_policy(Path(trained.where), CPU)
    plain.model = PeftModel.from_pretrained(plain.model, tmp_path / "adapter").base_model.model
    torch.testing.assert_close(scored(plain, pictures), scored(trained, pictures), atol=0, rtol=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny"))


def test_saved_and_loaded_they_are_the_same(tiny: Path, tmp_path: Path) -> None:
    trained = stirred(adapted(tiny))
    save_adapters(trained, tmp_path / "adapter")
    again = adapted(tiny, seed=5)
    load_adapters(again, tmp_path / "adapter")
    for name in adapter_names(again.model):
        assert torch.equal(again.model.get_parameter(name), trained.model.get_parameter(name)), name


def test_half_of_what_they_add(tiny: Path, pictures: list[Image]) -> None:
    whole, half = stirred(adapted(tiny)), stirred(adapted(tiny))
    shrink_adapters(half, 0.5)
    base = load_policy(tiny, CPU).model.state_dict()
    for policy in (whole, half):
        fold_adapters(policy)
    for name, weight in whole.model.state_dict().items():
        expected = base[name] + 0.5 * (weight - base[name])
        torch.testing.assert_close(half.model.state_dict()[name], expected, atol=1e-6, rtol=1e-6)


def test_a_seed_draws_them_anew_and_alike(tiny: Path) -> None:
    one, again, other = adapted(tiny), adapted(tiny), adapted(tiny, seed=1)
    for name in (name for name in adapter_names(one.model) if ".lora_A." in name):
        drawn = one.model.get_parameter(name)
        assert torch.equal(drawn, again.model.get_parameter(name))
        assert not torch.equal(drawn, other.model.get_parameter(name))
        assert 0 < drawn.abs().max() <= drawn.shape[1] ** -0.5


def test_named_layers_alone(tiny: Path) -> None:
    names = adapter_names(adapted(tiny, targets=["q_proj", "v_proj"]).model)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == {"q_proj", "v_proj"}
    assert len(names) == 2 * 2 * 2  # A and B, of two layers' two


def test_a_layer_that_is_not_there(tiny: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora_targets names qkv.*expected some of .*q_proj"):
        adapted(tiny, targets=["q_proj", "qkv"])


def test_adapters_of_another_rank_are_refused(tiny: Path, tmp_path: Path) -> None:
    save_adapters(adapted(tiny), tmp_path / "adapter")
    with pytest.raises(DataError, match=r"differ in \d+ weights.*Keep training.lora_rank"):
        load_adapters(adapted(tiny, rank=3), tmp_path / "adapter")
    shutil.rmtree(tmp_path / "adapter")
    save_adapters(adapted(tiny, targets=["q_proj"]), tmp_path / "adapter")
    with pytest.raises(DataError, match=r"differ in \d+ weights"):
        load_adapters(adapted(tiny), tmp_path / "adapter")


def test_without_peft_it_says_what_to_install(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"peft is not installed. pip install 'mbpo\[lora\]'"):
        adapted(tiny)
