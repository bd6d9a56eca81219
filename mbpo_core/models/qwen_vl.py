"""What the Qwen-VL families share: images of any size, features of 2 x 2 patches, M-RoPE positions.

M-RoPE counts positions in time, height and width. Shape letters as in `family`; N patches of a picture, S = 3 x
temporal patch x patch x patch values a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin

from mbpo_core.errors import ShapeError, UnusableImage
from mbpo_core.models.families import Part
from mbpo_core.models.family import Family
from mbpo_core.models.groups import ImageInput, Prompt
from mbpo_core.records import Blind


class WithoutVideo(ProcessorMixin):  # type: ignore[misc]
    """Goes before a processor of transformers and leaves out its video part, which needs torchvision.

    What the mixed class saves names the original one, as long as it has the same name.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **_: Any) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids([self.image_token, self.video_token])
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class QwenVLFamily(Family):
    """Adapter of a Qwen-VL; subclasses name the processor."""

    processor_class: ClassVar[Any]

    def __init__(self, processor: Any, config: Any) -> None:
        super().__init__(processor, config)
        images = processor.image_processor
        self._patch, self._merge, self._frames = images.patch_size, images.merge_size, images.temporal_patch_size

    @classmethod
    def load_processor(cls, folder: Any, **local: Any) -> Any:
        # Pillow in every environment: torchvision would resize to other pixels.
        images = Qwen2VLImageProcessorPil.from_pretrained(folder, **local)
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        described, _ = cls.processor_class.get_processor_dict(folder, **local)
        template = described.get("chat_template") or tokenizer.chat_template
        return cls.processor_class(images, tokenizer, chat_template=template)

    def image_token_ids(self) -> list[int]:
        # Start and end of vision are left out: they are ordinary positions, which no model fills with an image.
        return [int(self._config.image_token_id), int(self._config.video_token_id)]

    def read(self, image: Image) -> ImageInput:
        made = self._process(image)
        patches = torch.from_numpy(made["pixel_values"]).float()
        return self._input(patches, *map(int, made["image_grid_thw"][0]))

    def native(self, image: Image) -> Tensor:
        made = self._process(image, do_rescale=False, do_normalize=False)
        _, height, width = map(int, made["image_grid_thw"][0])
        merge, patch = self._merge, self._patch
        blocks = made["pixel_values"].reshape(
            height // merge, width // merge, merge, merge, 3, self._frames, patch, patch
        )[:, :, :, :, :, 0]  # all frames are alike
        pixels = blocks.transpose(4, 0, 2, 5, 1, 3, 6).reshape(3, height * patch, width * patch)
        return torch.from_numpy(np.rint(pixels).clip(0, 255).astype(np.uint8))

    def image_input(self, normalised: Tensor) -> ImageInput:
        _, height, width = normalised.shape
        merge, patch = self._merge, self._patch
        if height % (merge * patch) or width % (merge * patch):
            raise ShapeError(
                f"an image has {height} x {width} pixels", expected=f"native size, multiples of {merge * patch}"
            )
        rows, columns = height // patch, width // patch
        blocks = normalised.reshape(3, rows // merge, merge, patch, columns // merge, merge, patch)
        # Patches of one feature stand together; a picture is a film whose frames are all alike.
        frame = blocks.permute(1, 4, 2, 5, 0, 3, 6)[:, :, :, :, :, None]
        film = frame.expand(*frame.shape[:5], self._frames, *frame.shape[6:])
        return self._input(film.reshape(rows * columns, -1), 1, rows, columns)

    def blank_pixels(self, image: ImageInput, blind: Blind) -> Tensor:
        blank = torch.zeros_like(image.pixel_values)
        if blind == "mean":
            return blank
        black = -(self._mean / self._std).to(blank)
        return (blank.view(len(blank), 3, -1) + black.view(1, 3, 1)).view_as(blank)

    def encode(self, model: Any, images: Sequence[ImageInput]) -> list[Tensor]:
        return list(self._encode(model, images).pooler_output)

    def positions(self, prompt: Prompt) -> Tensor:
        """(3, P): text counts up on all axes alike; an image's time stands still while height and width count."""
        parts: list[Tensor] = []
        slot, place, follow = self._slot_id(), 0, 0
        for image in prompt.images:
            text = prompt.token_ids.index(slot, place) - place
            grid = self._grid(image)
            parts += [torch.arange(text).expand(3, -1) + follow, grid + follow + text]
            place += text + image.features
            follow += text + int(grid.max()) + 1
        rest = len(prompt.token_ids) - place
        return torch.cat([*parts, torch.arange(rest).expand(3, -1) + follow], dim=1)

    def part_of(self, parameter_name: str) -> Part:
        if "visual.merger." in parameter_name:
            return "projector"
        return "vision" if "visual." in parameter_name else "language"

    def _encode(self, model: Any, images: Sequence[ImageInput]) -> Any:
        """What the model's tower and projector yield of M images, split by image."""
        patches = torch.cat([image.pixel_values.to(model.device, model.dtype) for image in images])
        grids = torch.tensor([image.grid for image in images], device=model.device)
        return model.get_image_features(pixel_values=patches, image_grid_thw=grids, return_dict=True)

    def _process(self, image: Image, **changed: Any) -> Any:
        try:
            return self._processor.image_processor([image.convert("RGB")], return_tensors="np", **changed)
        except ValueError as error:  # the only one left for an RGB picture: it is too narrow to be resized
            raise UnusableImage(
                f"the image of {image.width} x {image.height} pixels cannot be resized: {error}"
            ) from error

    def _input(self, patches: Tensor, time: int, height: int, width: int) -> ImageInput:
        return ImageInput(patches, time * height * width // self._merge**2, (time, height, width))

    def _grid(self, image: ImageInput) -> Tensor:
        """(3, F) long: time, row and column of an image's features, from 0."""
        assert image.grid is not None
        time, height, width = image.grid
        sides = (torch.arange(time), torch.arange(height // self._merge), torch.arange(width // self._merge))
        return torch.stack(torch.meshgrid(*sides, indexing="ij")).flatten(1)
