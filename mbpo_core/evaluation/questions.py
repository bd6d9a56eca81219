"""Which questions are asked: of a split, a few a probe, the same in every run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mbpo_core.config import EvaluationConfig
from mbpo_core.errors import DataError
from mbpo_core.evaluation.outcomes import parse_meta
from mbpo_core.seeds import derive_seed
from mbpo_core.stage import Row


def probe_of(sample: Row) -> str:
    """The evaluation set a sample belongs to: `probe` of its meta, else its kind."""
    return str(parse_meta(sample["meta"]).get("probe") or sample["kind"])


def choose_questions(samples: Iterable[Row], per_probe: int) -> set[str]:
    """Ids of at most `per_probe` samples a probe.

    The choice is by a hash of the id: it does not favour what comes first, and every run, seed and policy gets the
    same questions.

    Args:
        samples: rows with sample_id, kind and meta; streamed.
        per_probe: most questions a probe, >= 1.
    """
    by_probe: dict[str, list[tuple[int, str]]] = {}
    for sample in samples:
        sample_id = sample["sample_id"]
        best = by_probe.setdefault(probe_of(sample), [])
        best.append((derive_seed(0, "evaluation", "question", sample_id), sample_id))
        if len(best) >= 2 * per_probe:
            best[:] = sorted(best)[:per_probe]
    return {sample_id for best in by_probe.values() for _, sample_id in sorted(best)[:per_probe]}


def questions_of(reader: Any, config: EvaluationConfig) -> Any:
    """A view of the samples that are asked.

    Args:
        reader: the samples artifact.
        config: split and questions a probe.

    Raises:
        DataError: the split holds no sample.
    """
    held_out = reader.where("split", [config.split])
    if not held_out.count():
        raise DataError(
            f"no sample is in the {config.split} split",
            where="samples",
            expected="held-out questions",
            remedy="Set samples.split_column, or lower offline_share + online_share + dev_share.",
        )
    if not config.per_probe:
        return held_out
    rows = held_out.rows(columns=["sample_id", "kind", "meta"])
    return held_out.where("sample_id", sorted(choose_questions(rows, config.per_probe)))
