"""Models other than the policy, from local folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mbpo_core.errors import ModelError


def load_local(folder: str, setting: str, classes: Mapping[str, str], device: torch.device) -> Any:
    """A frozen model in eval mode and float32; nothing is downloaded.

    Args:
        folder: with config.json and safetensors weights.
        setting: that names the folder, for messages.
        classes: model_type -> the class of transformers that loads it.
        device: where it goes.

    Raises:
        ModelError: there is no such folder, it holds another kind of model, or its weights do not fit.
    """
    import transformers

    path = Path(folder).expanduser()
    remedy = f"Set {setting} to a local folder that holds one."
    if not (path / "config.json").is_file():
        raise ModelError("config.json is missing", where=str(path), remedy=remedy)
    kind = json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type", "")
    if kind not in classes:
        raise ModelError(f"model_type is {kind!r}", where=str(path), expected=" or ".join(classes), remedy=remedy)
    transformers.utils.logging.disable_progress_bar()
    try:
        model, info = getattr(transformers, classes[kind]).from_pretrained(
            path, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"the model cannot be loaded: {error}", where=str(path), remedy=remedy) from error
    # A missing weight would be initialised at random, silently.
    if wrong := sorted(info["missing_keys"]) + sorted(map(str, info["mismatched_keys"])):
        raise ModelError(
            f"{len(wrong)} weights are missing or have another shape, first {wrong[0]}", where=str(path), remedy=remedy
        )
    return model.to(device).eval().requires_grad_(False)
