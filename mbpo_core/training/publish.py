"""The trained policy as a folder that plain `from_pretrained` loads."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from mbpo_core.models.adapters import ADAPTER_FOLDER, adapter_names, fold_adapters, save_adapters, shrink_adapters
from mbpo_core.models.policy import Policy

_WRITTEN_BY_MODEL = ("config.json", "generation_config.json")
_COPIED = (".json", ".jinja", ".model", ".txt")  # processor, tokenizer, chat template


def publish_policy(policy: Policy, source: Path, target: Path) -> None:
    """Write weights and config anew and copy processor, tokenizer and chat template byte for byte.

    Adapters are written by themselves into the folder `adapter`, then added to the weights.

    Args:
        policy: the trained model; its adapters are gone afterwards.
        source: the model folder that training started from.
        target: folder to write; replaced if it exists.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if adapter_names(policy.model):
        save_adapters(policy, target / ADAPTER_FOLDER)
        fold_adapters(policy)
    policy.model.save_pretrained(target)
    for path in sorted(source.iterdir()):
        copied = path.suffix in _COPIED and not path.name.endswith(".index.json")
        if copied and path.is_file() and path.name not in _WRITTEN_BY_MODEL:
            shutil.copyfile(path, target / path.name)


def interpolate(policy: Policy, reference: Policy, share: float) -> None:
    """Move the policy's weights back towards the reference's, in place.

        theta = theta_ref + share (theta - theta_ref),    in float32

    What training has taken away besides its aim mostly comes back before the gain does, without a further pass.

    Args:
        policy: trained; frozen weights equal the reference's and stay as they are.
        reference: the same architecture; not looked at where the policy has adapters, whose share is all there is.
        share: in (0, 1]; 1 leaves everything as it is.

    Source: WiSE-FT arXiv:2109.01903, equation (1).
    """
    if adapter_names(policy.model):
        return shrink_adapters(policy, share)
    base = dict(reference.model.named_parameters())
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if parameter.requires_grad:
                start = base[name].to(parameter.device, torch.float32)
                parameter.copy_(torch.lerp(start, parameter.float(), share))
