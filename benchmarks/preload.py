"""Everything heavy, imported once: measuring processes are forked from one that has done it.

That includes what the libraries would import at their first use: a module in memory is no part of a step.
"""

from __future__ import annotations

import warnings

import datasets
import deepspeed
import deepspeed.module_inject
import foolbox
import torch._inductor.compile_fx
import transformers
import trl
from trl.trainer import dpo_trainer, grpo_trainer

from benchmarks import grpo, mining, pairs, sampling
from mbpo_core.training import engine

__all__ = [
    "datasets",
    "deepspeed",
    "dpo_trainer",
    "engine",
    "foolbox",
    "grpo",
    "grpo_trainer",
    "mining",
    "pairs",
    "sampling",
    "torch",
    "transformers",
    "trl",
]

warnings.simplefilter("ignore", FutureWarning)  # TRL sets options of transformers that will be renamed
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
