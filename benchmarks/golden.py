"""What TRL computes for the canned completions of `tests/training/golden/canned.py`: `make golden`.

Writes tests/training/golden/trl.json, which is checked in; `tests/training/test_golden_trl.py` recomputes every
number with our code and needs no TRL. TRL runs as it is; only what would be random is fixed: the completions
(`_generate_single_turn`) and the order of the rows (`shuffle_sequence_dict`).
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import trl.trainer.grpo_trainer as grpo_module
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

from tests.models.tiny import save_tiny
from tests.training.golden import canned
from tests.training.golden.canned import Setting

OUTPUT = Path(__file__).parents[1] / "tests/training/golden/trl.json"
LIBRARIES = ("trl", "transformers", "torch", "accelerate")
SURROGATES = [Setting(loss, beta, 2) for loss in ("gspo", "cispo", "sapo") for beta in (0.0, 0.04)]
"""On the first of a batch's updates they differ from GRPO by a factor only, hence two."""


class CannedGRPO(GRPOTrainer):
    """GRPOTrainer whose sampler always returns the canned completions."""

    canned: dict[tuple[int, ...], list[list[int]]]
    seen: list[float]

    def _generate_single_turn(self, prompt_ids: Any, *arguments: Any, **options: Any) -> tuple[list[list[int]], None]:
        taken = [self.canned[tuple(ids)][row % canned.GROUP] for row, ids in enumerate(prompt_ids)]
        return taken, None

    def compute_loss(self, *arguments: Any, **options: Any) -> Tensor:
        return _noted(self.seen, super().compute_loss(*arguments, **options))


class NotedDPO(DPOTrainer):
    """DPOTrainer that keeps its losses as they are, before any rounding for a log."""

    seen: list[float]

    def compute_loss(self, *arguments: Any, **options: Any) -> Tensor:
        return _noted(self.seen, super().compute_loss(*arguments, **options))


def main() -> None:
    """Run every setting and write the file."""
    torch.set_num_threads(1)
    grpo_module.shuffle_sequence_dict = lambda rows: rows
    with tempfile.TemporaryDirectory() as name:
        folder = save_tiny(Path(name) / "tiny", seed=canned.MODEL_SEED)
        golden = {
            "made_by": "python -m benchmarks.golden",
            "versions": {library: importlib.metadata.version(library) for library in LIBRARIES},
            "weights": _sums(_load(folder)),
            "grpo_tokens": _canned_tokens(folder),
            "grpo": {setting.name: run_grpo(folder, setting) for setting in [*canned.SETTINGS, *SURROGATES]},
            "dpo": run_dpo(folder, "sigmoid"),
            "ipo": {name: part for name, part in run_dpo(folder, "ipo").items() if name != "tokens"},  # those of dpo
        }
    text = re.sub(r"\[[-\d\s.,e]+\]", lambda found: " ".join(found.group().split()), json.dumps(golden, indent=1))
    OUTPUT.write_text(text + "\n", encoding="utf-8")  # a list of numbers a line
    print(f"wrote {OUTPUT.relative_to(Path.cwd())}")


def run_grpo(folder: Path, setting: Setting) -> dict[str, Any]:
    """Three updates of GRPOTrainer.

    Returns:
        One entry of `steps` an update, and `weights`: the sum of every trained tensor and of its absolute values
        after the last update.
    """
    model, processor = _load(folder), AutoProcessor.from_pretrained(folder)
    rows = _grpo_rows()
    trainer = CannedGRPO(
        model=model,
        reward_funcs=_canned_rewards,
        args=GRPOConfig(**_grpo_arguments(folder, setting), **_arguments()),
        train_dataset=Dataset.from_dict(rows),
        processing_class=processor,
    )
    trainer.seen = []
    tokens = _canned_tokens(folder)
    trainer.canned = dict(zip(map(tuple, tokens["prompts"]), tokens["completions"], strict=True))
    trainer.train()
    names = {
        "kl": "kl",
        "clipped": "clip_ratio/region_mean",  # gspo: of sequences
        "capped": "cispo_clip_ratio",  # of tokens, but only those with a positive advantage are counted
        "grad_norm": "grad_norm",
    }
    return {"steps": _steps(trainer, names), "weights": _sums(model)}


