"""Everything the code knows about a model family, behind one interface.

Shape letters: M images, C = 3, H W pixels, F features an image, D width, B rows, L length, A position axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from mbpo_core.errors import ShapeError
from mbpo_core.models.families import Part
from mbpo_core.models.groups import ImageInput, Prompt
from mbpo_core.records import Blind


class Family(ABC):
    """What differs between model families, and beside it what most have in common."""

    pixel_bounds = (0.0, 1.0)  # of the images that attacks work on
    own_masks = False
    """`hidden` makes the masks of windows and image blocks from position ids, so that they mean the same in packed
    rows. Such a family attends under dense masks, never segment by segment."""

    def __init__(self, processor: Any, config: Any) -> None:
        self._processor = processor
        self._config = config
        image_processor = processor.image_processor
        self._mean = torch.tensor(image_processor.image_mean).view(3, 1, 1)
        self._std = torch.tensor(image_processor.image_std).view(3, 1, 1)

    @classmethod
    @abstractmethod
    def load_processor(cls, folder: Any, **local: Any) -> Any:
        """The family's processor, from local files; images on Pillow, and nothing of its video part."""

    def render(self, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        """The chat template's text; image slots are still one placeholder each."""
        text: str = self._processor.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=False
        )
        return text

    def tokenize(self, text: str, images: Sequence[ImageInput]) -> list[int]:
        """Token ids of a rendered prompt whose image slots are filled with the images' positions."""
        # A template that writes BOS itself must not get a second one from the tokenizer.
        tokenizer = self._processor.tokenizer
        special = not (tokenizer.bos_token and text.startswith(tokenizer.bos_token))
        token_ids: list[int] = tokenizer(text, add_special_tokens=special)["input_ids"]
        counts, slot = (image.features for image in images), self._slot_id()
        return [t for token in token_ids for t in ([token] * next(counts, 1) if token == slot else [token])]

    @abstractmethod
    def image_token_ids(self) -> list[int]:
        """Ids that stand for image or video positions."""

    def banned_token_ids(self) -> list[int]:
        """Ids that are never sampled, never scored, and that no text may hold: image positions and image slots."""
        return self.image_token_ids()

    @abstractmethod
    def read(self, image: Image) -> ImageInput:
        """What the family's processor makes of a picture, without a key."""

    @abstractmethod
    def native(self, image: Image) -> Tensor:
        """(3, H, W) uint8: the image at the size the vision tower sees, resized and cropped once.

        The picture itself where the tower sees it at several sizes; `image_input` then resizes.
        """

    @abstractmethod
    def image_input(self, normalised: Tensor) -> ImageInput:
        """The input of one (3, H, W) image of native size after `normalise`; differentiable."""

    @abstractmethod
    def blank_pixels(self, image: ImageInput, blind: Blind) -> Tensor:
        """Pixel values of the mean-colour ("mean") or black ("black") image, in the shape of this one's."""

    @abstractmethod
    def encode(self, model: Any, images: Sequence[ImageInput]) -> list[Tensor]:
        """M tensors (F, D): what the language model sees of each image; differentiable.

        D is the width of the embeddings, or more where `hidden` of the same family takes more.
        """

    @abstractmethod
    def part_of(self, parameter_name: str) -> Part:
        """The part of the model a parameter belongs to."""

    def normalise(self, images: Tensor) -> Tensor:
        """(M, 3, H, W) in [0, 1] -> the same shape with the tower's mean and deviation taken out; affine."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ShapeError(f"images have shape {tuple(images.shape)}", expected="(M, 3, H, W) in [0, 1]")
        return (images - self._mean.to(images)) / self._std.to(images)

    def image_inputs(self, images: Tensor) -> list[ImageInput]:
        """Inputs of (M, 3, H, W) images in [0, 1] at native size; differentiable, equal to the processor's."""
        return [self.image_input(image) for image in self.normalise(images)]

    def blinded(self, image: ImageInput, blind: Blind) -> ImageInput:
        """The blank image that stands for this one; equal sizes share a key."""
        pixels = self.blank_pixels(image, blind)
        return replace(image, pixel_values=pixels, key=f"{blind}-{tuple(pixels.shape)}-{image.grid}-{image.size}")

    def positions(self, prompt: Prompt) -> Tensor:
        """(A, P) long: position ids of the whole prompt; completions go on behind its largest, on every axis."""
        return torch.arange(len(prompt.token_ids))[None]

    def hidden(
        self,
        model: Any,
        features: Sequence[Tensor] | None,
        *,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        key_positions: Tensor | None = None,
        cache: Any = None,
        **more: Any,
    ) -> Tensor:
        """Last hidden states of the language model.

        Args:
            model: of this family.
            features: of the images, in the order of the rows' image positions; None where there are none.
            input_ids: (B, L) long.
            attention_mask: (B, L) bool over all keys, or (B, 1, L, keys) additive in the model's dtype.
            position_ids: (A, B, L) long.
            key_positions: (A, B, keys) long, where a cache holds earlier ones; only `own_masks` looks at them.
            cache: keys and values so far; extended in place.
            more: passed on to the language model: segments of packed rows, what only this family knows.

        Returns:
            (B, L, D) in the model's dtype.
        """
        language = self.language_model(model)
        embeddings = language.get_input_embeddings()(input_ids)
        if features:
            slots = self.image_positions(input_ids)
            embeddings = embeddings.masked_scatter(slots[..., None], torch.cat(list(features)).to(embeddings))
        output = language(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            position_ids=position_ids[0] if len(position_ids) == 1 else position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
            **more,
        )
        states: Tensor = output.last_hidden_state
        return states

    def image_positions(self, input_ids: Tensor) -> Tensor:
        """(B, L) bool: the places of (B, L) ids that images fill."""
        return torch.isin(input_ids, torch.tensor(self.image_token_ids(), device=input_ids.device))

    def language_model(self, model: Any) -> Any:
        """The transformer between embeddings and vocabulary projection."""
        return model.model.language_model

    def _slot_id(self) -> int:
        return int(self._config.image_token_id)
