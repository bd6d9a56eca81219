"""What every generator takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mbpo_core.models.groups import Prompt
from mbpo_core.negatives.ball import LEVELS

if TYPE_CHECKING:
    from mbpo_core.negatives.bench import Known

Stopped = Literal["steps", "logprob", "flip"]


@dataclass(frozen=True)
class Item:
    """One sample to perturb.

    Attributes:
        prompt: the question with the clean images.
        images: (n, 3, H, W) uint8, the clean images at native size.
        chosen: token ids of the reference answer, whose likelihood the attack lowers.
        target: token ids whose likelihood a targeted attack raises instead; None where there is none.
        seed: of this sample's random numbers; nothing else is random.
        may_flip: the clean images were answered rightly, so that there is an answer to flip.
        region: (n, 1, H, W) bool, the pixels that may change; None lets all.
    """

    prompt: Prompt
    images: Tensor
    chosen: list[int]
    target: list[int] | None
    seed: int
    may_flip: bool = True
    region: Tensor | None = None

    @property
    def aim(self) -> list[int]:
        """The completion whose likelihood is pushed."""
        return self.target or self.chosen

    @property
    def length(self) -> int:
        """Tokens of the row that the attack reads."""
        return len(self.prompt.token_ids) + len(self.aim)


@dataclass(frozen=True)
class Perturbed:
    """The perturbed images of one item, on the CPU.

    Attributes:
        saved: (n, 3, H, W) uint8, as it is stored.
        inexact: (n, 3, H, W) float32 in [0, 1], before rounding to 8 bits; None where rounding changed nothing.
        linf: largest pixel change of `saved`, pixels in 0-1.
        steps: gradient steps taken.
        curve: mean log p of what is aimed at (chosen, or the target), nats per token, at every iterate that a pass saw.
        stopped: why no further step was taken: all were, the loss bound was met, or the answer had flipped.
        checks: how often its answer was decoded to see whether it had flipped.
        proof: what the last of these checks gave; None unless stopped is "flip".
    """

    saved: Tensor
    inexact: Tensor | None
    linf: float
    steps: int = 0
    curve: Sequence[float] = ()
    stopped: Stopped = "steps"
    checks: int = 0
    proof: Any = None

    @property
    def unrounded(self) -> Tensor:
        """(n, 3, H, W) float32 in [0, 1]."""
        return self.saved / LEVELS if self.inexact is None else self.inexact


def measured(item: Item, unrounded: Tensor, saved: Tensor, **taken: Any) -> Perturbed:
    """Perturbed images given in levels, (n, 3, H, W) before and after rounding; `taken` says how the attack went."""
    stored = saved.to(torch.uint8).cpu()
    return Perturbed(
        saved=stored,
        inexact=None if torch.equal(unrounded, saved) else (unrounded / LEVELS).cpu(),
        linf=(stored.int() - item.images.int()).abs().max().item() / LEVELS,
        **taken,
    )


@dataclass(frozen=True)
class Made:
    """What a generator made of one sample.

    Attributes:
        pictures: the rejected images, each (3, H, W) uint8 on the CPU and of any size; none where only the response is
            dispreferred.
        perturbed: where they are the clean images changed in place, how; `pictures` are then its `saved`.
        rejected: the rejected response; None leaves it to decoding the answer to `pictures`.
        images: the clean images, where the generator changed them too; None leaves the sample's. A collage, which is
            asked about and has no wrong image, gives the same list as `pictures`.
        question: likewise.
        masks: (n, H, W) bool, the key regions of the clean images; None where there are none.
        keywords: what the regions belong to.
        detector: what found them; "" where nothing was looked for.
        instead: the sample that the row is about, where the generator made it of the one it was given; None: that one.
        how: all that it takes to make the row again, besides the settings that the generator reads: JSON values.
    """

    pictures: Sequence[Tensor] = ()
    perturbed: Perturbed | None = None
    rejected: str | None = None
    images: Sequence[Tensor] | None = None
    question: str | None = None
    masks: Tensor | None = None
    keywords: Sequence[str] = ()
    detector: str = ""
    instead: Known | None = None
    how: dict[str, Any] = field(default_factory=dict)

    @property
    def wrong(self) -> bool:
        """Whether `pictures` differ from what the row shows as its clean images."""
        return bool(self.pictures) and self.pictures is not self.images

    @classmethod
    def of(cls, perturbed: Perturbed, **more: Any) -> Made:
        """Clean images changed in place."""
        return cls(pictures=list(perturbed.saved), perturbed=perturbed, **more)


@dataclass(frozen=True)
class Unmade:
    """Why a generator can make nothing of a sample; `reason` is one of the stage's closed set."""

    reason: str
    detail: str
