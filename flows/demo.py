"""The demo: shipped run configs, repeated over seeds."""

from __future__ import annotations

from flows.paths import config_file
from mbpo_core.config import PipelineConfig, load_config

CONFIGS = {"uniform": "demo", "natural": "demo-natural"}


def demo_configs(setting: str, seeds: int, changes: list[str]) -> list[PipelineConfig]:
    """One config a seed; seed 0 keeps the run's plain name.

    Args:
        setting: uniform (absolute prior, colours contradict it) or natural (soft prior, labels follow it).
        seeds: how many, from 0.
        changes: overrides, section.field=value.
    """
    base = load_config(config_file(CONFIGS[setting]), changes)
    return [
        base.model_copy(update={"seed": base.seed + seed, "run": f"{base.run}-seed{seed}" if seed else base.run})
        for seed in range(seeds)
    ]
