"""A made-up run with rows of the right form: real demo scenes, invented answers and numbers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mbpo_core import records
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.evaluation.summary import summarize
from mbpo_core.methods import METHODS, objective_passes
from mbpo_core.negatives.summary import summarize as summarize_mining
from mbpo_core.objectives.passes import REJECTED, WRONG
from mbpo_core.records import Sample
from mbpo_core.stage import ArtifactRef, PolicyRef, Reader, Row
from mbpo_core.store.manifest import Manifest, TableInfo
from tests.reports.fake_negatives import fake_negative, wrong_answer


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
    policies: Mapping[str, str] | None = None,
) -> MemoryReader:
    """A reader of records under a run key, e.g. `rollouts/0`; `policies` are labels by name."""
    named = policies or {"base": "base"}
    manifest = Manifest(
        stage=key.split("/")[0],
        key=key,
        digest=f"{key}-digest".encode().hex().ljust(64, "0"),
        content=f"{key}-content".encode().hex().ljust(64, "0"),
        identity={"seed": 0},
        code="0" * 64,
        inputs={},
        policies={name: PolicyRef(digest="ba5e" * 16, label=label) for name, label in named.items()},
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
            row = json.dumps({**_WITHSTOOD, "kind": "yes_no" if number % 2 else "short_text"})
            yield records.Dropped(sample_id=f"{reason}{number}", stage=key, reason=reason, detail="", row=row)


_WITHSTOOD = {
    "answer": "green", "clean_correct": True, "flipped": False, "flipped_unrounded": False, "attacked_answer": "green",
    "blind_answer": "red", "attack": {}, "meta": "{}",
}  # fmt: skip


def mined(key: str, rows: Sequence[records.Negative], dropped: Mapping[str, int], **more: Any) -> MemoryReader:
    """A reader of negatives with the counts of its mining."""
    letters = [letter.model_dump() for letter in _letters(key, dropped)]
    counts = _stored(summarize_mining([row.model_dump() for row in rows], letters, 0.6))
    return reader(key, {"part": rows}, dropped=dropped, files={"mining.json": counts}, **more)


@dataclass(frozen=True)
class Plan:
    """What a method's run has, read off its settings.

    Attributes:
        images: kind of the images made for pairs; None where none are.
        mined: suffixes of the keys of what mining makes: "" or "/0", "/1"; none without pairs.
        image_only: pairs have no rejected response.
        add_image: weight of an added image-side term.
    """

    label: str
    objective: str
    negatives: str
    images: str | None
    mined: tuple[str, ...]
    online: bool
    image_only: bool = False
    add_image: float = 0.0

    @property
    def rounds(self) -> int:
        return max(2 if self.online else 1, len(self.mined))


def plan_of(method: str) -> Plan:
    """The plan of a method with its default settings."""
    settings = METHODS[method].settings
    training = settings.get("training", {})
    objective = training.get("objective", "grpo")
    passes = objective_passes(objective, image_term=training.get("add_image", 0) > 0)
    wants_images = passes is not None and "rejected image" in passes.needs and not settings.get("mined_images")
    return Plan(
        label="trained" if method == "mbpo" else method,
        objective=objective,
        negatives=settings.get("negatives", {}).get("method", "adversarial"),
        images=settings.get("images", {}).get("method", "key_region") if wants_images else None,
        mined=() if objective == "none" else ("/0", "/1") if settings.get("remine") else ("",),
        online=training.get("use_online", True),
        add_image=training.get("add_image", 0.0),
        image_only=passes is not None and REJECTED not in passes.passes and objective != "sft",
    )


def fake_run(size: int = 60, *, method: str = "mbpo", setting: str = "uniform", seed: int = 0) -> dict[str, Reader]:
    """Readers of every stage of a run with about `size` offline samples."""
    plan, rng = plan_of(method), random.Random(seed)
    samples = _samples(size, setting, seed)
    offline = [sample for sample in samples if sample.split == "offline"]
    online = [sample for sample in samples if sample.split == "online"]
    config = {"source": "demo", "demo_setting": setting}
    run: dict[str, Reader] = {"samples": reader("samples", {"part": samples}, config=config)}
    for number, suffix in enumerate(plan.mined):
        run |= _mining(plan, suffix, offline[number :: len(plan.mined)], rng)
    for index in range(plan.rounds):
        if plan.online:
            groups = [_group(sample, index, rng) for sample in online[:40]]
            run[f"rollouts/{index}"] = reader(f"rollouts/{index}", {"part": groups})
        run[f"training/{index}"] = _training(f"training/{index}", 40 * index, plan, rng)
    baselines = [name for name in ("sft", "dpo") if plan.mined == ("",) and name != method]
    run |= {f"training/{name}": _training(f"training/{name}", 0, plan_of(name), rng) for name in baselines}
    held_out = [sample for sample in samples if sample.split == "eval"]
    run["evaluation"] = _evaluation(["base", *baselines, plan.label], held_out, rng)
    return run


@cache
def _samples(size: int, setting: str, seed: int) -> list[Sample]:
    counts = DemoCounts(
        offline=size, online=size, eval_probe=size, eval_small_probe=size // 2, dev_probe=2, dev_small_probe=2
    )
    return list(demo_samples("natural" if setting == "natural" else "uniform", seed, counts))


def _mining(plan: Plan, suffix: str, offline: Sequence[Sample], rng: random.Random) -> dict[str, Reader]:
    """Negatives, pairs and images of one mining; every sixth sample gave no negative."""
    size = len(offline)
    kept = offline[: size - size // 6]
    negatives = [fake_negative(plan.negatives, sample, offline, rng) for sample in kept]
    if plan.image_only:
        negatives = [negative.model_copy(update={"rejected": None}) for negative in negatives]
    scored = [_pair(negative, rng) for negative in negatives]
    pairs = reader(
        f"pairs{suffix}",
        {"part": scored[: size // 2], "scored": scored},
        config={"select": "top", "share": 0.5, "min_gain": 0.0},
        dropped={"low_gain": 4, "outside_share": len(scored) - size // 2 - 4},
    )
    for letter, pair in zip(pairs.tables["dropped"], scored[size // 2 :], strict=False):
        letter["sample_id"] = pair.sample_id
    made = {
        f"negatives{suffix}": mined(
            f"negatives{suffix}", negatives, {"same_answer": size // 6}, config={"epsilon": 16 / 255}
        ),
        f"pairs{suffix}": pairs,
    }
    if plan.images:
        images = [fake_negative(plan.images, sample, offline, rng) for sample in kept[: size // 2]]
        key = f"negatives/images{suffix}"
        made[key] = mined(key, images[1:], {"nothing_to_change": 1})
    return made


def _training(key: str, start: int, plan: Plan, rng: random.Random) -> MemoryReader:
    steps = list(_steps(key, start, plan, rng))
    label = plan.label if start else "base"
    return reader(
        key,
        {"part": steps},
        config={"objective": plan.objective, "add_image": plan.add_image},
        policies={"policy": label},
    )


def _evaluation(labels: Sequence[str], held_out: Sequence[Sample], rng: random.Random) -> MemoryReader:
    rows = list(_predictions(labels, held_out, rng))
    summary = summarize([row.model_dump() for row in rows], bootstrap=50)
    return reader("evaluation", {"part": rows}, files={"summary.json": _stored(summary)})


def _stored(value: dict[str, Any]) -> dict[str, Any]:
    """As the store gives it back: with sorted keys."""
    stored: dict[str, Any] = json.loads(json.dumps(value, sort_keys=True))
    return stored


def _message(role: str, text: str, images: int = 0) -> list[records.Message]:
    parts = [records.Part(type="image")] * images
    return [records.Message(role=role, content=[*parts, records.Part(type="text", text=text)])]  # type: ignore[arg-type]


def _pair(negative: records.Negative, rng: random.Random) -> records.PreferencePair:
    gain = rng.gauss(0.8, 0.4)
    image_only = negative.rejected is None
    return records.PreferencePair(
        sample_id=negative.sample_id,
        images=negative.images,
        rejected_images=negative.rejected_images,
        prompt=_message("user", negative.question, images=len(negative.images)),
        chosen=_message("assistant", negative.chosen),
        rejected=_message("assistant", negative.rejected) if negative.rejected is not None else [],
        question_kind=negative.question_kind,
        negative_kind=negative.kind,
        blind="mask",
        gain_chosen=gain,
        gain_rejected=None if image_only else gain - rng.random(),
        token_gains_chosen=[gain],
        token_gains_rejected=[] if image_only else [0.0],
        logprob_chosen=-0.2,
        logprob_rejected=None if image_only else -2.0,
        blind_logprob_chosen=-1.0,
        blind_logprob_rejected=None if image_only else -1.0,
        meta=negative.meta,
    )


def _group(sample: Sample, index: int, rng: random.Random) -> records.RolloutGroup:
    wrong, certain = wrong_answer(sample, rng), rng.random() < 0.5
    completions = [_completion(sample, wrong, certain or rng.random() < 0.4 + 0.2 * index) for _ in range(8)]
    return records.RolloutGroup(
        sample_id=sample.sample_id,
        images=sample.images,
        prompt=_message("user", sample.question, images=1),
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


def _steps(key: str, start: int, plan: Plan, rng: random.Random) -> Iterator[records.TrainingStep]:
    """Made-up curves; what the objective does not look at is null."""
    name = key.split("/")[1]
    seen = passes.passes if (passes := objective_passes(plan.objective, image_term=plan.images is not None)) else ()
    ratios, pairs = plan.objective in ("grpo", "none"), bool(seen)
    for step in range(start, start + 40):
        at = step / 80
        loss = rng.gauss(0, 0.1) if ratios else 1.5 * 0.96**step + 0.1 * rng.random()
        yield records.TrainingStep(
            step=step,
            round_index=int(name) if name.isdigit() else 0,
            learning_rate=1e-4,
            loss=loss,
            offline_loss=loss - 0.1 if pairs else None,
            online_loss=rng.gauss(0.1, 0.05) if plan.online and step % 7 else None,
            grad_norm=1 + rng.random(),
            kl=None if plan.objective == "sft" else 0.5 * at + 0.05 * rng.random(),
            clip_fraction=0.1 * rng.random() if ratios else 0.0,
            advantage_abs=0.8,
            reward=0.4 + 0.5 * at + 0.1 * rng.random() if plan.online else None,
            groups_offline=8 if pairs else 0,
            groups_online=8 if plan.online else 0,
            groups_zero_variance=3 if plan.online else 0,
            tokens=900,
            chosen_logprob=-1 + 0.8 * at + 0.05 * rng.random() if pairs else None,
            rejected_logprob=-1.5 - 3 * at if REJECTED in seen else None,
            chosen_drift=0.1 if pairs else None,
            chosen_reward=0.4 * at + 0.05 * rng.random() if pairs else None,
            rejected_reward=-2 * at + 0.1 * rng.random() if REJECTED in seen else None,
            wrong_image_reward=-0.8 * at + 0.1 * rng.random() if WRONG in seen else None,
            positions=4000,
            stopped=False,
            seconds=0.1,
            cpu_seconds=0.1,
        )


_SKILL = {"base": 0.05, "sft": 0.85, "dpo": 0.5}


def _predictions(labels: Sequence[str], samples: Sequence[Sample], rng: random.Random) -> Iterator[records.Prediction]:
    for label in labels:
        for sample in samples:
            meta = json.loads(sample.meta)
            right = rng.random() < (_SKILL.get(label, 0.6) if meta["conflict"] else 0.95)
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
