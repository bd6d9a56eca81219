"""A run on a random Qwen2.5-VL of 1.9 billion parameters: speed and peak memory of each stage, and the estimate's.

Every stage runs in a process of its own, and training once a ZeRO stage. On an accelerator the peak is what torch's
allocator gave out at most; on a CPU it is what `benchmarks.meter` counts. Random weights answer nothing right, so the
rewards of the rollouts that training sees are dealt out in turn.

    python -m benchmarks.scale                            # bfloat16, ZeRO-2 and ZeRO-3, on the accelerator
    python -m benchmarks.scale --tiny --zero 2            # 11.5 million parameters in float32, anywhere
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Record, commit, machine
from benchmarks.qwen import SHAPES, Shape, save_model, text_tokens

RESULTS = Path(__file__).with_name("scale.json")
QUESTION = "Is the square red ?"

_STAGES = ("samples", "negatives", "pairs", "rollouts", "training", "evaluation")
_READS = {"negatives": "samples", "pairs": "negatives", "rollouts": "samples", "evaluation": "samples"}
_MIB = 2**20


def settings(size: str, model: Path, data: Path, changes: Sequence[str]) -> Any:
    """The run's config: small batches of a large model, or of a tiny one."""
    from mbpo_core.config import build_config

    large = size == "large"
    base: dict[str, Any] = {
        "run": "scale",
        "method": "mbpo",
        "rounds": 1,
        "policy": {
            "model": str(model), "dtype": "bfloat16" if large else "float32", "logits_mib": 256.0 if large else 4.0,
        },
        "samples": {
            "source": "parquet", "path": str(data), "offline_share": 0.4, "online_share": 0.4, "dev_share": 0.0,
        },
        "negatives": {
            "steps": 3, "max_new_tokens": 64 if large else 16, "extra_samples": 0, "min_distinct": 0.0,
            "min_length_ratio": 0.0, "max_length_ratio": 1000.0, "batch_size": 4, "max_dropped_share": 1.0,
        },
        "pairs": {
            "select": "all", "share": 1.0, "text_leaning": False, "plausible": False, "batch_size": 4,
            "max_dropped_share": 1.0,
        },
        "rollouts": {"prompts": 16, "group_size": 8, "max_new_tokens": 64 if large else 16, "batch_size": 4},
        "training": {"micro_groups": 2, "pairs_per_step": 4, "groups_per_step": 4, "freeze": "vision"},
        "evaluation": {"max_new_tokens": 32 if large else 8, "balance": 0, "batch_size": 4, "bootstrap": 100},
    }  # fmt: skip
    return build_config(base, list(changes), where="benchmarks/scale.py")


def write_input(path: Path, shape: Shape, count: int) -> None:
    """Questions about pictures of noise that all differ."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    numbers, rows = np.random.default_rng(0), []
    width, height = shape.picture
    for number in range(count):
        buffer = io.BytesIO()
        tiles = numbers.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(tiles.repeat(8, axis=0).repeat(8, axis=1)).save(buffer, format="PNG")
        rows.append({"image": buffer.getvalue(), "question": QUESTION, "answer": ("Yes", "No")[number % 2]})
    pq.write_table(pa.Table.from_pylist(rows), path)


def perform(stage: str, size: str, work: Path, changes: Sequence[str]) -> dict[str, Any]:
    """Run one stage on what those before it left in `work`, in this process, and say what it took."""
    config = settings(size, work / "model", work / "input.parquet", changes)
    with _peak() as peak:
        begin = time.monotonic()
        found = _train(config, work) if stage == "training" else _stage(stage, config, work)
        seconds = time.monotonic() - begin
    return {"seconds": round(seconds, 2), "peak_mib": round(peak() / _MIB, 1), **found}


def _stage(stage: str, config: Any, work: Path) -> dict[str, Any]:
    from mbpo_core.execution import plan, run_stage
    from mbpo_core.models.digest import import_policy
    from mbpo_core.progress import NullProgress
    from mbpo_core.stages import STAGES
    from mbpo_core.store import Store

    store = Store(work / "store")
    before = _READS.get(stage)
    given = store.run(config.run).get(before) if before else None
    base = import_policy(config.policy) if before else None
    policies = {"base" if stage == "evaluation" else "policy": base} if base else {}
    inputs = {before: given} if before and given else {}
    policy = config.policy if before else None
    planned = plan(store, STAGES[stage], getattr(config, stage), inputs, policies, policy)
    reader = store.reader(run_stage(store, config.run, planned, NullProgress()))
    rows = list(reader.rows()) if stage == "rollouts" else []
    tokens = sum(len(answer["token_ids"]) for row in rows for answer in row["completions"])
    return {"rows": reader.count(), "tokens": tokens, "stage_seconds": round(reader.manifest.seconds, 2)}


def _train(config: Any, work: Path) -> dict[str, Any]:
    from mbpo_core.models.digest import import_policy
    from mbpo_core.progress import NullProgress
    from mbpo_core.store import Store
    from mbpo_core.training.job import Job, JobRows
    from mbpo_core.training.loop import read_result, train
    from mbpo_core.training.rows import ListTable

    store, base = Store(work / "store"), import_policy(config.policy)
    run = store.run(config.run)
    pairs, rollouts = (list(store.reader(run.get(key)).rows()) for key in ("pairs", "rollouts/0"))
    for row in rollouts:
        for number, answer in enumerate(row["completions"]):
            answer["reward"] = float(number % 2)
    job = Job(
        config=config.training, policy_config=config.policy, policy=base.folder, policy_digest=base.digest,
        reference=base.folder, reference_digest=base.digest, seed=0,
        work=tempfile.mkdtemp(prefix="training-", dir=work),
    )  # fmt: skip
    train(job, JobRows(ListTable(pairs), ListTable(rollouts)), NullProgress())
    steps = read_result(job)[0].rows
    positions, seconds = sum(step.positions for step in steps), sum(step.seconds for step in steps)
    return {"rows": len(steps), "tokens": positions, "stage_seconds": round(seconds, 2)}


@contextlib.contextmanager
def _peak() -> Iterator[Any]:
    """Counts while it lasts; afterwards the call that it yields says how many bytes were alive at most."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield torch.cuda.max_memory_allocated
        return
    from benchmarks.meter import Meter

    meter = Meter()
    with meter:
        yield lambda: meter.peak


