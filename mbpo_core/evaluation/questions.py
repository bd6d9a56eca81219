"""Which questions are asked: of a split, a few a probe, the same in every run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
        DataError: the split holds no sample, or none of a probe that is to be asked.
    """
    held_out = reader.where("split", [config.split])
    if not held_out.count():
        raise DataError(
            f"no sample is in the {config.split} split",
            where="samples",
            expected="held-out questions",
            remedy="Set samples.split_column, or lower offline_share + online_share + dev_share.",
        )
    if not config.per_probe and not config.probes:
        return held_out
    there: set[str] = set()

    def named() -> Iterator[Row]:
        for row in held_out.rows(columns=["sample_id", "kind", "meta"]):
            probe = probe_of(row)
            there.add(probe)
            if not config.probes or probe in config.probes:
                yield row

    asked = choose_questions(named(), config.per_probe) if config.per_probe else {row["sample_id"] for row in named()}
    _refuse_unknown(config.probes, there)
    return held_out.where("sample_id", sorted(asked))


def _refuse_unknown(probes: Sequence[str], there: set[str]) -> None:
    if missing := [probe for probe in probes if probe not in there]:
        raise DataError(
            f"no held-out question belongs to {', '.join(missing)}",
            where="evaluation.probes",
            expected=f"some of {', '.join(sorted(there))}",
            remedy="Name probes that the samples have, or none to ask all.",
        )
