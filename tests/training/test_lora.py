"""Training adapters: they alone move, the reference is the model without them, and rounds go on where they ended."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from mbpo_core.config import TrainingConfig
from mbpo_core.errors import ConfigError, DataError
from mbpo_core.models.adapters import add_adapters, fold_adapters, load_adapters
from mbpo_core.models.llava import LlavaFamily
from mbpo_core.models.policy import load_policy
from mbpo_core.training import loop
from mbpo_core.training.job import JobRows
from mbpo_core.training.rows import ListTable
from tests.training.conftest import Trained, trained, weights
from tests.training.rows import POLICY, job
from tests.training.test_resume import difference, second_round, state_tensors

LORA: dict[str, Any] = {"lora_rank": 4, "lora_alpha": 8.0, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def adapted(rows: JobRows, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A round of hybrid training of adapters."""
    return trained(job(tmp_path_factory.mktemp("lora"), **LORA), rows)


def test_only_linear_layers_of_the_language_model_move(adapted: Trained) -> None:
    base = weights(Path(adapted.job.policy))
    assert adapted.weights.keys() == base.keys()
    moved = {name for name in base if not torch.equal(base[name], adapted.weights[name])}
    layers = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    language = {name for name in base if LlavaFamily.part_of(None, name) == "language"}  # type: ignore[arg-type]
    assert moved == {name for name in language if name.endswith(tuple(f"{one}.weight" for one in layers))}
    assert adapted.summary["trainable_parameters"] == sum(t.numel() for t in state_tensors(adapted).values()) // 3


def test_the_checkpoint_is_the_base_with_the_adapters_beside_it_added(adapted: Trained) -> None:
    policy = load_policy(Path(adapted.job.reference), POLICY)
    add_adapters(policy, rank=4, alpha=8.0, targets=[], seed=99)
    load_adapters(policy, adapted.job.result / "checkpoint" / "adapter")
    fold_adapters(policy)
    published = load_policy(adapted.job.result / "checkpoint", POLICY).model.state_dict()
    assert all(torch.equal(tensor, published[name]) for name, tensor in policy.model.state_dict().items())


def test_the_first_step_sees_no_divergence_and_a_later_one_does(adapted: Trained) -> None:
    first, second = adapted.state.rows
    assert first.kl == pytest.approx(0, abs=1e-9)
    assert second.kl is not None
    assert second.kl > 1e-4


@pytest.mark.parametrize("objective", ["grpo", "chip"])
def test_no_second_model_is_loaded(
    rows: JobRows, image_rows: JobRows, tmp_path: Path, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where divergences from the reference are asked for while the policy learns."""
    loaded = []
    monkeypatch.setattr(loop, "load_policy", lambda *given: loaded.append(given) or load_policy(*given))
    result = trained(job(tmp_path, objective=objective, **LORA), image_rows if objective == "chip" else rows)
    assert len(loaded) == 1
    assert result.state.rows[0].grad_norm > 0


def test_two_rounds_equal_one_of_two_epochs(rows: JobRows, tmp_path: Path) -> None:
    settings = {"use_online": False, "max_grad_norm": 1e9, **LORA}
    pairs = JobRows(ListTable(rows.pairs.slice(0, 2, columns=("sample_id", "images", "prompt", "chosen", "rejected"))))
    whole = trained(job(tmp_path / "whole", epochs=2, **settings), pairs)
    first = trained(job(tmp_path / "0", rounds=2, **settings), pairs)
    second = trained(second_round(first, tmp_path / "1", **settings), pairs)
    for long, short in zip(whole.state.rows, (*first.state.rows, *second.state.rows), strict=True):
        assert short.kl == pytest.approx(long.kl, rel=1e-3, abs=1e-9)  # to the base model, in both rounds
        assert short.grad_norm == pytest.approx(long.grad_norm, rel=1e-3)
    assert difference(second, whole) < 1e-3


def test_the_last_round_publishes_adapters_part_of_the_way(adapted: Trained, rows: JobRows, tmp_path: Path) -> None:
    base = weights(Path(adapted.job.policy))
    half = trained(job(tmp_path, interpolation=0.5, **LORA), rows)
    for name, start in base.items():
        torch.testing.assert_close(half.weights[name], torch.lerp(start, adapted.weights[name], 0.5))


def test_a_policy_without_adapters_is_not_gone_on_with(plain: Trained, rows: JobRows, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"starts from a policy without adapters.*Keep training.lora_rank"):
        trained(second_round(plain, tmp_path, **LORA), rows)


def test_peft_is_asked_for_before_any_model(rows: JobRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(loop, "load_policy", None)  # would fail
    with pytest.raises(ConfigError, match=r"pip install 'mbpo\[lora\]'"):
        trained(job(tmp_path, **LORA), rows)


def test_without_adapters_nothing_is_identity() -> None:
    assert not {"lora_rank", "lora_alpha", "lora_targets", "offload"} & TrainingConfig().identity().keys()
    assert TrainingConfig(lora_alpha=1.0).identity() == TrainingConfig().identity()
    adapted = TrainingConfig(lora_rank=8, lora_alpha=1.0).identity()
    assert (adapted["lora_rank"], adapted["lora_alpha"]) == (8, 1.0)
    assert TrainingConfig(lora_rank=8, lora_alpha=1.0, freeze="language").identity() == adapted, "nobody reads it"
