"""Low-rank adapters (LoRA) on a policy's language model, by peft.

    y = W x + (alpha / rank) B A x,    A drawn at random, B zero at first

With the adapters off the policy is its base model bit by bit, so that no second model is kept as the reference.

Source: LoRA arXiv:2106.09685, section 4.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from mbpo_core.errors import ConfigError, DataError
from mbpo_core.models.family import Family
from mbpo_core.models.optional import require_peft
from mbpo_core.models.policy import Policy
from mbpo_core.seeds import derive_seed

ADAPTER_FOLDER = "adapter"
"""Inside a checkpoint: the adapters alone, in peft's format."""

_NAME = "default"  # peft's, of the only adapter there is
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # before every name in peft's files


def add_adapters(policy: Policy, *, rank: int, alpha: float, targets: Sequence[str], seed: int) -> None:
    """Put an adapter before each of the language model's linear layers, in place; at first it changes nothing.

    Args:
        policy: frozen; afterwards the adapters alone ask for gradients.
        rank: of A and B.
        alpha: see the equation above.
        targets: last names of the layers; all if empty.
        seed: of A, which is the same on every device and in every process.

    Raises:
        ConfigError: peft is missing, or the language model has no linear layer of a name.
    """
    require_peft()
    from peft import LoraConfig, inject_adapter_in_model

    layer = rf"{re.escape(_language_prefix(policy))}(\..+)?\.({'|'.join(map(re.escape, _targets(policy, targets)))})"
    config = LoraConfig(r=rank, lora_alpha=cast("int", alpha), target_modules=layer, lora_dropout=0.0, bias="none")
    inject_adapter_in_model(config, policy.model, _NAME)
    policy.model.eval()
    with torch.no_grad():
        for name in adapter_names(policy.model):
            parameter = policy.model.get_parameter(name)
            parameter.data = parameter.data.to(policy.dtype)
            if ".lora_A." in name:
                bound = 1 / math.sqrt(parameter.shape[1])
                drawn = torch.Generator().manual_seed(derive_seed(seed, "training", "lora", name))
                parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=drawn))


def adapter_names(model: Any) -> list[str]:
    """Names of the adapters' parameters; none where there are no adapters."""
    return [name for name, _ in model.named_parameters() if ".lora_A." in name or ".lora_B." in name]


@contextmanager
def adapters_off(model: Any) -> Iterator[None]:
    """While it lasts the model is its base."""
    layers = list(_layers(model).values())
    for layer in layers:
        layer._disable_adapters = True  # enable_adapters would freeze the parameters as well
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def base_of(policy: Policy) -> Policy:
    """The policy without its adapters, as a policy over the same model: no weight is copied."""
    return replace(policy, family=cast("Family", _WithoutAdapters(policy.family)))


def save_adapters(policy: Policy, folder: Path) -> None:
    """Write the adapters so that `PeftModel.from_pretrained(base, folder)` loads them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    weights = {name: policy.model.get_parameter(name) for name in adapter_names(policy.model)}
    policy.model.peft_config[_NAME].save_pretrained(folder)
    save_file({_stored(name): one.detach().cpu().contiguous() for name, one in weights.items()}, folder / _WEIGHTS)


def load_adapters(policy: Policy, folder: Path) -> None:
    """Put saved adapters in the place of those that `add_adapters` made.

    Raises:
        DataError: they were saved of other layers or with another rank.
    """
    from safetensors.torch import load_file

    saved = load_file(folder / _WEIGHTS)
    mine = {_stored(name): policy.model.get_parameter(name) for name in adapter_names(policy.model)}
    wrong = sorted(saved.keys() ^ mine.keys()) or [n for n in mine if saved[n].shape != mine[n].shape]
    if wrong:
        raise DataError(
            f"the saved adapters and the settings differ in {len(wrong)} weights, first {wrong[0]}",
            where=str(folder),
            remedy="Keep training.lora_rank and training.lora_targets the same over all rounds.",
        )
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(saved[name])


def fold_adapters(policy: Policy) -> None:
    """Add the adapters to the weights they stand before, in place, and take them out: W + (alpha / rank) B A.

    Added in float32 and rounded once.
    """
    for name, layer in _layers(policy.model).items():
        base, down, up = layer.get_base_layer(), layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
        with torch.no_grad():
            base.weight.copy_(base.weight.float() + layer.scaling[_NAME] * (up.float() @ down.float()))
        parent, _, last = name.rpartition(".")
        setattr(policy.model.get_submodule(parent), last, base)


def shrink_adapters(policy: Policy, share: float) -> None:
    """Multiply what the adapters add by a share, in place."""
    with torch.no_grad():
        for layer in _layers(policy.model).values():
            layer.lora_B[_NAME].weight.mul_(share)


class _WithoutAdapters:
    """A family whose model computes with its adapters off."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def hidden(self, model: Any, *arguments: Any, **more: Any) -> Any:
        with adapters_off(model):
            return self._family.hidden(model, *arguments, **more)


def _layers(model: Any) -> dict[str, Any]:
    """Layers with an adapter, by name."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _language_prefix(policy: Policy) -> str:
    language = policy.family.language_model(policy.model)
    return next(str(name) for name, module in policy.model.named_modules() if module is language)


def _targets(policy: Policy, wanted: Sequence[str]) -> list[str]:
    language = policy.family.language_model(policy.model)
    linear = {n.rpartition(".")[2] for n, module in language.named_modules() if isinstance(module, torch.nn.Linear)}
    if unknown := sorted(set(wanted) - linear):
        raise ConfigError(
            f"training.lora_targets names {', '.join(unknown)}, and the language model has no such linear layer",
            where=policy.where,
            expected=f"some of {', '.join(sorted(linear))}",
            remedy="Leave it empty to adapt all of them.",
        )
    return sorted(wanted or linear)


def _stored(name: str) -> str:
    return _PREFIX + name.replace(f".{_NAME}.", ".")
