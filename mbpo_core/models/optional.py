"""Packages that only some settings need; looked for without importing anything."""

from __future__ import annotations

import importlib.util

from mbpo_core.errors import ConfigError


def require_peft() -> None:
    """Refuse to train adapters where peft is missing.

    Raises:
        ConfigError: says how to install it.
    """
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(
            "training.lora_rank is set and the package peft is not installed",
            remedy="pip install 'mbpo[lora]', or set training.lora_rank: 0 to train the weights themselves.",
        )
