"""How long prompts and answers are taken to be, and how many of them go through the model together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import ModelError
from mbpo_core.memory.activations import Batch
from mbpo_core.memory.architecture import Architecture
from mbpo_core.models.families import family_class
from mbpo_core.models.groups import Prompt
from mbpo_core.models.packing import Packing


@dataclass(frozen=True)
class Prompts:
    """A prompt with its pictures.

    Attributes:
        patches: of the pictures, in the vision tower.
        features: image positions that they fill.
        values: their pixel values, as the tower takes them.
        text: tokens of the prompt that no picture fills.
    """

    patches: int
    features: int
    values: int
    text: int

    @property
    def tokens(self) -> int:
        """Of the whole prompt."""
        return self.features + self.text


def read_prompts(folder: Path, architecture: Architecture, size: tuple[int, int], text: int) -> Prompts:
    """What a picture of (width, height) becomes, by the processor that lies beside config.json.

    A Qwen-VL can do without: its processor is then the family's own, with its own bounds on pixels.

    Raises:
        ModelError: there is no processor.
    """
    from PIL import Image

    picture = Image.new("RGB", size)
    if (folder / "tokenizer_config.json").is_file():
        adapter = family_class(architecture.model_type, where=str(folder))
        processor = adapter.load_processor(folder, local_files_only=True, trust_remote_code=False)
        shown = adapter(processor, _config(folder)).read(picture)
        return prompts_of(Prompt([0] * (shown.features + text), (shown,)), _config(folder))
    if not architecture.model_type.startswith("qwen"):
        raise ModelError(
            "the model folder has no processor, which says how many positions a picture fills",
            where=str(folder),
            expected="the processor's and the tokenizer's files beside config.json",
            remedy="Copy them there; the weights are not needed.",
        )
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    vision = _config(folder).vision_config
    processor = Qwen2VLImageProcessorPil(patch_size=vision.patch_size, merge_size=vision.spatial_merge_size)
    pixels = processor([picture], return_tensors="np")["pixel_values"]
    return Prompts(len(pixels), int(len(pixels) / architecture.merge), pixels.size, text)


def prompts_of(prompt: Prompt, config: Any) -> Prompts:
    """The numbers of a prompt that the family's processor has made; config is the model's."""
    features = sum(image.features for image in prompt.images)
    return Prompts(
        patches=sum(_patches(image.pixel_values, config) for image in prompt.images),
        features=features,
        values=sum(image.pixel_values.numel() for image in prompt.images),
        text=len(prompt.token_ids) - features,
    )


def packing_of(architecture: Architecture, config: PolicyConfig) -> Packing:
    """How groups become rows, as `models.packing.choose_packing` decides of the loaded model."""
    tower = architecture.language
    return Packing(
        config.group_packing,
        token_cost=2.0 * architecture.linear,
        pair_cost=4.0 * tower.layers * tower.heads * tower.head_width,
        segmented=config.group_packing != "plain" and config.attention == "sdpa",
    )


def batch_of(packing: Packing, prompts: Prompts, groups: int, lengths: Sequence[int], *, seen: bool = True) -> Batch:
    """Groups of completions of these lengths, all of them distinct, as rows.

    Args:
        groups: that go through the model together.
        lengths: of each group's completions, tokens.
        seen: whether the pictures are.
    """
    prompt = prompts.tokens if seen else prompts.text
    rows = [(prompt, *(lengths[k] for k in row)) for row in packing.split(prompt, lengths)] * groups
    return Batch(rows, packing.by_segment(rows), groups * sum(lengths), groups * prompts.patches if seen else 0)


def _patches(pixels: Any, config: Any) -> int:
    """Rows of patches (Qwen), tiles (N, 3, H, W), or one picture (3, H, W)."""
    if pixels.ndim == 2:
        return len(pixels)
    patch = config.vision_config.patch_size
    tiles = len(pixels) if pixels.ndim == 4 else 1
    return int(tiles * (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch))


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
