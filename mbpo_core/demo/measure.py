"""Quick accuracy of a checkpoint on the probes, by plain batched greedy generation; for tuning the base models."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from mbpo_core.demo.objects import object_synonyms
from mbpo_core.records import Sample

_MAX_NEW_TOKENS = 40


@dataclass(frozen=True)
class Score:
    """Shares over the n questions of one group."""

    n: int
    right: float
    says_prior: float


def measure(folder: Path, samples: Sequence[Sample], *, batch: int = 64) -> dict[str, Score]:
    """Accuracy by probe and, within a probe, by answer form and true answer.

    Args:
        folder: checkpoint that the Auto classes load.
        samples: probes; their pictures must be inline.
        batch: prompts a generate call.

    Returns:
        Scores keyed "probe", "probe/form", and for yes/no questions "probe=Yes", "probe=No".
    """
    texts = answers(folder, samples, batch=batch)
    groups: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for sample, text in zip(samples, texts, strict=True):
        meta = json.loads(sample.meta)
        prior = meta["prior_answer"]
        verdict = (_agree(sample, text, sample.answer), prior is not None and _agree(sample, text, prior))
        for key in _keys(sample, meta):
            groups[key].append(verdict)
    return {
        key: Score(len(rows), sum(a for a, _ in rows) / len(rows), sum(b for _, b in rows) / len(rows))
        for key, rows in groups.items()
    }


def answers(folder: Path, samples: Sequence[Sample], *, batch: int = 64) -> list[str]:
    """The greedy answer to every sample, in order, stripped."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    texts: list[str] = []
    with torch.inference_mode():
        for start in range(0, len(samples), batch):
            part = samples[start : start + batch]
            inputs = processor(
                images=[Image.open(io.BytesIO(sample.images[0].bytes or b"")) for sample in part],
                text=[processor.apply_chat_template(_chat(sample), add_generation_prompt=True) for sample in part],
                padding=True,
                return_tensors="pt",
            )
            output = model.generate(**inputs, max_new_tokens=_MAX_NEW_TOKENS, do_sample=False)
            completions = output[:, inputs["input_ids"].shape[1] :]
            texts += [text.strip() for text in processor.batch_decode(completions, skip_special_tokens=True)]
    return texts


def chair(samples: Iterable[Sample], texts: Iterable[str]) -> tuple[float, float]:
    """(CHAIR_i, recall) of captions: share of named objects that are not shown; share of shown objects named."""
    synonyms = object_synonyms()
    named = wrong = shown = found = 0
    for sample, text in zip(samples, texts, strict=True):
        present = set(json.loads(sample.meta)["objects"])
        words = (word.strip(".,") for word in text.lower().split())
        mentioned = {synonyms[word] for word in words if word in synonyms}
        named, wrong = named + len(mentioned), wrong + len(mentioned - present)
        shown, found = shown + len(present), found + len(mentioned & present)
    return wrong / max(named, 1), found / max(shown, 1)


def _keys(sample: Sample, meta: dict[str, object]) -> list[str]:
    probe = str(meta["probe"])
    keys = [probe, f"{probe}/{sample.answer_form}"]
    if sample.kind == "yes_no":
        keys.append(f"{probe}={_first_word(sample.answer)}")
    if meta["prior_answer"] is not None:
        keys.append(f"{probe}:{'conflict' if meta['conflict'] else 'consistent'}")
    return keys


def _agree(sample: Sample, text: str, answer: str) -> bool:
    return _first_word(text) == _first_word(answer) if sample.kind == "yes_no" else text == answer


def _first_word(text: str) -> str:
    return text.split(",")[0].split(" ")[0]


def _chat(sample: Sample) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": sample.question}]}]
