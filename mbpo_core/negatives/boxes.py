"""Key regions by labelled boxes that came with the data, and boxes as masks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as pil
from torch import Tensor

from mbpo_core.errors import DataError
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.bench import Bench
from mbpo_core.negatives.regions import Found, Sought
from mbpo_core.negatives.tasks import Task
from mbpo_core.negatives.words import same_word
from mbpo_core.records import Sample

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Box:
    """A labelled rectangle of a stored picture.

    Attributes:
        label: what is in it.
        corners: x0, y0, x1, y1 in pixels of the stored picture; x1 and y1 are outside.
        image: which of the sample's pictures, from 0.
        score: how sure a detector is of it; None of the data's own.
    """

    label: str
    corners: tuple[float, float, float, float]
    image: int = 0
    score: float | None = None

    def record(self) -> dict[str, Any]:
        """As JSON values, in the form of meta."""
        sure = {} if self.score is None else {"score": round(self.score, 4)}
        return {"label": self.label, "box": [round(x, 2) for x in self.corners], "image": self.image, **sure}

    def mask(self, width: int, height: int) -> Mask:
        """(height, width) bool: the pixels inside; at least one unless it lies beside the picture."""
        x0, y0, x1, y1 = self.corners
        left, top = round(max(x0, 0.0)), round(max(y0, 0.0))
        inside = np.zeros((height, width), dtype=np.bool_)
        inside[top : max(round(y1), top + 1), left : max(round(x1), left + 1)] = x1 > 0 and y1 > 0
        return inside


def by_boxes(bench: Bench, several: Sequence[Sought]) -> list[Found | None]:
    """The boxes of the sample's meta whose label has a keyword among its words; None where there are none."""
    found: list[Found | None] = []
    for sought in several:
        named = [box for box in read_boxes(sought.task.sample) if _named(box, sought)]
        found.append(inside_boxes(bench.policy, sought.task, named))
    return found


def inside_boxes(policy: Policy, task: Task, boxes: Sequence[Box]) -> Found | None:
    """The union of some boxes; the point is the middle of the first that can be seen at native size."""
    sizes = [open_image(image).size for image in task.sample.images]
    masks = torch.zeros(len(sizes), *task.images.shape[-2:], dtype=torch.bool)
    point: tuple[int, int, int] | None = None
    for box in boxes:
        seen = native_mask(policy, box.mask(*sizes[box.image]))
        masks[box.image] |= seen
        if point is None and seen.any():
            y, x = seen.nonzero().float().mean(0).tolist()
            point = (box.image, int(y), int(x))
    if point is None:
        return None
    return Found(masks, point, {"boxes": [box.record() for box in boxes]})


def native_mask(policy: Policy, mask: Mask) -> Tensor:
    """(H, W) bool of a stored picture's size -> the same at native size: resized and cropped as the picture is."""
    picture = pil.fromarray(mask.astype(np.uint8) * 255).convert("RGB")
    return policy.family.native(picture)[0] >= 128


def read_boxes(sample: Sample) -> list[Box]:
    """The boxes of a sample's meta, `{"boxes": [{"label": ..., "box": [x0, y0, x1, y1], "image": 0}]}`.

    Raises:
        DataError: an entry has another form, or names a picture that the sample does not have.
    """
    return [_read(entry, sample) for entry in json.loads(sample.meta).get("boxes", [])]


def _read(entry: Any, sample: Sample) -> Box:
    try:
        x0, y0, x1, y1 = (float(value) for value in entry["box"])
        box = Box(str(entry["label"]), (x0, y0, x1, y1), int(entry.get("image", 0)))
        if x0 < x1 and y0 < y1 and 0 <= box.image < len(sample.images):
            return box
    except (TypeError, KeyError, ValueError, AttributeError):
        pass
    raise DataError(
        f"a box of meta is none: {json.dumps(entry)[:120]}",
        where=f"sample {sample.sample_id}",
        expected='{"label": text, "box": [x0, y0, x1, y1], "image": 0}, x0 < x1, y0 < y1, of one of its pictures',
        remedy="Boxes are in pixels of the stored picture.",
    )


def _named(box: Box, sought: Sought) -> bool:
    words = re.findall(r"[^\W\d_]+", box.label.lower())
    return any(same_word(word, keyword.text) for word in words for keyword in sought.keywords)
