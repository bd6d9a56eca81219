"""Which part of a sample's images its chosen response speaks of.

A detector is a function `(Bench, several Sought) -> several Found | None`; adding one is a file, a line in
`_DETECTORS`, a value of `negatives.detector`, and a test.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mbpo_core.negatives.bench import Bench
from mbpo_core.negatives.keywords import Keyword, choose_keywords
from mbpo_core.negatives.tasks import Task
from mbpo_core.negatives.vectors import embeddings, from_table
from mbpo_core.negatives.words import Span, Topic, topics

GLOBAL = "global"
"""Detector of regions where the one that was asked found nothing: the whole image, as MFPO falls back."""


@dataclass(frozen=True)
class Region:
    """The key region of one sample.

    Attributes:
        masks: (n, H, W) bool, True inside, at the native size of each clean image.
        keywords: the words that were looked for, the most important first.
        detector: what found it; GLOBAL where nothing was found.
        how: {"region": what was found and by which keywords}, JSON values.
    """

    masks: Tensor
    keywords: tuple[str, ...]
    detector: str
    how: dict[str, Any]

    def around_point(self) -> Tensor:
        """(n, H, W) bool: the part of the masks in reach of the pixel that the detector is surest of.

        In reach is a square of a sixth of the longer side to each side of it; everything where there is no such pixel.
        """
        if (point := self.how["region"].get("point")) is None:
            return self.masks
        image, y, x = point
        _, height, width = self.masks.shape
        reach = max(1, round(max(height, width) / 6))
        near = torch.zeros_like(self.masks)
        near[image, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = True
        return self.masks & near


@dataclass(frozen=True)
class Sought:
    """A sample and what to look for in its images.

    Attributes:
        keywords: of the chosen response, best first; none where it has no content word ("Yes", "B", "2").
        tokens: the places of each keyword's tokens in `task.chosen`.
    """

    task: Task
    keywords: list[Keyword]
    tokens: list[list[int]]


@dataclass(frozen=True)
class Found:
    """What a detector saw of one sample.

    Attributes:
        masks: (n, H, W) bool, True somewhere.
        point: (image, y, x), the native pixel that the detector is surest of.
        how: further JSON values, for the record.
    """

    masks: Tensor
    point: tuple[int, int, int]
    how: dict[str, Any] = field(default_factory=dict)


Detector = Callable[[Bench, Sequence[Sought]], Sequence[Found | None]]

_DETECTORS = {"saliency": "saliency:by_saliency", "boxes": "boxes:by_boxes", "grounded": "grounding:by_grounding"}


def find_regions(bench: Bench, tasks: Sequence[Task], about: Sequence[Span | None] | None = None) -> list[Region]:
    """The key region of each sample, by the detector of the settings; everything where that finds nothing.

    Args:
        bench: model and settings.
        tasks: samples.
        about: for each the characters [start, stop) of its answer whose words alone are looked for; None for all.

    Source: MFPO arXiv:2410.15334, recipe 2.3 and 2.4.
    """
    module, _, function = _DETECTORS[bench.settings.detector].partition(":")
    detect: Detector = getattr(importlib.import_module(f"mbpo_core.negatives.{module}"), function)
    sought = [seek(bench, task, span) for task, span in zip(tasks, about or [None] * len(tasks), strict=True)]
    return [
        _region(bench.settings.detector, one, found) for one, found in zip(sought, detect(bench, sought), strict=True)
    ]


def seek(bench: Bench, task: Task, about: Span | None = None) -> Sought:
    """The keywords of a sample's chosen response, or of a part of it, and where their tokens are."""
    answer, settings = task.sample.answer.strip(), bench.settings
    spans = bench.policy.completion_spans(answer)
    candidates = [topic for whole in topics(answer) if (topic := whole.within(about))]
    if settings.word_vectors:
        vectors = from_table(settings.word_vectors, candidates)
    else:
        vectors = embeddings(bench.policy, [[task.chosen[p] for p in _places(topic, spans)] for topic in candidates])
    keywords = choose_keywords(candidates, vectors, settings)
    return Sought(task, keywords, [_places(keyword.topic, spans) for keyword in keywords])


def _places(topic: Topic, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The tokens that share a character with any repetition of a word."""
    return [
        place
        for place, (start, stop) in enumerate(spans)
        if any(start < end and stop > begin for begin, end in topic.spans)
    ]


def _region(detector: str, sought: Sought, found: Found | None) -> Region:
    names = tuple(keyword.text for keyword in sought.keywords)
    how: dict[str, Any] = {"keyword_scores": [round(keyword.score, 4) for keyword in sought.keywords]}
    if found is None:
        images, _, height, width = sought.task.images.shape
        return Region(torch.ones(images, height, width, dtype=torch.bool), names, GLOBAL, {"region": how})
    return Region(found.masks, names, detector, {"region": how | {"point": list(found.point)} | found.how})
