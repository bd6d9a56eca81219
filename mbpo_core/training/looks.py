"""Groups as one view shows them to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mbpo_core.config import TrainingConfig
from mbpo_core.models.groups import PromptGroup
from mbpo_core.objectives.passes import Pass
from mbpo_core.records import Blind
from mbpo_core.seeds import derive_seed

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class Look:
    """Groups of one source under one view.

    Attributes:
        passes: what each completion of a pair is; of an online group, what all of them are.
        groups: with their prompts, as the view shows them.
        blind: how the model is kept from seeing the images; None lets it see.
        grad: whether the pass keeps its graph.
    """

    passes: tuple[Pass, ...]
    groups: Sequence[PromptGroup]
    blind: Blind | None
    grad: bool

    def positions(self) -> list[int]:
        """Of each group: token positions that go through the model, the prompt and each distinct completion once."""
        return [
            _prompt_length(group, self.blind) + sum(len(read) for read, _ in group.distinct()) for group in self.groups
        ]

    def by_pass(self, rows: Tensor) -> dict[Pass, Tensor]:
        """Rows (B, T) of all groups' completions, by pass: (P, T) each for pairs, all (B, T) for online groups."""
        if self.passes[0].side == "sampled":
            return {self.passes[0]: rows}
        count = len(self.passes)
        return {one: rows[number::count] for number, one in enumerate(self.passes)}


def black_out(picture: Image, config: TrainingConfig, seed: int, sample_id: str) -> Image:
    """A picture with patches blacked out at random, always the same ones for a sample.

    Source: PAPO arXiv:2507.06448; recipe 4.7.
    """
    from PIL import Image as pil

    size = config.perception_patch
    generator = torch.Generator().manual_seed(derive_seed(seed, "training", "masked", sample_id))
    cells = torch.rand(-(-picture.height // size), -(-picture.width // size), generator=generator)
    hidden = (cells < config.perception_share).repeat_interleave(size, 0).repeat_interleave(size, 1)
    mask = pil.fromarray((hidden[: picture.height, : picture.width] * 255).to(torch.uint8).numpy())
    dark = picture.copy()
    dark.paste((0, 0, 0), mask=mask)
    return dark


def _prompt_length(group: PromptGroup, blind: Blind | None) -> int:
    """Positions of the prompt that the language model reads."""
    hidden = sum(image.features for image in group.prompt.images) if blind in ("mask", "drop") else 0
    return len(group.prompt.token_ids) - hidden
