"""What the stages write, read by others: pairs by TRL's DPOTrainer, rollouts by a plain `datasets` pipeline.

python -m benchmarks.data_out                               # makes a small run of its own first (a minute or two)
python -m benchmarks.data_out --store runs --run demo       # takes a run that is there

Nothing is renamed, cast or mapped on the way into TRL. Ends with an error if a check fails.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars, load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import DPOConfig, DPOTrainer

from mbpo_core.config import PolicyConfig
from mbpo_core.exporting.dataset import export_tables
from mbpo_core.models.resolve import resolve_model
from mbpo_core.records import message_text
from mbpo_core.store import Store

BATCH = 4


def main() -> None:
    """Make or take a run, and check both ways out."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--store", default="", help="Store root; a temporary one with a run of its own if left out.")
    arguments.add_argument("--run", default="smoke", help="Name of the run.")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        root = given.store or str(Path(name) / "runs")
        if not given.store:
            _make_run(root, given.run)
        store = Store(root)
        model = resolve_model(PolicyConfig.model_validate(_policy(store, given.run)))
        pairs, exported = _open_pairs(store, given.run, Path(name))
        lines = [same_rows(pairs, exported), *train_dpo(pairs, model, Path(name))]
        lines.append(use_rollouts(_exported(store, given.run, "rollouts", Path(name) / "rollouts")))
    versions = [f"{library} {importlib.metadata.version(library)}" for library in ("trl", "datasets", "transformers")]
    print("\n".join([*lines, ", ".join(versions)]))


def same_rows(pairs: Dataset, exported: Dataset) -> str:
    """The artifact's own Parquet files and the exported folder hold the same."""
    _require(pairs.features == exported.features, "features of artifact and export")
    _require(pairs.with_format("arrow")[:] == exported.with_format("arrow")[:], "rows of artifact and export")
    return f"pairs: {len(pairs)} rows, artifact and export equal"


def train_dpo(pairs: Dataset, folder: Path, scratch: Path) -> list[str]:
    """Two steps of DPOTrainer on the pairs as they were loaded.

    Checked: the collator's completions are the rows' chosen and rejected texts, every row's pixels reach the model, the
    first loss is log 2 (policy = reference), and a step changes weights.
    """
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(
            output_dir=str(scratch / "dpo"), per_device_train_batch_size=BATCH, max_steps=2,
            learning_rate=1e-3, max_length=None, gradient_checkpointing=False, bf16=False, use_cpu=True,
            logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        ),
        train_dataset=pairs,
        processing_class=processor,
    )  # fmt: skip
    seen = trainer.data_collator([pairs[index] for index in range(min(BATCH, len(pairs)))])
    rows = len(seen["input_ids"]) // 2
    for side, start in (("chosen", 0), ("rejected", rows)):
        for index in range(rows):
            kept = seen["input_ids"][start + index][seen["completion_mask"][start + index].bool()]
            said = processor.tokenizer.decode(kept, skip_special_tokens=True).strip()
            wanted = message_text(pairs[index][side]).strip()
            _require(said == wanted, f"row {index}, {side}: TRL trains on {said!r}, the row says {wanted!r}")
    _require(len(seen["pixel_values"]) == 2 * rows, "a picture for every prompt")
    trainer.train()
    losses = [float(log["loss"]) for log in trainer.state.log_history if "loss" in log]
    _require(abs(losses[0] - math.log(2)) < 1e-3, f"the first loss is {losses[0]}, expected log 2")
    moved = sum(not torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    _require(moved > 0, "no weight moved")
    return [f"DPOTrainer: {rows} rows decoded to their texts; losses {losses}; {moved} of {len(before)} tensors moved"]


def use_rollouts(rollouts: Dataset) -> str:
    """map, filter and a torch format over the groups: the best completion of each question that was not unanimous."""

    def best(row: dict[str, Any]) -> dict[str, Any]:
        rewards = [completion["reward"] for completion in row["completions"]]
        first = row["completions"][rewards.index(max(rewards))]
        spread = max(rewards) - min(rewards)
        return {"best": first["text"], "reward": max(rewards), "spread": spread, "width": row["images"][0].width}

    made = rollouts.map(best, load_from_cache_file=False)
    varied = made.filter(lambda row: not row["zero_variance"], load_from_cache_file=False)
    _require(all(row > 0 for row in varied["spread"]), "groups that vary have a spread")
    _require(all(row > 0 for row in made["width"]), "pictures decode")
    tensors = made.select_columns(["reward", "width"]).with_format("torch")[:]
    _require(tensors["reward"].dtype.is_floating_point and len(tensors["reward"]) == len(rollouts), "tensors")
    return f"rollouts: {len(rollouts)} groups mapped, {len(varied)} with a spread, rewards as tensors"


def _open_pairs(store: Store, run: str, scratch: Path) -> tuple[Dataset, Dataset]:
    """The pairs from the artifact's own files, and from an export of it."""
    ref = store.run(run).pointers()["pairs"]
    parts = [part for part in store.reader(ref).manifest.parts if part.table == "part"]
    files = [f"{store.uri(ref.stage, ref.digest)}/{part.file.path}" for part in parts]
    cache = str(scratch / "cache")
    own = load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    return own, _exported(store, run, "pairs", scratch / "pairs")


def _exported(store: Store, run: str, stage: str, folder: Path) -> Dataset:
    pointers = store.run(run).pointers()
    key = next(key for key in pointers if key.split("/")[0] == stage)
    export_tables(store, pointers[key], folder)
    return load_dataset(str(folder), stage, split="train", cache_dir=str(folder.parent / "cache"))


def _policy(store: Store, run: str) -> dict[str, Any]:
    return dict((store.run(run).document().config or {}).get("policy", {}))


def _make_run(root: str, config: str) -> None:
    command = [str(Path(sys.executable).parent / "mbpo"), "run", "--config", config, "--store", root]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"MBPO_STORE": root})


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"data_out: not so: {what}")


if __name__ == "__main__":
    main()
