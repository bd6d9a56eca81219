"""Masks of what boxes hold, by SAM or SAM 2."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL.Image import Image, Resampling
from torch import Tensor
from torch.nn.functional import interpolate, pad

from mbpo_core.negatives.boxes import Mask
from mbpo_core.negatives.local_models import load_local

_CLASSES = {"sam": "SamModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of all published weights


@lru_cache(maxsize=1)
def load_segmenter(folder: str, device: torch.device) -> Any:
    """SAM or SAM 2 from a local folder."""
    return load_local(folder, "negatives.segmentation_model", _CLASSES, device)


def segment(model: Any, picture: Image, boxes: Sequence[tuple[float, float, float, float]]) -> Mask:
    """(height, width) bool: the union of the masks of some boxes, one mask a box.

    Args:
        model: of `load_segmenter`.
        picture: RGB, of any size.
        boxes: x0, y0, x1, y1 in its pixels; at least one.
    """
    pixels, height, width = prepare(model, picture)
    scale = torch.tensor([width / picture.width, height / picture.height] * 2)
    with torch.no_grad():
        output = model(
            pixel_values=pixels.to(model.device),
            input_boxes=(torch.tensor(boxes) * scale)[None].to(model.device),
            multimask_output=False,
        )
    side = pixels.shape[-1]
    logits = interpolate(output.pred_masks[0], (side, side), mode="bilinear", align_corners=False)
    shown = logits[..., :height, :width]  # without the padding
    whole = interpolate(shown, (picture.height, picture.width), mode="bilinear", align_corners=False)
    union: Mask = (whole > 0).any(0)[0].cpu().numpy()
    return union


def prepare(model: Any, picture: Image) -> tuple[Tensor, int, int]:
    """The picture as the model takes it, (1, 3, S, S), and the height and width that it fills of it.

    SAM 2 stretches it to the square; SAM scales its longer side to S and pads it at the bottom and on the right.
    """
    side = int(model.config.prompt_encoder_config.image_size)
    height = width = side
    if model.config.model_type == "sam":
        scale = side / max(picture.size)
        height, width = int(picture.height * scale + 0.5), int(picture.width * scale + 0.5)
    resized = np.asarray(picture.convert("RGB").resize((width, height), Resampling.BILINEAR), dtype=np.float32)
    levels = torch.from_numpy(resized).permute(2, 0, 1) / 255
    normalised = (levels - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)
    return pad(normalised, (0, side - width, 0, side - height))[None], height, width