def run_dpo(folder: Path, loss_type: str) -> dict[str, Any]:
    """Three updates of DPOTrainer; log-probs are means over the pairs of a step of sums over tokens."""
    model, processor = _load(folder), AutoProcessor.from_pretrained(folder)
    count = canned.STEPS * canned.PAIRS_PER_STEP
    pairs = canned.answers(count)
    rows = {
        "prompt": [[{"role": "user", "content": text}] for text in canned.questions(count)],
        "image": canned.pictures(count),
        **{
            side: [[{"role": "assistant", "content": pair[index]}] for pair in pairs]
            for index, side in enumerate(("chosen", "rejected"))
        },
    }
    trainer = NotedDPO(
        model=model,
        args=DPOConfig(
            output_dir=str(folder.parent / loss_type),
            loss_type=loss_type,
            per_device_train_batch_size=canned.PAIRS_PER_STEP,
            beta=canned.DPO_BETA,
            max_length=None,
            **_arguments(),
        ),
        train_dataset=Dataset.from_dict(rows),
        processing_class=processor,
    )
    trainer.seen = []
    trainer._get_train_sampler = lambda dataset=None: torch.utils.data.SequentialSampler(trainer.train_dataset)
    batches = [trainer._prepare_inputs(batch) for batch in trainer.get_train_dataloader()]
    trainer.train()
    names = {
        "chosen": "logps/chosen",
        "rejected": "logps/rejected",
        "margin": "rewards/margins",
        "grad_norm": "grad_norm",
    }
    return {"tokens": [_split(batch) for batch in batches], "steps": _steps(trainer, names), "weights": _sums(model)}


def _grpo_rows() -> dict[str, list[Any]]:
    count = canned.STEPS * canned.PROMPTS_PER_STEP
    return {
        "prompt": [[{"role": "user", "content": text}] for text in canned.questions(count)],
        "image": canned.pictures(count),
        "canned_rewards": canned.rewards(count),
    }


def _canned_tokens(folder: Path) -> dict[str, Any]:
    """Prompt ids as TRL's call of the processor makes them, and the completions."""
    processor, rows = AutoProcessor.from_pretrained(folder), _grpo_rows()
    tokenizer = processor.tokenizer
    encoded = processor.apply_chat_template(
        conversation=_conversations(rows), add_generation_prompt=True, tokenize=True, return_dict=True
    )
    groups = canned.completions(len(rows["prompt"]), len(tokenizer), tokenizer.eos_token_id)
    return {"prompts": encoded["input_ids"], "completions": groups}


def _grpo_arguments(folder: Path, setting: Setting) -> dict[str, Any]:
    special: dict[str, dict[str, Any]] = {
        "dr_grpo": {"scale_rewards": "none"},
        "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        "cispo": {"epsilon_high": 1 + setting.clip_high},  # here TRL means the cap itself
    }
    return {
        "output_dir": str(folder.parent / setting.name),
        "per_device_train_batch_size": canned.PROMPTS_PER_STEP * canned.GROUP,
        "num_generations": canned.GROUP,
        "max_completion_length": canned.MAX_COMPLETION,
        "num_iterations": setting.iterations,
        "beta": setting.beta,
        "loss_type": setting.loss_type,
        "epsilon": canned.CLIP,
        "epsilon_high": setting.clip_high,
        "scale_rewards": "group",
        "shuffle_dataset": False,
        "use_bias_correction_kl": False,  # the plain k3 of the GRPO paper; TRL's default multiplies it by the ratio
        **special.get(setting.loss_type, {}),
    }


def _arguments() -> dict[str, Any]:
    return {
        "max_steps": canned.STEPS,
        "learning_rate": canned.LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "logging_strategy": "steps",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _load(folder: Path) -> Any:
    """The model as ours trains it: the vision tower frozen."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("vision_tower." not in name)
    return model


def _canned_rewards(completions: Sequence[Any], canned_rewards: Sequence[list[float]], **_: Any) -> list[float]:
    return [row[index % canned.GROUP] for index, row in enumerate(canned_rewards)]


def _conversations(rows: dict[str, list[Any]]) -> list[Any]:
    return [
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": turn[0]["content"]}]}]
        for turn, image in zip(rows["prompt"], rows["image"], strict=True)
    ]


def _noted(seen: list[float], loss: Tensor) -> Tensor:
    seen.append(float(loss.detach()))
    return loss


def _steps(trainer: Any, names: dict[str, str]) -> list[dict[str, float]]:
    logs = [log for log in trainer.state.log_history if "grad_norm" in log]
    return [
        {"loss": loss, **{name: float(log[key]) for name, key in names.items() if key in log}}
        for loss, log in zip(trainer.seen, logs, strict=True)
    ]


def _split(batch: dict[str, Tensor]) -> dict[str, list[list[int]]]:
    """Prompt, chosen and rejected ids of a step's pairs as TRL laid them out."""
    half = len(batch["input_ids"]) // 2
    real, scored = batch["attention_mask"].bool(), batch["completion_mask"].bool()
    prompts = [ids[mask & ~done].tolist() for ids, mask, done in zip(batch["input_ids"], real, scored, strict=True)]
    answers = [ids[done].tolist() for ids, done in zip(batch["input_ids"], scored, strict=True)]
    return {"prompts": prompts[:half], "chosen": answers[:half], "rejected": answers[half:]}


def _sums(model: Any) -> dict[str, list[float]]:
    return {
        name: [float(parameter.detach().double().sum()), float(parameter.detach().double().abs().sum())]
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


if __name__ == "__main__":
    main()
