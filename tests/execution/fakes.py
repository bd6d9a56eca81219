"""Small stages with real records: pictures are drawn, answered and "trained" on in milliseconds."""

from __future__ import annotations

import io
import os
import signal
import time
from typing import Any

import PIL.Image
from pydantic import Field

from mbpo_core import records
from mbpo_core.config import Section, knob
from mbpo_core.errors import StoreError
from mbpo_core.seeds import derive_seed
from mbpo_core.stage import StageContext, StageSpec

COMPUTED: list[int] = []  # input indices in the order they were computed, over all runs of this process


class DrawingConfig(Section):
    """Settings of `drawing`."""

    shade: int = Field(10)
    count: int = Field(10)
    bad_every: int = Field(0, description="Every so many-th row is unreadable; 0 none.")
    faint_every: int = Field(0, description="Every so many-th row is filtered; 0 none.")
    noisy: bool = Field(False, description="Rows differ from run to run.")
    max_dropped_share: float = Field(0.5)
    pause_s: float = knob(0.0, "Before each row, seconds.")
    die_at: int = knob(-1, "Be killed before this index.")
    fail_at: int = knob(-1, "Raise before this index.")
    batch_size: int = knob(1, "Rows together.")
    part_rows: int = knob(4, "Rows a part.")


class AnswersConfig(Section):
    """Settings of `answers`."""

    format_reward: float = Field(0.2)
    part_rows: int = knob(4, "Rows a part.")


class FittingConfig(Section):
    """Settings of `fitting`."""

    steps: int = Field(3)


