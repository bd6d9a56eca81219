"""Finding what a report may show: readers by stage and round, texts out of rows, numbers as people write them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mbpo_core.methods import METHODS, MethodEntry
from mbpo_core.stage import Reader, Row

STAGES: tuple[str, ...] = ("samples", "negatives", "pairs", "negatives/images", "rollouts", "training", "evaluation")
BASELINES: tuple[str, ...] = ("sft", "dpo")
UNNAMED = "trained policy"
"""What the policy is called while nothing says which method made it."""

Rounds = Sequence[tuple[int, Reader]]
"""(round, reader) in order."""


def rounds_of(inputs: Mapping[str, Reader], key: str) -> list[tuple[int, Reader]]:
    """(round, reader) of `key/0`, `key/1`, ... in order; a bare `key` is round 0."""
    found = [(0, inputs[key])] if key in inputs else []
    for name, reader in inputs.items():
        suffix = name.removeprefix(f"{key}/")
        if suffix != name and suffix.isdigit():
            found.append((int(suffix), reader))
    return sorted(found, key=lambda item: item[0])


def filled(rounds: Rounds) -> list[tuple[int, Reader]]:
    """The rounds that have rows."""
    return [(index, reader) for index, reader in rounds if reader.count()]


def named_of(inputs: Mapping[str, Reader], stage: str) -> dict[str, Reader]:
    """Readers of `stage/<word>`, e.g. the baselines `training/sft` and `training/dpo`."""
    pairs = ((key.partition("/"), reader) for key, reader in inputs.items())
    return {
        suffix: reader for (prefix, _, suffix), reader in pairs if prefix == stage and suffix and not suffix.isdigit()
    }


def in_pipeline_order(inputs: Mapping[str, Reader]) -> dict[str, Reader]:
    """The inputs in the order in which a run makes them: stages, in a round its stages, then baselines."""

    def place(key: str) -> tuple[int, int, int, str]:
        stage, _, suffix = key.rpartition("/")
        if stage in STAGES and suffix.isdigit():  # rounds alternate rollouts and training, and may mine first
            return STAGES.index("rollouts"), int(suffix), STAGES.index(stage), ""
        if key in STAGES:
            return STAGES.index(key), 0, len(BASELINES), key
        baseline = BASELINES.index(suffix) if suffix in BASELINES else len(BASELINES)
        return STAGES.index(stage) if stage in STAGES else len(STAGES), 0, baseline, key

    return {key: inputs[key] for key in sorted(inputs, key=place)}


def method_label(inputs: Mapping[str, Reader]) -> str:
    """Label of the policy that the run trained: of the evaluation, else of what a later round started from."""
    others = {"base", *named_of(inputs, "training")}
    if "evaluation" in inputs:
        labels = inputs["evaluation"].json("summary.json")["about"]["policies"]
        return next((label for label in reversed(labels) if label not in others), UNNAMED)
    for _, reader in rounds_of(inputs, "training"):
        policy = reader.manifest.policies.get("policy")
        if policy is not None and policy.label not in others:
            return str(policy.label)
    return UNNAMED


def method_entry(label: str) -> MethodEntry | None:
    """What is known of the method behind a label; None of one that no table has."""
    return METHODS.get("mbpo" if label == "trained" else label)


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` row numbers evenly over 0..count-1 (all of them if there are fewer): no row is chosen for its looks."""
    if wanted >= count:
        return list(range(count))
    return [index * count // wanted for index in range(wanted)]


def dealt(rounds: Rounds, wanted: int) -> Iterator[tuple[int, Reader, int]]:
    """(round, reader, share) of `wanted` rows dealt over the rounds, the first ones getting what is left over."""
    for place, (index, reader) in enumerate(rounds):
        yield index, reader, wanted // len(rounds) + (place < wanted % len(rounds))


def spread_rows(rounds: Rounds, wanted: int) -> list[tuple[int, Reader, Row]]:
    """(round, reader, row) of rows at even distances, dealt over the rounds."""
    return [
        (index, reader, row)
        for index, reader, share in dealt(rounds, wanted)
        for number in spread(reader.count(), share)
        for row in reader.slice(number, number + 1)
    ]


def parse_meta(text: str | None) -> dict[str, Any]:
    """A column's JSON object; anything else reads as empty."""
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def same_words(one: str | None, other: str | None) -> bool:
    """Equal up to case, white space and closing punctuation."""
    return _plain(one) == _plain(other)


def percent(part: float, whole: float) -> str:
    """ "64 of 80 (80.0 %)"."""
    share = f" ({100 * part / whole:.1f} %)" if whole else ""
    return f"{part:,.0f} of {whole:,.0f}{share}"


def _plain(text: str | None) -> str:
    return " ".join((text or "").casefold().split()).strip(" .!,")