def estimates(config: Any) -> dict[str, float]:
    """What `mbpo plan-memory` says of each stage, MiB of tensors alone."""
    from mbpo_core.memory.architecture import read_architecture
    from mbpo_core.memory.stages import Estimator
    from mbpo_core.memory.workload import read_prompts

    folder = Path(config.policy.model)
    architecture = read_architecture(folder)
    shape = next(shape for shape in SHAPES.values() if shape.width == architecture.language.width)
    prompts = read_prompts(folder, architecture, shape.picture, text_tokens(folder, QUESTION))
    # What an accelerator takes for itself is no tensor, and the allocator that is read does not count it.
    estimator = Estimator(architecture, config, prompts, on_cpu=_on_cpu(), runtime=0.0)
    return {made.stage: made.size / _MIB for made in estimator.stages()}


def measure(size: str, zero: Sequence[int], changes: Sequence[str], work: Path, rows: int) -> list[Record]:
    """Run all stages and set what they took beside the estimate; training once for each of `zero`."""
    write_input(work / "input.parquet", SHAPES[size], rows)
    plain = settings(size, work / "model", work / "input.parquet", changes)
    save_model(work / "model", SHAPES[size], plain.policy.dtype)
    records = []
    for stage in _STAGES:
        for number in zero if stage == "training" else zero[:1]:
            mine = [*changes, f"training.zero_stage={number}"]
            found = _child(stage, size, work, mine)
            if stage == "samples":
                continue
            expected = estimates(settings(size, work / "model", work / "input.parquet", mine))[stage]
            records.append(_record(size, stage, number if stage == "training" else None, found, expected, changes))
            print(_line(records[-1]), flush=True)
    return records


def _record(
    size: str, stage: str, zero: int | None, found: dict[str, Any], expected: float, changes: Sequence[str]
) -> Record:
    grid = {"size": size, "stage": stage, "changes": list(changes)} | ({"zero_stage": zero} if zero is not None else {})
    return {
        "benchmark": "scale",
        "grid": grid,
        "peak_mib": found["peak_mib"],
        "estimate_mib": round(expected, 1),
        "estimate_over_peak": round(expected / found["peak_mib"], 3),
        "seconds": found["stage_seconds"],
        "rows": found["rows"],
        "tokens_per_second": round(found["tokens"] / found["stage_seconds"], 1) if found["tokens"] else None,
        "device": _device(),
        "machine": machine(),
        "commit": commit(),
    }


def _child(stage: str, size: str, work: Path, changes: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scale", "--stage", stage, "--work", str(work), "--size", size]
    command += [word for change in changes for word in ("--set", change)]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _line(record: Record) -> str:
    grid = record["grid"]
    name = grid["stage"] + (f", ZeRO-{grid['zero_stage']}" if "zero_stage" in grid else "")
    speed = f"{record['tokens_per_second']:>9} tokens/s" if record["tokens_per_second"] else ""
    return (
        f"{name:<18} peak {record['peak_mib']:>9} MiB, estimate {record['estimate_mib']:>9} MiB "
        f"({record['estimate_over_peak']}), {record['seconds']:>8} s {speed}"
    )


def _on_cpu() -> bool:
    return _device() == "cpu"


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _save(records: list[Record]) -> None:
    """Replace the records of the same size and device; the others stay."""
    before: list[Record] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    mine = {(row["grid"]["size"], row["device"], tuple(row["grid"]["changes"])) for row in records}
    kept = [row for row in before if (row["grid"]["size"], row["device"], tuple(row["grid"]["changes"])) not in mine]
    lines = ",\n ".join(json.dumps(row) for row in [*kept, *records])
    RESULTS.write_text(f"[\n {lines}\n]\n", encoding="utf-8")


def main() -> None:
    """Command line; with --stage, one measurement in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="11.5 million parameters, for a CPU")
    parser.add_argument("--zero", default="2,3", help="ZeRO stages that training is run with, comma-separated")
    parser.add_argument("--rows", type=int, default=40, help="questions")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="change one setting of the run")
    parser.add_argument("--save", action="store_true", help=f"keep the numbers in {RESULTS.name}")
    parser.add_argument("--size", choices=sorted(SHAPES), default="large", help=argparse.SUPPRESS)
    parser.add_argument("--stage", choices=_STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.stage:
        print(json.dumps(perform(chosen.stage, chosen.size, chosen.work, chosen.changes)))
        return
    size, zero = ("tiny" if chosen.tiny else "large"), [int(number) for number in chosen.zero.split(",")]
    with tempfile.TemporaryDirectory(prefix="mbpo-scale-") as folder:
        records = measure(size, zero, chosen.changes, Path(folder), chosen.rows)
    if chosen.save:
        _save(records)


if __name__ == "__main__":
    main()
