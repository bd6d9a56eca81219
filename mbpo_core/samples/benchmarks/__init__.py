"""Benchmarks people know, read from local copies in their published layout; each question becomes a held-out sample.

A benchmark's files name its questions, answers and pictures. Its reader makes rows of them in one form (COLUMNS), and
from there on the import goes as for anybody's data: the same checks, dropped rows with their reasons, the same store.
"""

from __future__ import annotations

from typing import Any

from mbpo_core.config import SamplesConfig
from mbpo_core.samples.benchmarks import amber, mmhal, pope, vilp, vlind
from mbpo_core.samples.benchmarks.reading import COLUMNS, Benchmark
from mbpo_core.samples.paths import image_root, input_path

__all__ = ["BENCHMARKS", "COLUMNS", "Benchmark", "is_benchmark", "open_benchmark", "own_columns"]

BENCHMARKS = {"pope": pope.read, "amber": amber.read, "mmhal": mmhal.read, "vilp": vilp.read, "vlind": vlind.read}
"""Source -> function from (the configured file or folder, the image root) to the benchmark."""


def is_benchmark(config: SamplesConfig) -> bool:
    """The source is a benchmark in its published layout."""
    return config.source in BENCHMARKS


def open_benchmark(config: SamplesConfig) -> Benchmark:
    """Read a benchmark's own files, which name its questions and pictures. No picture is opened.

    Raises:
        DataError: a file is missing or has another layout, or none of the pictures is there.
    """
    return BENCHMARKS[config.source](input_path(config), image_root(config))


def own_columns(config: SamplesConfig) -> SamplesConfig:
    """The settings with which the rows of a benchmark are normalised: its reader decides columns and split."""
    mapping: dict[str, Any] = {f"{name}_column": name for name in COLUMNS if name != "meta"}
    unused = dict.fromkeys(("rejected_column", "conversation_column", "aliases_column"), "")
    return config.model_copy(update=mapping | unused | {"answer_form": "free"})
