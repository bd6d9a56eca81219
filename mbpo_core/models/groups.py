"""The data types of scoring, sampling and training: completions that share one prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImageInput:
    """One image as a vision tower takes it.

    Attributes:
        pixel_values: float32, of the family's own shape: (3, H, W), (tiles, 3, H, W), or (patches, values a patch).
        features: image positions that it fills in a prompt.
        grid: patches (Qwen) or tiles (Idefics3) in time, height and width; None in families that cut every image alike.
        key: equal keys mean equal pixels, which are encoded once; "" is equal to nothing.
        size: height and width of the picture; None in families that can do without.
    """

    pixel_values: Tensor
    features: int
    grid: tuple[int, int, int] | None = None
    key: str = ""
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Prompt:
    """A rendered question with its images, ready for the model.

    token_ids holds the chat template's tokens with every image slot expanded (one id per image
    position) and ends where the completion starts.
    """

    token_ids: list[int]
    images: tuple[ImageInput, ...] = ()


@dataclass(frozen=True)
class PromptGroup:
    """K completions of one prompt; an offline pair has K = 2 (chosen first), an online group K = G.

    completions: K lists of token ids, each ending in EOS when the text is finished.
    rewards: K scalars; empty while only scoring.
    rollout_logprobs: K lists of log-probs under the sampling policy (online members), nats.
    temperature: what logits are divided by.
    targets: K lists of token ids that are scored in place of the completions', while those are read; None for the same.
    """

    prompt: Prompt
    completions: list[list[int]]
    sample_id: str = ""
    source: Literal["offline", "online"] = "offline"
    rewards: list[float] = field(default_factory=list)
    rollout_logprobs: list[list[float]] | None = None
    temperature: float = 1.0
    targets: list[list[int]] | None = None

    def distinct(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(read, scored) of each completion that differs from those before it."""
        return list(dict.fromkeys(self.pairs()))

    def pairs(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(read, scored) of each completion."""
        scored = self.completions if self.targets is None else self.targets
        return [(tuple(read), tuple(target)) for read, target in zip(self.completions, scored, strict=True)]
