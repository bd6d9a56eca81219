"""TRL's side of the training benchmarks: its trainers as a user would call them, at their best for one CPU thread.

No gradient checkpointing, no logging, no checkpoints; the whole step in one batch; the vision tower frozen as in ours.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

from benchmarks.harness import SCRATCH
from benchmarks.models import model_folder
from benchmarks.ours import LEARNING_RATE, rewards
from benchmarks.sides import Figures, Pause, Point

STEPS_AHEAD = 32
"""Distinct steps in the dataset; it is read again where more are asked for."""


class Turns(TrainerCallback):
    """Lets the trainer take one step at a time; phases that the trainer times itself come through `phases`."""

    def __init__(self, pause: Pause) -> None:
        self.phases: Figures = {}
        self._pause = pause
        self._start = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Between two calls lies one whole step, reading the data included."""
        figures = {"whole": time.process_time() - self._start, **self.phases}
        control.should_training_stop = not self._pause(figures)
        self.phases.clear()
        self._start = time.process_time()


class TimedGRPO(GRPOTrainer):
    """GRPOTrainer that says how long its phases took."""

    turns: Turns

    def _generate(self, prompts: list[Any]) -> Any:
        start = time.process_time()
        generated = super()._generate(prompts)
        self.turns.phases["sampling"] = time.process_time() - start
        return generated

    def _generate_and_score_completions(self, inputs: list[Any]) -> Any:
        start = time.process_time()
        scored = super()._generate_and_score_completions(inputs)
        self.turns.phases["generating and scoring"] = time.process_time() - start
        return scored


def grpo(point: Point, pause: Pause) -> None:
    """GRPO steps: phases sampling, generating and scoring, whole."""
    from benchmarks.grpo import PROMPTS, step_questions

    model, processor = _load(point)
    pause.loaded()
    questions = [question for step in range(STEPS_AHEAD) for question in step_questions(point, step)]
    tokens, group = point["completion_tokens"], point["group"]
    arguments = GRPOConfig(
        per_device_train_batch_size=PROMPTS * group,
        num_generations=group,
        max_completion_length=tokens,
        generation_kwargs={"min_new_tokens": tokens},
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=point["beta"],
        loss_type="grpo",
        shuffle_dataset=False,
        **_arguments(),
    )
    rows = {
        "prompt": [[{"role": "user", "content": question.text}] for question in questions],
        "image": [{"bytes": question.png, "path": None} for question in questions],
    }
    turns = Turns(pause)
    trainer = TimedGRPO(
        model=model,
        reward_funcs=lambda completions, **_: rewards(group) * PROMPTS,
        args=arguments,
        train_dataset=_dataset(rows),
        processing_class=processor,
        callbacks=[turns],
    )
    trainer.turns = turns
    _train(trainer)


def pairs(point: Point, pause: Pause) -> None:
    """DPO steps: phase whole."""
    from benchmarks.pairs import PAIRS, step_pairs

    model, processor = _load(point)
    pause.loaded()
    taken = [pair for step in range(STEPS_AHEAD) for pair in step_pairs(point, step)]
    rows = {
        "prompt": [[{"role": "user", "content": pair.question.text}] for pair in taken],
        "chosen": [[{"role": "assistant", "content": pair.chosen}] for pair in taken],
        "rejected": [[{"role": "assistant", "content": pair.rejected}] for pair in taken],
        "image": [{"bytes": pair.question.png, "path": None} for pair in taken],
    }
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(per_device_train_batch_size=PAIRS, beta=0.1, max_length=None, **_arguments()),
        train_dataset=_dataset(rows),
        processing_class=processor,
        callbacks=[Turns(pause)],
    )
    _train(trainer)


def _train(trainer: Any) -> None:
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def _dataset(rows: dict[str, list[Any]]) -> Dataset:
    from datasets import Image

    return Dataset.from_dict(rows).cast_column("image", Image())


def _load(point: Point) -> tuple[Any, Any]:
    folder = model_folder(point["image_tokens"])
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("vision_tower." not in name)
    return model, AutoProcessor.from_pretrained(folder)


def _arguments() -> dict[str, Any]:
    return {
        "output_dir": str(SCRATCH / "trl"),
        "max_steps": 10_000,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
