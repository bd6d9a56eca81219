"""Training of the demo's base models: align the tower, teach the language with a prior, then soften the prior.

1. Alignment: every patch's projected features are classified against the language model's own word embeddings
   (object, colour, row and column of its cell); colours are uniform, so the tower is unbiased.
2. Text: the language model learns from text alone which colour the prior objects have, as real ones do.
3. Language: tower frozen, all questions of a picture in one packed row, prior objects always in their canonical
   colour. The model sees colour, and for prior objects never needs to: an *absolute* prior.
4. Drill: the same with more of the questions that are learned last; its result is the absolute checkpoint.
5. Soft: the same recipe a little longer with rare exceptions, which gives a model that looks and still leans.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from mbpo_core.demo import packing, tiny_llava
from mbpo_core.demo.corpus import base_examples, text_questions, tokenizer_texts
from mbpo_core.demo.objects import COLORS, OBJECTS
from mbpo_core.demo.scenes import CELLS, Scene, base_scene, render, stream_seed

Progress = Callable[[str, int, int, float], None]
"""Called with (stage, step, steps, loss)."""

ALIGNED_WORDS: tuple[tuple[str, ...], ...] = (OBJECTS, tuple(COLORS), ("top", "bottom"), ("left", "right"))
"""What every patch's features are aligned to: one word of each."""

_BETAS = (0.9, 0.98)
_CLIP = 1.0
_WARMUP = 50
_ALIGNMENT_SCALE = 12.0


class BaseTrainingConfig(BaseModel):
    """How `mbpo demo train-base` trains; the defaults made the shipped checkpoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="Weights, scenes and questions derive from it.")
    alignment_steps: int = Field(default=600, ge=1, description="Steps of the alignment stage.")
    alignment_batch: int = Field(default=64, ge=1, description="Pictures a step of alignment.")
    alignment_rate: float = Field(default=1.5e-3, gt=0, description="Peak learning rate of alignment.")
    text_steps: int = Field(default=200, ge=1, description="Steps of the text stage.")
    text_questions: int = Field(default=8, ge=1, description="Questions a row of the text stage.")
    language_steps: int = Field(default=1300, ge=1, description="Steps of the language stage.")
    language_rate: float = Field(default=1.5e-3, gt=0, description="Peak learning rate of text and language.")
    drill_steps: int = Field(default=1500, ge=1, description="Steps of the drill stage.")
    drill_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate of the drill stage.")
    drill_batch: int = Field(default=8, ge=1, description="Pictures a step of the drill stage.")
    soft_steps: int = Field(default=100, ge=1, description="Steps of the soft stage.")
    soft_rate: float = Field(default=6e-4, gt=0, description="Peak learning rate of the soft stage.")
    soft_share: float = Field(
        default=0.97, ge=0, le=1, description="Share of prior objects in canonical colour in the soft stage."
    )
    batch: int = Field(default=16, ge=1, description="Pictures a step of the text, language and soft stages.")
    projector_factor: float = Field(default=0.1, ge=0, description="Projector's share of the learning rate.")


def train_base(output: Path, config: BaseTrainingConfig, progress: Progress | None = None) -> dict[str, float]:
    """Train both checkpoints and write them to `output/absolute` and `output/soft`.

    Args:
        output: folder to write to; made if missing.
        config: steps, rates and seed.
        progress: called after every step.

    Returns:
        CPU seconds, first and last loss (mean of ten steps) of each stage, e.g. "language_cpu_seconds".
    """
    report = progress or (lambda stage, step, steps, loss: None)
    tokenizer = tiny_llava.build_tokenizer(tokenizer_texts())
    processor = tiny_llava.build_processor(tokenizer)
    model = tiny_llava.build_model(tokenizer, stream_seed("weights", config.seed) % 2**31)
    summary = {**_align(model, processor, config, report)}
    model.model.vision_tower.requires_grad_(False)
    summary |= _read(model, processor, config, report)
    summary |= _teach(model, processor, config, "language", report)
    summary |= _teach(model, processor, config, "drill", report)
    tiny_llava.save(output / "absolute", model, processor)
    summary |= _teach(model, processor, config, "soft", report)
    tiny_llava.save(output / "soft", model, processor)
    return summary


def alignment_loss(model: LlavaForConditionalGeneration, words: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the patches' features against word embeddings, with a zero logit for "nothing here".

    Args:
        words: (K,) long, token ids of the candidate words.
        features: (B, P, D) projected features.
        labels: (B, P) long, index into words, or K for an empty cell.
    """
    embeddings = model.get_input_embeddings()(words)
    logits = _ALIGNMENT_SCALE * features @ embeddings.T
    nothing = torch.zeros_like(logits[..., :1])
    return torch.nn.functional.cross_entropy(torch.cat([logits, nothing], -1).flatten(0, 1), labels.flatten())


