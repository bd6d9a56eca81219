"""Does memory grow with the number of samples? Peak RSS of samples, negatives and pairs, each in a fresh process.

The pictures are 16 px and the policy has one layer of hidden size 16, so that what is measured is the machinery:
whatever a stage keeps a row shows at 100,000 rows, and costs minutes instead of days.

    python -m benchmarks.memory --sizes 1000,10000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import commit, machine, peak_mib

SIZES = (1_000, 10_000, 100_000)
QUICK_SIZES = (200, 1_000)
STAGES = ("samples", "negatives", "pairs")

_PIXELS = 16
_WRITE_ROWS = 1000
_QUESTIONS = (
    ("Is the square red?", "Yes"),
    ("Is the square blue?", "No"),
    ("What color is the square?", "red"),
    ("How many squares are there?", "1"),
    ("Describe the image.", "A square lies on a plain background."),
)


def run(quick: bool) -> list[dict[str, Any]]:
    """One record a size and stage; see `measure`."""
    return measure(QUICK_SIZES if quick else SIZES)


def measure(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Run the stages on each number of samples.

    Args:
        sizes: numbers of samples; the first is what the others are compared with.

    Returns:
        Records with `peak_ratio`, the peak over that of the same stage at the first size, and CPU milliseconds a row.
    """
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="mbpo-memory-") as folder:
        model = save_policy(Path(folder) / "model")
        for size in sizes:
            work = Path(folder) / str(size)
            work.mkdir()
            write_input(work / "input.parquet", size)
            for stage in STAGES:
                records.append(_record(stage, size, _child(stage, work, model), records))
    return records


def write_input(path: Path, count: int) -> None:
    """`count` rows of question, answer and a small picture of their own, written a thousand at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("image", pa.binary()), ("question", pa.string()), ("answer", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, _WRITE_ROWS):
            numbers = range(start, min(start + _WRITE_ROWS, count))
            questions = [_QUESTIONS[number % len(_QUESTIONS)] for number in numbers]
            rows = [
                {"image": _picture(number), "question": question, "answer": answer}
                for number, (question, answer) in zip(numbers, questions, strict=True)
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _picture(number: int) -> bytes:
    """A PNG that no other number has: a square on a ground, both colours read off the number."""
    import io

    from PIL import Image

    image = Image.new("RGB", (_PIXELS, _PIXELS), (number % 256, number // 256 % 256, number // 65536 % 256))
    image.paste((255 - number % 256, 30, 30), (4, 4, 12, 12))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def save_policy(folder: Path) -> Path:
    """A LLaVA of one layer a side and hidden size 16 with random weights, for 16 px pictures."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip import CLIPImageProcessorPil

    from mbpo_core.demo.tiny_llava import CHAT_TEMPLATE, IMAGE_TOKEN, PATCH, build_tokenizer, save

    tokenizer = build_tokenizer([text for pair in _QUESTIONS for text in pair] * 2)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=1, max_position_embeddings=128, initializer_range=0.5,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, **sizes,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=_PIXELS, patch_size=PATCH, **sizes),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(_PIXELS // PATCH) ** 2,
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    for parameter in model.model.multi_modal_projector.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # or the answer would hardly depend on the picture
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    picture = {"height": _PIXELS, "width": _PIXELS}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": _PIXELS}, crop_size=picture),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE_TOKEN,
        chat_template=CHAT_TEMPLATE,
    )
    save(folder, model, processor)
    return folder


def perform(stage: str, work: Path, model: Path) -> dict[str, Any]:
    """Run one stage on what the one before left in `work`, in this process, and say what it took."""
    from mbpo_core.config import NegativesConfig, PairsConfig, PolicyConfig, SamplesConfig
    from mbpo_core.execution import plan, run_stage
    from mbpo_core.models.digest import import_policy
    from mbpo_core.progress import NullProgress
    from mbpo_core.stages import STAGES as SPECS
    from mbpo_core.store import Store

    sections = {
        "samples": SamplesConfig(
            source="parquet", path=str(work / "input.parquet"), offline_share=1.0, online_share=0.0, dev_share=0.0
        ),
        "negatives": NegativesConfig(
            steps=1, max_new_tokens=4, extra_samples=0, min_distinct=0.0, min_length_ratio=0.0, max_length_ratio=100.0
        ),
        "pairs": PairsConfig(text_leaning=False, plausible=False),
    }
    before = {"samples": None, "negatives": "samples", "pairs": "negatives"}[stage]
    store, run_name = Store(work / "store"), "memory"
    policy_config = PolicyConfig(model=str(model), device="cpu")
    given = store.run(run_name).get(before) if before else None
    planned = plan(
        store,
        SPECS[stage],
        sections[stage],
        {before: given} if before and given else {},
        {"policy": import_policy(policy_config)} if before else {},
        policy_config if before else None,
    )
    reader = store.reader(run_stage(store, run_name, planned, NullProgress()))
    times = os.times()
    return {
        "peak_mib": peak_mib(),
        "cpu_s": times.user + times.system,
        "rows": reader.count(),
        "dropped": sum(reader.manifest.dropped.values()),
        "seconds": reader.manifest.seconds,
    }


def _child(stage: str, work: Path, model: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", "--stage", stage, "--work", str(work), "--model", str(model)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _record(stage: str, size: int, found: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = next((record for record in earlier if record["grid"]["stage"] == stage), None)
    peak = round(found["peak_mib"], 1)
    return own_record(
        "memory",
        {"stage": stage, "samples": size},
        found["cpu_s"],
        peak,
        rows=found["rows"],
        dropped=found["dropped"],
        peak_ratio=round(peak / first["ours_peak_mib"], 3) if first else 1.0,
        stage_ms_per_row=round(1000 * found["seconds"] / size, 3),
    )


def own_record(benchmark: str, grid: dict[str, Any], cpu_s: float, peak: float, **extra: Any) -> dict[str, Any]:
    """A record of what has no peer; CPU seconds and MiB of ours, measured once."""
    return {
        "benchmark": benchmark,
        "grid": grid,
        "ours_cpu_s": round(cpu_s, 2),
        "peer": None,
        "peer_version": None,
        "peer_cpu_s": None,
        "ratio": None,
        "ours_peak_mib": round(peak, 1),
        "peer_peak_mib": None,
        "repeats": 1,
        "machine": machine(),
        "commit": commit(),
        **extra,
    }


def _lines(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield f"{'stage':<10} {'samples':>8} {'kept':>7} {'peak MiB':>9} {'ratio':>6} {'CPU s':>8} {'ms/row':>7}"
    for record in records:
        grid = record["grid"]
        yield (
            f"{grid['stage']:<10} {grid['samples']:>8} {record['rows']:>7} {record['ours_peak_mib']:>9} "
            f"{record['peak_ratio']:>6} {record['ours_cpu_s']:>8} {record['stage_ms_per_row']:>7}"
        )


def main() -> None:
    """Command line; with --stage, one measurement in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of samples, comma-separated")
    parser.add_argument("--output", type=Path, help="also write the records to this JSON file")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.stage:
        print(json.dumps(perform(chosen.stage, chosen.work, chosen.model)))
        return
    records = measure([int(size) for size in chosen.sizes.split(",")])
    if chosen.output:
        chosen.output.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    print("\n".join(_lines(records)))


if __name__ == "__main__":
    main()
