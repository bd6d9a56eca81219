"""Everything the code knows about a model family, behind one interface keyed on `config.model_type`.

Importing this module needs no torch, so that a folder can be refused before anything heavy is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from mbpo_core.errors import ModelError
from mbpo_core.records import Blind

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Part = Literal["vision", "projector", "language"]

FAMILIES: dict[str, str] = {"llava": "mbpo_core.models.llava:LlavaFamily"}
"""model_type -> "module:class" of its adapter."""

FROZEN_PARTS: dict[str, frozenset[Part]] = {
    "none": frozenset(),
    "vision": frozenset({"vision"}),
    "vision_and_projector": frozenset({"vision", "projector"}),
    "language": frozenset({"language"}),
}
"""Values of `training.freeze` -> the parts whose weights stay bit-equal."""


class Family(Protocol):
    """What differs between model families. Shape letters: M images, C = 3, H W pixels, F features an image, D width."""

    pixel_bounds: tuple[float, float]  # of the images that attacks work on

    def render(self, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        """The chat template's text; image slots are still one placeholder each."""

    def tokenize(self, text: str, images: list[Image]) -> tuple[list[int], Tensor]:
        """Token ids with every image slot expanded, and pixel_values (M, 3, H, W) float32."""

    def image_token_ids(self) -> list[int]:
        """Ids that stand for image or video positions; never sampled, never scored."""

    def feature_count(self, pixel_values: Tensor) -> int:
        """How many image positions these pixel values fill."""

    def native(self, image: Image) -> Tensor:
        """(3, H, W) uint8: the image at the size the vision tower sees, resized and cropped once."""

    def pixel_values(self, images: Tensor) -> Tensor:
        """(M, 3, H, W) in [0, 1] at native size -> pixel_values; differentiable, equal to the processor's."""

    def blind_pixels(self, pixel_values: Tensor, blind: Blind) -> Tensor:
        """Pixel values of the mean-colour ("mean") or black ("black") image, same shape."""

    def encode(self, model: Any, pixel_values: Tensor) -> list[Tensor]:
        """M tensors (F, D): what the language model sees of each image; differentiable."""

    def forward(self, model: Any, features: list[Tensor] | None, **inputs: Any) -> Any:
        """The model's forward pass with image features already computed, in row order."""

    def part_of(self, parameter_name: str) -> Part:
        """The part of the model a parameter belongs to."""


def family_class(model_type: str, *, where: str) -> type[Any]:
    """The adapter class of a family.

    Raises:
        ModelError: if no adapter is registered for this model_type.
    """
    check_family(model_type, where=where)
    module, _, name = FAMILIES[model_type].partition(":")
    return cast("type[Any]", getattr(importlib.import_module(module), name))


def check_family(model_type: str, *, where: str) -> None:
    """Refuse a model_type without adapter; imports nothing."""
    if model_type not in FAMILIES:
        raise ModelError(
            f"model_type {model_type!r} has no adapter",
            where=where,
            expected=f"one of {', '.join(sorted(FAMILIES))}",
            remedy="Choose a model of a supported family, or add an adapter to mbpo_core/models/families.py.",
        )