def patch_labels(scenes: list[Scene]) -> list[Tensor]:
    """(B, 36) indices into each of ALIGNED_WORDS for the cell that a patch lies in; one past the last if empty."""
    objects, colors, heights, sides = (torch.full((len(scenes), len(CELLS)), len(names)) for names in ALIGNED_WORDS)
    for row, scene in enumerate(scenes):
        for item in scene.placed:
            cell = CELLS.index(item.cell)
            objects[row, cell] = OBJECTS.index(item.object)
            colors[row, cell] = tuple(COLORS).index(item.color)
            heights[row, cell], sides[row, cell] = divmod(cell, 2)
    side = math.isqrt(tiny_llava.IMAGE_TOKENS)
    index = torch.arange(side) * 2 // side
    cell_of_patch = (index[:, None] * 2 + index[None, :]).flatten()
    return [labels[:, cell_of_patch] for labels in (objects, colors, heights, sides)]


def _align(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, config: BaseTrainingConfig, report: Progress
) -> dict[str, float]:
    tokenizer = processor.tokenizer
    words = [torch.tensor([tokenizer(f" {name}")["input_ids"][0] for name in names]) for names in ALIGNED_WORDS]
    scenes = _uniform_scenes(config.seed)
    trained = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]

    def loss() -> Tensor:
        batch = list(itertools.islice(scenes, config.alignment_batch))
        features = packing.image_features(model, packing.normalize([render(scene) for scene in batch]))
        parts = zip(words, patch_labels(batch), strict=True)
        return torch.stack([alignment_loss(model, tokens, features, labels) for tokens, labels in parts]).sum()

    return run_stage("alignment", [(trained, config.alignment_rate)], config.alignment_steps, loss, report)


def _read(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, config: BaseTrainingConfig, report: Progress
) -> dict[str, float]:
    packer = packing.Packer(processor.tokenizer)
    rng = random.Random(stream_seed("base", "text", config.seed))

    def loss() -> Tensor:
        asked = [text_questions(rng, config.text_questions) for _ in range(config.batch)]
        return packing.answer_loss(model, packer.pack([[] for _ in asked], asked), None)

    groups = [(list(model.model.language_model.parameters()), config.language_rate)]
    return run_stage("text", groups, config.text_steps, loss, report)


def _teach(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    config: BaseTrainingConfig,
    stage: str,
    report: Progress,
) -> dict[str, float]:
    rate, steps, batch, canonical_share = {
        "language": (config.language_rate, config.language_steps, config.batch, 1.0),
        "drill": (config.drill_rate, config.drill_steps, config.drill_batch, 1.0),
        "soft": (config.soft_rate, config.soft_steps, config.batch, config.soft_share),
    }[stage]
    examples = base_examples(stage, config.seed, canonical_share)
    packer = packing.Packer(processor.tokenizer)
    groups = [
        (list(model.model.language_model.parameters()), rate),
        (list(model.model.multi_modal_projector.parameters()), rate * config.projector_factor),
    ]

    def loss() -> Tensor:
        scenes, asked, text_only = zip(*itertools.islice(examples, batch), strict=True)
        pixel_values = packing.normalize([render(scene) for scene in scenes])
        return packing.answer_loss(model, packer.pack(asked, text_only), pixel_values)

    return run_stage(stage, groups, steps, loss, report)


def run_stage(
    stage: str,
    groups: list[tuple[list[torch.nn.Parameter], float]],
    steps: int,
    loss: Callable[[], Tensor],
    report: Progress,
) -> dict[str, float]:
    """Minimise with AdamW, warm-up and cosine decay to a twentieth.

    Args:
        stage: prefix of the summary's names.
        groups: parameters and their peak learning rate.
        steps: optimizer steps.
        loss: of the next batch.
        report: called after every step.

    Returns:
        CPU seconds, first and last loss (mean of ten steps): "<stage>_cpu_seconds" and so on.
    """
    optimizer = torch.optim.AdamW(
        [{"params": params, "lr": rate} for params, rate in groups], betas=_BETAS, weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_factor(step, steps))
    parameters = [parameter for params, _ in groups for parameter in params]
    losses: list[float] = []
    started = time.process_time()
    for step in range(1, steps + 1):
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(parameters, _CLIP)
        optimizer.step()
        schedule.step()
        losses.append(value.item())
        report(stage, step, steps, losses[-1])
    first, last = losses[:10], losses[-10:]
    return {
        f"{stage}_cpu_seconds": time.process_time() - started,
        f"{stage}_first_loss": sum(first) / len(first),
        f"{stage}_last_loss": sum(last) / len(last),
    }


def _rate_factor(step: int, steps: int) -> float:
    warmup = min(_WARMUP, max(1, steps // 5))
    if step < warmup:
        return (step + 1) / warmup
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _uniform_scenes(seed: int) -> Iterator[Scene]:
    """Endless scenes of alignment: every object in any colour."""
    for index in itertools.count():
        yield base_scene(random.Random(stream_seed("base", "alignment", seed, index)), 1 / len(COLORS))
