"""Made-up negatives of every kind: real demo scenes with invented answers and numbers."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mbpo_core import records
from mbpo_core.methods import NEGATIVES
from mbpo_core.records import Sample

Pixels = npt.NDArray[np.uint8]

WORDS = ("yellow", "red", "green", "blue", "purple", "orange")
_SETTINGS = {
    "norm": "linf", "epsilon": 16 / 255, "steps": 10, "random_start": True, "momentum": 0.0, "target": "none",
    "attack_region": False, "detector": "saliency", "region_share": 0.15, "diffusion_step": 500, "crop_min": 0.01,
    "crop_max": 0.2, "counterfactual": "question", "layout": "sequence",
}  # fmt: skip


def fake_negative(kind: str, sample: Sample, others: Sequence[Sample], rng: random.Random) -> records.Negative:
    """A row of that kind; `others` are the samples that a retrieved image may come from."""
    wrong = wrong_answer(sample, rng)
    right = rng.random() < 0.7
    made = _made(kind, sample, others, rng)
    changed = bool(made["rejected_images"])
    flipped = right and changed and rng.random() < 0.9
    in_ball = "epsilon" in NEGATIVES[kind].settings
    settings = {name: value for name, value in _SETTINGS.items() if name in NEGATIVES[kind].settings}
    clean = -0.3 * rng.random()
    columns: dict[str, Any] = {
        "images": sample.images,
        "rejected": wrong,
        "clean_answer": sample.answer if right else wrong,
        "clean_correct": right,
        "attacked_answer": wrong if flipped or not right else sample.answer,
        "blind_answer": wrong if rng.random() < 0.4 else sample.answer,
        "flipped": flipped,
        "flipped_unrounded": flipped or (in_ball and right and rng.random() < 0.1),
        "logprob_clean": clean,
        "logprob_attacked": -3 - rng.random() if changed else clean,
        "logprob_rounded": -2.9 - rng.random() if changed else clean,
        "perturbation_linf": 16 / 255 if in_ball else 0.0,
    }
    how = made.pop("how", {})
    if kind == "adversarial":
        how["curve"] = [clean - step for step in range(3)]
    return records.Negative(
        sample_id=sample.sample_id,
        question=made.pop("question", sample.question),
        question_kind=sample.kind,
        answer_form=sample.answer_form,
        kind=kind,
        chosen=sample.answer,
        epsilon=settings.get("epsilon", 0.0),
        attack=json.dumps({"method": kind, "seed": 3, **settings, "steps_taken": 10, **how}),
        decode='{"mode": "greedy"}',
        meta=sample.meta,
        **{**columns, **made},
    )


def _made(kind: str, sample: Sample, others: Sequence[Sample], rng: random.Random) -> dict[str, Any]:
    """The columns that a generator fills, and how."""
    data = sample.images[0].bytes or b""
    other = rng.choice([one for one in others if one.sample_id != sample.sample_id])
    found = {"sample": other.sample_id, "answer": other.answer, "cosine": 0.87}
    if kind in ("adversarial", "noise"):
        return {"rejected_images": [_image(_pixels(attacked(data, rng)))]}
    if kind == "diffusion":
        return {"rejected_images": [_image(_noisy(_pixels(data), rng))]}
    if kind == "blank":
        return {"rejected_images": [_image(np.full_like(_pixels(data), 120))]}
    if kind in ("key_region", "masked"):
        return _in_region(kind, sample, rng)
    if kind == "crop":
        small = Image.fromarray(_pixels(data)).crop((8, 10, 26, 24)).resize((48, 48))
        return {"rejected_images": [_image(np.asarray(small))], "how": {"crops": [[10, 8, 14, 18]]}}
    if kind == "retrieved":
        return {"rejected_images": [_of_other_size(other)], "how": found}
    if kind == "counterfactual":
        return _counterfactual(sample, other, found, rng)
    if kind == "collage":
        shown, question = [*other.images, *sample.images], f"In image 2, {sample.question}"
        return {"images": shown, "rejected_images": [], "question": question}
    return {"rejected_images": []}


def _counterfactual(sample: Sample, other: Sample, found: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    way = rng.choice(("question", "embedding", "recolour"))
    if way == "recolour":
        columns = _in_region("recolour", sample, rng)
        return columns | {"how": columns["how"] | {"from": "recolour", "old": "green", "new": "blue", "swapped": False}}
    same = way == "question" or rng.random() < 0.5
    how = found if way == "embedding" else {"sample": found["sample"], "answer": found["answer"]}
    columns = {"rejected_images": [_of_other_size(other)], "how": {"from": way, "same_question": same, **how}}
    return columns | {"attacked_answer": other.answer}


def _in_region(kind: str, sample: Sample, rng: random.Random) -> dict[str, Any]:
    """The objects of the scene that the answer names; everything where it names none."""
    meta, clean = json.loads(sample.meta), _pixels(sample.images[0].bytes or b"")
    boxes = [one["box"] for one in meta["boxes"] if one["label"] in sample.answer.lower()]
    mask = np.zeros(clean.shape[:2], dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    mask |= not boxes
    changed = {"key_region": _noisy(clean, rng), "masked": np.full_like(clean, 120), "recolour": clean[:, :, ::-1]}[
        kind
    ]
    keywords = [one["label"] for one in meta["boxes"] if one["label"] in sample.answer.lower()]
    return {
        "rejected_images": [_image(np.where(mask[:, :, None], changed, clean))],
        "masks": [_image(np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255)],
        "keywords": keywords,
        "detector": rng.choice(("saliency", "boxes")) if boxes else "global",
        "how": {"region": {"keyword_scores": [0.5] * len(keywords)}},
    }


def _noisy(pixels: Pixels, rng: random.Random) -> Pixels:
    noise = np.random.default_rng(rng.getrandbits(32)).normal(128, 70, pixels.shape)
    return np.clip(0.5 * pixels + 0.5 * noise, 0, 255).astype(np.uint8)


def _of_other_size(sample: Sample) -> records.Image:
    return _image(np.asarray(Image.fromarray(_pixels(sample.images[0].bytes or b"")).resize((60, 50))))


def _pixels(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _image(pixels: Pixels) -> records.Image:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return records.Image(bytes=buffer.getvalue())


def attacked(data: bytes, rng: random.Random, levels: int = 16) -> bytes:
    """The picture with every channel moved by at most `levels`."""
    pixels = np.asarray(Image.open(io.BytesIO(data)), dtype=np.int32)
    noise = np.random.default_rng(rng.getrandbits(32)).choice([-levels, 0, levels], size=pixels.shape)
    return _image(np.clip(pixels + noise, 0, 255).astype(np.uint8)).bytes or b""


def wrong_answer(sample: Sample, rng: random.Random) -> str:
    """The prior's answer where it is wrong, else the truth with another colour, number or word."""
    meta = json.loads(sample.meta)
    if meta["conflict"] and rng.random() < 0.8:
        return str(meta["prior_answer"])
    if sample.kind == "open" and rng.random() < 0.5:
        return sample.answer.replace(meta["objects"][0], rng.choice(("dog", "car", "bell")))
    for word in WORDS:
        if word in sample.answer:
            return sample.answer.replace(word, rng.choice([other for other in WORDS if other != word]))
    swaps = {"Yes": "No", "No": "Yes", "left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    for word, other in swaps.items():
        if word in sample.answer:
            return sample.answer.replace(word, other)
    return {"A": "B", "B": "C", "C": "D", "D": "A"}.get(sample.answer, "There are 4 objects.")