def picture(shade: int, seed: int) -> bytes:
    """A PNG that depends on both."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (4, 4), (shade % 256, seed % 256, seed // 256 % 256)).save(file, "PNG")
    return file.getvalue()


def sample(index: int, shade: int = 10, seed: int = 0) -> dict[str, Any]:
    """Row `index` of the drawing stage."""
    name = f"s{index:03d}"
    return {
        "sample_id": name,
        "images": [{"bytes": picture(shade, derive_seed(seed, name)), "path": f"{name}.png"}],
        "question": "Which shade?",
        "answer": f"{shade / 3}",
        "kind": "numeric",
        "split": "online",
        "source": "fake",
    }


def draw(context: StageContext) -> None:
    """Samples out of nothing, some of them dropped."""
    config = context.config
    for part in context.begin("drawing", config.count, config.part_rows, config.batch_size):
        rows, dropped = [], []
        for index in range(part.start, part.stop):
            time.sleep(config.pause_s)
            if index == config.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if index == config.fail_at:
                raise StoreError(f"asked to fail at {index}")
            COMPUTED.append(index)
            row = sample(index, config.shade, context.seed)
            reason = _reason(index, config)
            if reason:
                dropped.append(
                    records.Dropped(sample_id=row["sample_id"], stage="drawing", reason=reason, detail="fake", row="{}")
                )
                continue
            rows.append(row | {"meta": f'{{"t": {time.time_ns() if config.noisy else 0}}}'})
        part.finish(rows, dropped)
        context.progress.advance(part.stop - part.start)


def _reason(index: int, config: DrawingConfig) -> str:
    if config.bad_every and index % config.bad_every == 0:
        return "unreadable_image"
    if config.faint_every and index % config.faint_every == 1:
        return "faint"
    return ""


def answer(context: StageContext) -> None:
    """One prediction a sample, in two tables: every answer, then the chosen ones."""
    samples = context.inputs["samples"]
    scratch = context.output.scratch() / "visits"
    scratch.write_text(str(int(scratch.read_text()) + 1 if scratch.exists() else 1))
    total = samples.count()
    for part in context.output.parts(total, context.config.part_rows, table="all"):
        part.finish([_prediction(row) for row in samples.slice(part.start, part.stop)])
    done = context.output.reader("all")
    for part in context.output.parts(total, context.config.part_rows):
        part.finish([row for row in done.slice(part.start, part.stop) if not row["sample_id"].endswith("3")])
    context.output.add_json("summary.json", {"answers": total, "reward": context.config.format_reward})
    context.output.add_text("pages/index.html", "<p>é</p>")


def _prediction(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "policy": "base",
        "sample_id": row["sample_id"],
        "images": row["images"],
        "question": row["question"],
        "answer": row["answer"],
        "question_kind": row["kind"],
        "probe": "fake",
        "text": row["answer"],
        "extracted": None,
        "verdict": "unparsed",
        "blind_text": None,
        "blind_verdict": None,
    }


def fit(context: StageContext) -> None:
    """A checkpoint of one file, and rows with the time they took."""
    folder = context.output.scratch() / "checkpoint"
    (folder / "deep").mkdir(parents=True, exist_ok=True)
    answers = sum(reader.count() for reader in context.inputs.values())
    start = context.open_policy(context.policies["policy"]).name
    (folder / "deep" / "model.safetensors").write_bytes(f"{context.round_index} {answers} {start}".encode())
    optimizer = context.output.scratch() / "optimizer"
    optimizer.mkdir(exist_ok=True)
    (optimizer / "state.pt").write_bytes(str(time.time_ns()).encode())
    for part in context.output.parts(context.config.steps, context.config.steps):
        part.finish([_step(index, context.round_index) for index in range(part.start, part.stop)])
    context.output.add_folder("checkpoint", folder)
    context.output.add_folder("optimizer", optimizer, content=False)


def _step(index: int, round_index: int) -> dict[str, Any]:
    absent = ("offline_loss", "online_loss", "reward", "chosen_logprob", "rejected_logprob", "chosen_drift")
    absent += ("chosen_reward", "rejected_reward", "wrong_image_reward")
    counts = ("groups_offline", "groups_online", "groups_zero_variance", "tokens", "positions")
    return {
        "step": index,
        "round_index": round_index,
        "stopped": False,
        "seconds": time.time(),
        "cpu_seconds": time.process_time(),
        **dict.fromkeys(("learning_rate", "loss", "grad_norm", "kl", "clip_fraction", "advantage_abs"), 0.5),
        **dict.fromkeys(absent),
        **dict.fromkeys(counts, 1),
    }


def forget_a_part(context: StageContext) -> None:
    """A stage with a bug: two of three parts are never finished."""
    next(context.output.parts(10, 4)).finish([sample(0)])


def do_nothing(context: StageContext) -> None:
    """A stage with a bug: it writes nothing."""


def misspell(context: StageContext) -> None:
    """A stage with a bug: it writes a column that does not exist."""
    next(context.output.parts(1, 4)).finish([sample(0) | {"colour": "red"}])


def drop_oddly(context: StageContext) -> None:
    """A stage with a bug: it drops a row for a reason that it never declared."""
    letter = records.Dropped(sample_id="s000", stage="drawing", reason="ugly", detail="", row="{}")
    next(context.output.parts(1, 4)).finish([], [letter])


def visit_and_fail(context: StageContext) -> None:
    """Leaves resumable state behind."""
    context.output.scratch().joinpath("visits").write_text("1")
    raise StoreError("visited")


DRAWING = StageSpec(
    name="drawing",
    version=1,
    config=DrawingConfig,
    entry="tests.execution.fakes:draw",
    record=records.Sample,
    reasons={"unreadable_image": "bad", "faint": "filtered"},
)
ANSWERS = StageSpec(
    name="answers",
    version=1,
    config=AnswersConfig,
    entry="tests.execution.fakes:answer",
    record=records.Prediction,
    inputs=("samples",),
    tables={"all": records.Prediction},
)
FITTING = StageSpec(
    name="fitting",
    version=1,
    config=FittingConfig,
    entry="tests.execution.fakes:fit",
    record=records.TrainingStep,
    inputs=("answers",),
    uses_policy=True,
    by_round=True,
)
STAGES = {spec.name: spec for spec in (DRAWING, ANSWERS, FITTING)}
