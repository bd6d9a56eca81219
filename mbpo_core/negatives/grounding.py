"""Key regions by GroundingDINO, which finds what a text names, and SAM or SAM 2, which fill its boxes.

Both come from local folders. Pictures are prepared without torchvision: GroundingDINO's by the Pillow version of its
processor, SAM's in `segmentation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from mbpo_core.models.images import open_image
from mbpo_core.negatives.bench import Bench
from mbpo_core.negatives.boxes import Box, inside_boxes, native_mask
from mbpo_core.negatives.local_models import load_local
from mbpo_core.negatives.regions import Found, Sought
from mbpo_core.negatives.segmentation import load_segmenter, segment

_CLASSES = dict.fromkeys(("grounding-dino", "mm-grounding-dino"), "AutoModelForZeroShotObjectDetection")


def by_grounding(bench: Bench, several: Sequence[Sought]) -> list[Found | None]:
    """What the detector finds for the keywords, in every image; None without keywords or below the threshold.

    The prompt is the keywords, a full stop behind each. Every box of at least `grounding_threshold` counts; with a
    segmentation model its mask takes the box's place, unless all of a picture's masks are empty.

    Source: recipe 2.4; GroundingDINO arXiv:2303.05499, SAM arXiv:2304.02643, SAM 2 arXiv:2408.00714.
    """
    found: list[Found | None] = []
    for sought in several:
        pictures = [open_image(image) for image in sought.task.sample.images] if sought.keywords else []
        text = " ".join(f"{keyword.text}." for keyword in sought.keywords)
        boxes = [
            replace(box, image=number)
            for number, picture in enumerate(pictures)
            for box in detect(bench, picture, text)
        ]
        found.append(_fill(bench, sought, sorted(boxes, key=lambda box: -(box.score or 0.0)), pictures))
    return found


def detect(bench: Bench, picture: Image, text: str) -> list[Box]:
    """The boxes whose confidence reaches the threshold, in pixels of the picture.

    One picture a pass: in a batch they are padded to the largest, and the backbone sees the padding.
    """
    least = bench.settings.grounding_threshold
    model, processor = _detector(bench.settings.grounding_model, bench.policy.device)
    inputs = processor(images=picture, text=text, return_tensors="pt").to(model.device)
    with torch.no_grad():
        outputs = model(**inputs)
    (result,) = processor.post_process_grounded_object_detection(
        outputs,
        inputs["input_ids"],
        threshold=least,
        text_threshold=least,
        target_sizes=[(picture.height, picture.width)],
    )
    # Where there is no box the processor still gives a label.
    columns = zip(result["boxes"].tolist(), result["scores"].tolist(), result["text_labels"], strict=False)
    return [Box(label, tuple(corners), score=score) for corners, score, label in columns]


def _fill(bench: Bench, sought: Sought, boxes: list[Box], pictures: Sequence[Image]) -> Found | None:
    """The boxes' masks, by the segmentation model where there is one."""
    found = inside_boxes(bench.policy, sought.task, boxes)
    if found is None or not bench.settings.segmentation_model:
        return found
    segmenter = load_segmenter(bench.settings.segmentation_model, bench.policy.device)
    masks = found.masks.clone()
    for number in {box.image for box in boxes}:
        corners = [box.corners for box in boxes if box.image == number]
        filled = native_mask(bench.policy, segment(segmenter, pictures[number], corners))
        if filled.any():
            masks[number] = filled
    return replace(found, masks=masks)


@lru_cache(maxsize=1)
def _detector(folder: str, device: torch.device) -> tuple[Any, Any]:
    from transformers import AutoProcessor

    model = load_local(folder, "negatives.grounding_model", _CLASSES, device)
    return model, AutoProcessor.from_pretrained(Path(folder).expanduser(), local_files_only=True)
