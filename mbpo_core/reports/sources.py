"""Finding what a report may show: readers by stage and round, texts out of rows, numbers as people write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mbpo_core.stage import Reader

TITLES: dict[str, str] = {"base": "base", "sft": "SFT", "dpo": "DPO", "trained": "MBPO"}
STAGES: tuple[str, ...] = ("samples", "negatives", "pairs", "rollouts", "training", "evaluation")
BASELINES: tuple[str, ...] = ("sft", "dpo")


def title_of(label: str) -> str:
    """Heading of a policy."""
    return TITLES.get(label, label)


def rounds_of(inputs: Mapping[str, Reader], stage: str) -> list[tuple[int, Reader]]:
    """(round, reader) of `stage/0`, `stage/1`, ... in order; a bare `stage` is round 0."""
    found = [(0, inputs[stage])] if stage in inputs else []
    for key, reader in inputs.items():
        prefix, _, suffix = key.partition("/")
        if prefix == stage and suffix.isdigit():
            found.append((int(suffix), reader))
    return sorted(found, key=lambda item: item[0])


def named_of(inputs: Mapping[str, Reader], stage: str) -> dict[str, Reader]:
    """Readers of `stage/<word>`, e.g. the baselines `training/sft` and `training/dpo`."""
    pairs = ((key.partition("/"), reader) for key, reader in inputs.items())
    return {
        suffix: reader for (prefix, _, suffix), reader in pairs if prefix == stage and suffix and not suffix.isdigit()
    }


def in_pipeline_order(inputs: Mapping[str, Reader]) -> dict[str, Reader]:
    """The inputs in the order in which a run makes them: stages, in a stage rounds, then baselines."""

    def place(key: str) -> tuple[int, int, int, str]:
        stage, _, suffix = key.partition("/")
        if suffix.isdigit():  # rollouts and training alternate
            return STAGES.index("rollouts"), int(suffix), STAGES.index(stage), ""
        baseline = BASELINES.index(suffix) if suffix in BASELINES else len(BASELINES)
        return STAGES.index(stage) if stage in STAGES else len(STAGES), 0, baseline, key

    return {key: inputs[key] for key in sorted(inputs, key=place)}


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` row numbers evenly over 0..count-1 (all of them if there are fewer): no row is chosen for its looks."""
    if wanted >= count:
        return list(range(count))
    return [index * count // wanted for index in range(wanted)]


def parse_meta(text: str | None) -> dict[str, Any]:
    """A meta column's JSON object; anything else reads as empty."""
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def message_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text parts of a conversation, one after the other."""
    parts = [part.get("text") or "" for message in messages for part in message["content"]]
    return "\n".join(part for part in parts if part)


def same_words(one: str | None, other: str | None) -> bool:
    """Equal up to case, white space and closing punctuation."""
    return _plain(one) == _plain(other)


def percent(part: float, whole: float) -> str:
    """ "64 of 80 (80.0 %)"."""
    share = f" ({100 * part / whole:.1f} %)" if whole else ""
    return f"{part:,.0f} of {whole:,.0f}{share}"


def _plain(text: str | None) -> str:
    return " ".join((text or "").casefold().split()).strip(" .!,")
