"""Do key regions lie where the object is? Each detector on scenes of the demo whose objects are known.

    python -m benchmarks.regions        # prints the table, writes benchmarks/regions.json; half a minute

Scenes are drawn as the offline pools are, under a seed of their own; the eval split is not touched. Each shows two to
four objects, and a sentence names one of them and its colour ("The banana is green."). The truth is the square that
its sprite fills. Of every detector:

    IoU        of its mask and the square; chance: of a mask of that size anywhere, a b / (a + b - a b), where a and b
               are the shares of the picture that mask and square take
    pointing   how often the place that it is surest of (saliency: the middle of its best patch) lies in the square;
               chance: b
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from benchmarks.harness import Record, commit, machine
from mbpo_core.config import NegativesConfig, PolicyConfig
from mbpo_core.demo.pools import DemoCounts, Setting, demo_samples
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.resolve import DEMO_MODELS, resolve_model
from mbpo_core.negatives.bench import Bench
from mbpo_core.negatives.boxes import native_mask, read_boxes
from mbpo_core.negatives.regions import Region, find_regions
from mbpo_core.negatives.tasks import Task, open_task
from mbpo_core.records import Sample

SEED = 20_250
SCENES = 250
SETTINGS: tuple[Setting, ...] = ("natural", "uniform")
DETECTORS: tuple[Literal["saliency", "boxes"], ...] = ("saliency", "boxes")
RESULTS = Path(__file__).parent / "regions.json"


def scenes(setting: Setting, count: int, seed: int = SEED) -> list[Sample]:
    """Colour questions with sentence answers about scenes of two and more objects."""
    none = {"online": 0, "eval_probe": 0, "eval_small_probe": 0, "dev_probe": 0, "dev_small_probe": 0}
    chosen: list[Sample] = []
    for sample in demo_samples(setting, seed, DemoCounts(offline=100 * count, **none)):
        meta = json.loads(sample.meta)
        if meta["topic"] == "color" and sample.answer_form == "sentence" and len(meta["scene"]) > 1:
            chosen.append(sample)
        if len(chosen) == count:
            break
    return chosen


def measure(policy: Policy, samples: Sequence[Sample], detector: Literal["saliency", "boxes"]) -> Record:
    """Mean IoU and pointing of one detector beside chance; share of samples where it found something."""
    bench = Bench(policy, NegativesConfig(method="key_region", detector=detector), seed=0)
    tasks = [task for sample in samples if isinstance(task := open_task(policy, sample, 48), Task)]
    regions = find_regions(bench, tasks)
    rows = [_compare(policy, task, region) for task, region in zip(tasks, regions, strict=True)]
    means = {name: round(sum(row[name] for row in rows) / len(rows), 4) for name in rows[0]}
    return {"detector": detector, "scenes": len(rows), **means}


def _compare(policy: Policy, task: Task, region: Region) -> dict[str, float]:
    """One sample's region against the square of the object that its answer names."""
    subject = json.loads(task.sample.meta)["subject"]
    (box,) = [box for box in read_boxes(task.sample) if box.label == subject]
    _, height, width = region.masks.shape
    truth, mask = native_mask(policy, box.mask(width, height)), region.masks[0]
    found = region.detector != "global"
    a, b = mask.float().mean().item(), truth.float().mean().item()
    both, either = (mask & truth).sum().item(), (mask | truth).sum().item()
    _, y, x = region.how["region"]["point"] if found else (0, 0, 0)
    return {
        "found": float(found),
        "area": a,
        "iou": both / either,
        "chance_iou": a * b / (a + b - a * b),
        "covered": both / truth.sum().item(),
        "pointing": truth[y, x].item() if found else b,  # without a point any place is as good
        "chance_pointing": b,
    }


def main() -> None:
    """Measure every detector on every model and pool; print and save."""
    records: list[Record] = []
    for name in DEMO_MODELS:
        config = PolicyConfig(model=f"demo:{name}", device="cpu")
        policy = load_policy(resolve_model(config), config)
        for setting in SETTINGS:
            samples = scenes(setting, SCENES)
            records += [
                {"model": config.model, "pool": setting, **measure(policy, samples, detector)} for detector in DETECTORS
            ]
    print(" | ".join(records[0]))
    for row in records:
        print(" | ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    saved = {"machine": machine(), "commit": commit(), "seed": SEED, "records": records}
    RESULTS.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
