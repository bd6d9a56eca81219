"""A made-up run with rows of the right form: real demo scenes, invented answers and numbers."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mbpo_core import records
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.evaluation.summary import summarize
from mbpo_core.records import Sample
from mbpo_core.stage import ArtifactRef, PolicyRef, Reader, Row
from mbpo_core.store.manifest import Manifest, TableInfo

_ATTACK = {
    "method": "adversarial", "norm": "linf", "epsilon": 16 / 255, "steps": 10, "random_start": True, "momentum": 0.0,
    "target": "none", "seed": 3, "steps_taken": 10,
}  # fmt: skip
WORDS = ("yellow", "red", "green", "blue", "purple", "orange")


@dataclass
class MemoryReader:
    """A Reader over lists of rows."""

    manifest: Manifest
    tables: dict[str, list[Row]]
    files: dict[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> ArtifactRef:
        return self.manifest.ref("memory://fake")

    def count(self, table: str = "part") -> int:
        return len(self.tables[table])

    def slice(self, start: int, stop: int, table: str = "part", columns: Sequence[str] | None = None) -> list[Row]:
        return [{key: row[key] for key in columns or row} for row in self.tables[table][start:stop]]

    def rows(self, table: str = "part", columns: Sequence[str] | None = None) -> Iterator[Row]:
        return iter(self.slice(0, self.count(table), table, columns))

    def where(self, column: str, values: Sequence[Any]) -> MemoryReader:
        kept = [row for row in self.tables["part"] if row[column] in values]
        return MemoryReader(self.manifest, {**self.tables, "part": kept}, self.files)

    def folder(self, name: str) -> Path:
        raise KeyError(name)

    def json(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = self.files[name]
        return value


def reader(
    key: str,
    tables: Mapping[str, Sequence[records.Record]],
    *,
    config: Mapping[str, Any] | None = None,
    dropped: Mapping[str, int] | None = None,
    files: Mapping[str, Any] | None = None,
) -> MemoryReader:
    """A reader of records under a run key, e.g. `rollouts/0`."""
    manifest = Manifest(
        stage=key.split("/")[0],
        key=key,
        digest=f"{key}-digest".encode().hex().ljust(64, "0"),
        content=f"{key}-content".encode().hex().ljust(64, "0"),
        identity={"seed": 0},
        code="0" * 64,
        inputs={},
        policies={"base": PolicyRef(folder="model", digest="ba5e" * 16)},
        tables={name: TableInfo(record="", version=1, columns={}) for name in tables},
        attempt="a",
        parts=[],
        files=[],
        rows={name: len(rows) for name, rows in tables.items()},
        total=len(tables.get("part", ())) + sum((dropped or {}).values()),
        dropped=dict(dropped or {}),
        config=dict(config or {}),
        libraries={"torch": "2.13.0", "transformers": "5.20.0"},
        device="cpu",
        seconds=1.0,
        cpu_seconds=1.0,
        accelerator_seconds=0.0,
        created="2026-01-01T00:00:00Z",
        by="someone@somewhere",
    )
    tables = {**tables, "dropped": list(_letters(key, dropped or {}))}
    plain = {name: [row.model_dump() for row in rows] for name, rows in tables.items()}
    return MemoryReader(manifest, plain, dict(files or {}))


def _letters(key: str, dropped: Mapping[str, int]) -> Iterator[records.Dropped]:
    for reason, count in dropped.items():
        for number in range(count):
            kind = json.dumps({"kind": "yes_no" if number % 2 else "short_text"})
            yield records.Dropped(sample_id=f"{reason}{number}", stage=key, reason=reason, detail="", row=kind)


def fake_run(size: int = 60, *, setting: str = "uniform", seed: int = 0) -> dict[str, Reader]:
    """Readers of every stage of a run with about `size` offline samples."""
    rng = random.Random(seed)
    counts = DemoCounts(
        offline=size, online=size, eval_probe=size, eval_small_probe=size // 2, dev_probe=2, dev_small_probe=2
    )
    samples = list(demo_samples("natural" if setting == "natural" else "uniform", seed, counts))
    offline = [sample for sample in samples if sample.split == "offline"]
    online = [sample for sample in samples if sample.split == "online"]
    negatives = [_negative(sample, rng) for sample in offline[: size - size // 6]]
    scored = [_pair(negative, rng) for negative in negatives]
    predictions = list(_predictions([sample for sample in samples if sample.split == "eval"], rng))
    config = {"source": "demo", "demo_setting": setting}
    return {
        "samples": reader("samples", {"part": samples}, config=config),
        "negatives": reader(
            "negatives", {"part": negatives}, config={"epsilon": 16 / 255}, dropped={"same_answer": size // 6}
        ),
        "pairs": reader(
            "pairs",
            {"part": scored[: size // 2], "scored": scored},
            dropped={"low_gain": 4, "outside_share": len(scored) - size // 2 - 4},
        ),
        **{
            f"rollouts/{index}": reader(f"rollouts/{index}", {"part": [_group(s, index, rng) for s in online[:40]]})
            for index in range(2)
        },
        **{
            key: reader(key, {"part": list(_steps(key, start, rng))})
            for key, start in (("training/0", 0), ("training/1", 40), ("training/sft", 0), ("training/dpo", 0))
        },
        "evaluation": reader(
            "evaluation",
            {"part": predictions},
            files={"summary.json": _stored(summarize([row.model_dump() for row in predictions], bootstrap=200))},
        ),
    }


def _stored(value: dict[str, Any]) -> dict[str, Any]:
    """As the store gives it back: with sorted keys."""
    stored: dict[str, Any] = json.loads(json.dumps(value, sort_keys=True))
    return stored


def attacked(data: bytes, rng: random.Random, levels: int = 16) -> bytes:
    """The picture with every channel moved by at most `levels`."""
    pixels = np.asarray(Image.open(io.BytesIO(data)), dtype=np.int32)
    noise = np.random.default_rng(rng.getrandbits(32)).choice([-levels, 0, levels], size=pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


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


def _negative(sample: Sample, rng: random.Random) -> records.Negative:
    wrong = wrong_answer(sample, rng)
    right = rng.random() < 0.7
    flipped = right and rng.random() < 0.9
    return records.Negative(
        sample_id=sample.sample_id,
        images=sample.images,
        rejected_images=[records.Image(bytes=attacked(sample.images[0].bytes or b"", rng))],
        question=sample.question,
        question_kind=sample.kind,
        answer_form=sample.answer_form,
        kind="adversarial",
        chosen=sample.answer,
        rejected=wrong,
        clean_answer=sample.answer if right else wrong,
        clean_correct=right,
        attacked_answer=wrong if flipped or not right else sample.answer,
        blind_answer=wrong if rng.random() < 0.4 else sample.answer,
        flipped=flipped,
        flipped_unrounded=flipped or rng.random() < 0.1,
        logprob_clean=-0.3 * rng.random(),
        logprob_attacked=-3 - rng.random(),
        logprob_rounded=-2.9 - rng.random(),
        epsilon=16 / 255,
        perturbation_linf=16 / 255,
        attack=json.dumps(_ATTACK),
        decode='{"mode": "greedy"}',
        meta=sample.meta,
    )


def _message(role: str, text: str, image: bool = False) -> list[records.Message]:
    parts = [records.Part(type="image")] if image else []
    return [records.Message(role=role, content=[*parts, records.Part(type="text", text=text)])]  # type: ignore[arg-type]


def _pair(negative: records.Negative, rng: random.Random) -> records.PreferencePair:
    gain = rng.gauss(0.8, 0.4)
    return records.PreferencePair(
        sample_id=negative.sample_id,
        images=negative.images,
        rejected_images=negative.rejected_images,
        prompt=_message("user", negative.question, image=True),
        chosen=_message("assistant", negative.chosen),
        rejected=_message("assistant", negative.rejected or ""),
        question_kind=negative.question_kind,
        negative_kind=negative.kind,
        blind="mask",
        gain_chosen=gain,
        gain_rejected=gain - rng.random(),
        token_gains_chosen=[gain],
        token_gains_rejected=[0.0],
        logprob_chosen=-0.2,
        logprob_rejected=-2.0,
        blind_logprob_chosen=-1.0,
        blind_logprob_rejected=-1.0,
        meta=negative.meta,
    )


def _group(sample: Sample, index: int, rng: random.Random) -> records.RolloutGroup:
    wrong, certain = wrong_answer(sample, rng), rng.random() < 0.5
    completions = [_completion(sample, wrong, certain or rng.random() < 0.4 + 0.2 * index) for _ in range(8)]
    return records.RolloutGroup(
        sample_id=sample.sample_id,
        images=sample.images,
        prompt=_message("user", sample.question, image=True),
        answer=sample.answer,
        question_kind=sample.kind,
        answer_form=sample.answer_form,
        choices=sample.choices,
        policy_digest="ba5e" * 16,
        round_index=index,
        temperature=1.0,
        verifier=f"{sample.kind}@1",
        zero_variance=len({completion.reward for completion in completions}) == 1,
        completions=completions,
        meta=sample.meta,
    )


def _completion(sample: Sample, wrong: str, right: bool) -> records.Completion:
    return records.Completion(
        text=sample.answer if right else wrong,
        token_ids=[1, 2],
        logprobs=[-0.1, -0.2],
        finish_reason="stop",
        extracted=sample.answer if right else wrong,
        verdict="correct" if right else "wrong",
        reason="says so",
        accuracy_reward=float(right),
        format_reward=0.2,
        reward=float(right) + 0.2,
    )


def _steps(key: str, start: int, rng: random.Random) -> Iterator[records.TrainingStep]:
    name = key.split("/")[1]
    method = name.isdigit()
    for step in range(start, start + 40):
        at = step / 80
        yield records.TrainingStep(
            step=step,
            round_index=int(name) if method else 0,
            learning_rate=1e-4,
            loss=rng.gauss(0, 0.1) if method else 1.5 * 0.96**step + 0.1 * rng.random(),
            offline_loss=rng.gauss(-0.2, 0.1) if method else None,
            online_loss=rng.gauss(0.1, 0.05) if method and step % 7 else None,
            grad_norm=1 + rng.random(),
            kl=0.5 * at + 0.05 * rng.random(),
            clip_fraction=0.1 * rng.random(),
            advantage_abs=0.8,
            reward=0.4 + 0.5 * at + 0.1 * rng.random() if method else None,
            groups_offline=8,
            groups_online=8 if method else 0,
            groups_zero_variance=3,
            tokens=900,
            chosen_logprob=-1 + 0.8 * at + 0.05 * rng.random(),
            rejected_logprob=-1.5 - 3 * at,
            chosen_drift=0.1,
            stopped=False,
            seconds=0.1,
            cpu_seconds=0.1,
        )


_SKILL = {"base": 0.05, "sft": 0.85, "dpo": 0.5, "trained": 0.6}


def _predictions(samples: Sequence[Sample], rng: random.Random) -> Iterator[records.Prediction]:
    for label, skill in _SKILL.items():
        for sample in samples:
            meta = json.loads(sample.meta)
            right = rng.random() < (skill if meta["conflict"] else 0.95)
            closed = sample.kind != "open"
            yield records.Prediction(
                policy=label,
                sample_id=sample.sample_id,
                images=sample.images if label == "base" else [],
                question=sample.question,
                answer=sample.answer,
                question_kind=sample.kind,
                probe=meta["probe"],
                text=sample.answer if right else wrong_answer(sample, rng),
                extracted=None,
                verdict="correct" if right else "wrong",
                blind_text="yellow" if closed else None,
                blind_verdict="wrong" if closed else None,
                meta=json.dumps(meta | ({"says_prior": not right} if meta["prior_answer"] else {})),
            )
