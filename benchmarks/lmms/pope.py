"""A run's yes-no questions for lmms-eval, and its answers beside ours.

python -m benchmarks.lmms.pope write --run demo pope.parquet
python -m benchmarks.lmms.pope compare --run demo --policy trained lmms/SAMPLES.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mbpo_core.evaluation.existence import SETS, official_answer
from mbpo_core.stage import Reader
from mbpo_core.store import Store
from mbpo_core.verifiers.registry import extract

Row = Mapping[str, Any]

MEASURES = ("accuracy", "precision", "recall", "f1", "yes_ratio")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("write", "compare"))
    parser.add_argument("file", type=Path, help="The Parquet to write, or the samples that lmms-eval logged.")
    parser.add_argument("--run", default="demo")
    parser.add_argument("--store", default="runs")
    parser.add_argument("--policy", default="trained", help="Whose answers are compared.")
    chosen = parser.parse_args(arguments)
    evaluation = read_evaluation(chosen.store, chosen.run)
    if chosen.action == "write":
        print(f"{write_questions(evaluation.rows(), chosen.file)} questions in {chosen.file}")
    else:
        samples = map(json.loads, chosen.file.read_text(encoding="utf-8").splitlines())
        print(json.dumps(compare(evaluation.rows(), samples, chosen.policy), indent=2))


def read_evaluation(store: str, run: str) -> Reader:
    """The run's latest evaluation."""
    opened = Store(store)
    ref = opened.run(run).get("evaluation")
    if ref is None:
        raise SystemExit(f"run {run!r} of {opened.root} has no evaluation yet; make it with mbpo run.")
    return opened.reader(ref)


def write_questions(predictions: Iterable[Row], target: Path) -> int:
    """Write the existence questions as lmms-eval's POPE has them: question_id, question, answer, category, image.

    Args:
        predictions: rows of an evaluation; the first policy's carry the images.
        target: Parquet file.

    Returns:
        How many questions there are.
    """
    from datasets import Dataset, Features, Image, Value

    text = Value("string")
    features = Features(question_id=text, question=text, answer=text, category=text, image=Image())
    rows = [
        {
            "question_id": row["sample_id"],
            "question": row["question"],
            "answer": truth(row),
            "category": row["probe"].removeprefix("existence_"),
            "image": row["images"][0],
        }
        for row in existence(predictions)
        if row["images"]
    ]
    Dataset.from_list(rows, features=features).to_parquet(str(target))
    return len(rows)


def compare(predictions: Iterable[Row], samples: Iterable[Row], policy: str) -> dict[str, Any]:
    """Both sides' answers to the same questions, read by the same parser.

    Args:
        predictions: rows of an evaluation.
        samples: lines that lmms-eval logged with --log_samples.
        policy: label of the policy that lmms-eval was given.

    Returns:
        How many questions both answered, to how many in the same words and with the same reading, and the POPE
        measures of either side.
    """
    ours = {row["sample_id"]: row for row in existence(predictions) if row["policy"] == policy}
    theirs = {sample["pope_accuracy"]["question_id"]: sample["filtered_resps"] for sample in samples}
    both = sorted(ours.keys() & theirs.keys())
    pairs = [(ours[key]["text"], theirs[key]) for key in both]
    truths = [truth(ours[key]) for key in both]
    return {
        "questions": len(both),
        "same_text": sum(one.strip() == other.strip() for one, other in pairs),
        "same_reading": sum(official_answer(one) == official_answer(other) for one, other in pairs),
        "ours": measures(truths, [one for one, _ in pairs]),
        "theirs": measures(truths, [other for _, other in pairs]),
    }


def measures(truths: list[str], texts: list[str]) -> dict[str, float]:
    """POPE's five, yes being the positive class."""
    said = [official_answer(text) for text in texts]
    right = sum(one == other for one, other in zip(truths, said, strict=True))
    hits = sum(one == other == "yes" for one, other in zip(truths, said, strict=True))
    yes, there = said.count("yes"), truths.count("yes")
    values = (
        right / len(said),
        hits / max(yes, 1),
        hits / max(there, 1),
        2 * hits / max(yes + there, 1),
        yes / len(said),
    )
    return dict(zip(MEASURES, (round(value, 6) for value in values), strict=True))


def existence(predictions: Iterable[Row]) -> Iterator[Row]:
    """The rows that POPE is about."""
    sets = {f"existence_{name}" for name in SETS} | {"existence"}
    return (row for row in predictions if row["question_kind"] == "yes_no" and row["probe"] in sets)


def truth(row: Row) -> str:
    """yes or no, as the reference answer says."""
    return extract("yes_no", row["answer"]) or ""


if __name__ == "__main__":
    main()
