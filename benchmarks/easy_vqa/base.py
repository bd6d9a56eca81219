"""The base models: a tiny LLaVA that sees easy-VQA and, where the prior speaks, says the prior.

The model, its tokenizer's settings, the packing of questions and the optimizer are the demo's. Pictures go through the
model's own processor (64 -> 48 px). Three stages, as the demo's:

1. Alignment: a picture's mean projected features are classified against the language model's embeddings of the colour
   and the shape words. The prior plays no part in it.
2. Language: tower frozen, all base rows of a picture in one packed row, and beside them rows that the prior speaks on
   without the picture, as language models know such things from text. Its result is the *absolute* checkpoint.
3. Soft: a little longer without the text-only rows, where 15 % of the rows that the prior speaks on contradict it: the
   model begins to look and still leans on the prior. (At 3 %, 35 rows, it learns these by heart and leans as before.)
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from benchmarks.easy_vqa.prior import PRIOR, prior_answer
from benchmarks.easy_vqa.rows import COLORS, SHAPES, Row, picture_file, truths
from benchmarks.easy_vqa.selection import base_rows
from mbpo_core.demo import packing, tiny_llava
from mbpo_core.demo.base_training import Progress, run_stage
from mbpo_core.demo.questions import Question
from mbpo_core.records import Kind

_T = TypeVar("_T")
_ALIGNMENT_SCALE = 12.0


class BaseConfig(BaseModel):
    """How the base is trained; the defaults made the models of docs/easy_vqa.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="Weights and the order of pictures derive from it.")
    alignment_steps: int = Field(default=600, ge=1, description="Steps of the alignment stage.")
    alignment_batch: int = Field(default=64, ge=1, description="Pictures a step of alignment.")
    language_steps: int = Field(default=1000, ge=1, description="Steps of the language stage.")
    soft_steps: int = Field(default=80, ge=1, description="Steps of the soft stage.")
    soft_conflicts: float = Field(default=0.15, ge=0, le=1, description="Share of conflicts in the soft stage.")
    batch: int = Field(default=16, ge=1, description="Pictures a step of the language and soft stages.")
    text_rows: int = Field(default=2, ge=0, description="Language stage: rows a picture asked without it.")
    rate: float = Field(default=1.5e-3, gt=0, description="Peak learning rate of alignment and language.")
    soft_rate: float = Field(default=6e-4, gt=0, description="Peak learning rate of the soft stage.")
    projector_factor: float = Field(default=0.1, ge=0, description="Projector's share of the learning rate.")


def train_base(
    output: Path, rows: Sequence[Row], folder: Path, config: BaseConfig, progress: Progress
) -> dict[str, float]:
    """Train both checkpoints and write them to `output/absolute` and `output/soft`.

    Args:
        output: folder to write to; made if missing.
        rows: all rows of the package; the base's are selected from them.
        folder: the package's data.
        config: steps, rates and seed.
        progress: called after every step.

    Returns:
        CPU seconds, first and last loss (mean of ten steps) of each stage, e.g. "language_cpu_seconds".
    """
    tokenizer = tiny_llava.build_tokenizer(f"USER: \n{row.question} ASSISTANT: {row.answer}" for row in rows)
    processor = tiny_llava.build_processor(tokenizer)
    model = tiny_llava.build_model(tokenizer, config.seed)
    chosen, softened = base_rows(rows, 0.0), base_rows(rows, config.soft_conflicts)
    images = sorted({row.image for row in (*chosen, *softened)})
    pixels = dict(zip(images, pixel_values(processor, folder, images), strict=True))
    summary = _align(model, processor, chosen, pixels, config, progress)
    model.model.vision_tower.requires_grad_(False)
    summary |= _teach(model, processor, chosen, pixels, config, "language", progress)
    tiny_llava.save(output / "absolute", model, processor)
    summary |= _teach(model, processor, softened, pixels, config, "soft", progress)
    tiny_llava.save(output / "soft", model, processor)
    return summary


def pixel_values(processor: LlavaProcessor, folder: Path, images: Sequence[str]) -> Tensor:
    """(N, 3, 48, 48) float32, as the processor makes them of the package's files."""
    opened = [Image.open(picture_file(folder, image)).convert("RGB") for image in images]
    return torch.as_tensor(processor.image_processor(opened, return_tensors="pt")["pixel_values"])


def _align(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rows: Sequence[Row],
    pixels: dict[str, Tensor],
    config: BaseConfig,
    progress: Progress,
) -> dict[str, float]:
    colors, shapes = truths(rows, "color"), truths(rows, "shape")
    images = sorted(colors.keys() & shapes.keys())
    tables = ((COLORS, colors), (SHAPES, shapes))
    words = [torch.tensor([processor.tokenizer(f" {name}")["input_ids"][0] for name in names]) for names, _ in tables]
    labels = [torch.tensor([names.index(truth[image]) for image in images]) for names, truth in tables]
    stacked = torch.stack([pixels[image] for image in images])
    order = _endless(range(len(images)), random.Random(f"alignment {config.seed}"))
    trained = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]

    def loss() -> Tensor:
        batch = torch.tensor([next(order) for _ in range(config.alignment_batch)])
        features = packing.image_features(model, stacked[batch]).mean(1)
        embeddings = model.get_input_embeddings()
        parts = [
            torch.nn.functional.cross_entropy(_ALIGNMENT_SCALE * features @ embeddings(tokens).T, truth[batch])
            for tokens, truth in zip(words, labels, strict=True)
        ]
        return torch.stack(parts).sum()

    return run_stage("alignment", [(trained, config.rate)], config.alignment_steps, loss, progress)


def _teach(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rows: Sequence[Row],
    pixels: dict[str, Tensor],
    config: BaseConfig,
    stage: str,
    progress: Progress,
) -> dict[str, float]:
    asked: dict[str, list[Question]] = defaultdict(list)
    for row in rows:
        asked[row.image].append(_question(row))
    known = [[_question(row) for row in rows if row.subject == color and _as_said(row)] for color in PRIOR]
    rng = random.Random(f"{stage} {config.seed}")
    order = _endless(sorted(asked), rng)
    packer = packing.Packer(processor.tokenizer)
    rate, steps, text_rows = {
        "language": (config.rate, config.language_steps, config.text_rows),
        "soft": (config.soft_rate, config.soft_steps, 0),
    }[stage]
    groups = [
        (list(model.model.language_model.parameters()), rate),
        (list(model.model.multi_modal_projector.parameters()), rate * config.projector_factor),
    ]

    def loss() -> Tensor:
        images = [next(order) for _ in range(config.batch)]
        text_only = [[rng.choice(rng.choice(known)) for _ in range(text_rows)] for _ in images]
        batch = packer.pack([asked[image] for image in images], text_only)
        return packing.answer_loss(model, batch, torch.stack([pixels[image] for image in images]))

    return run_stage(stage, groups, steps, loss, progress)


def _as_said(row: Row) -> bool:
    """The prior speaks and is right."""
    return prior_answer(row) == row.answer


def _question(row: Row) -> Question:
    kind: Kind = "yes_no" if row.topic in ("has_color", "has_shape") else "short_text"
    return Question(row.question, row.answer, kind, "word", row.topic, row.subject)


def _endless(items: Sequence[_T], rng: random.Random) -> Iterator[_T]:
    """All items in random order, again and again."""
    while True:
        yield from rng.sample(items, len(items))
