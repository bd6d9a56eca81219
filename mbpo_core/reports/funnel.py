"""From samples to negatives to pairs: how many rows each step kept, and why it dropped the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from mbpo_core.reports.sources import parse_meta
from mbpo_core.stage import Reader

REASONS: dict[str, str] = {
    "same_answer": "the answer stayed right under the attack",
    "refusal": "the answer was a refusal",
    "repetition": "the answer repeated itself",
    "length": "the answer was too short or too long",
    "low_gain": "the image adds too little to the chosen answer",
    "not_text_leaning": "the rejected answer does not lean on text",
    "implausible": "the rejected answer is implausible on the clean image",
    "outside_share": "outside the share kept by gain",
    "no_rejected": "there is no rejected answer",
    "unreadable_image": "the image cannot be read",
    "image_too_large": "the image is too large",
    "image_outside_root": "the image lies outside the allowed folder",
    "prompt_too_long": "the prompt is too long",
    "missing_value": "a value is missing",
    "unknown_kind": "the question kind is unknown",
    "bad_choices": "the options do not fit the answer",
    "answer_not_in_form": "the answer does not have the declared form",
    "duplicate_id": "the id occurs twice",
    "unverifiable": "the reference answer cannot be verified",
}


@dataclass(frozen=True)
class Step:
    """One bar of the funnel."""

    name: str
    note: str
    count: int
    share: float | None  # length of its bar, of the longest; None for a step without one
    dropped: list[tuple[str, str, int]]  # reason, in words, rows


@dataclass(frozen=True)
class Funnel:
    """The steps, and what the training labels say against the prior."""

    steps: list[Step]
    setting: str = ""
    conflict: str = ""


def funnel_section(inputs: Mapping[str, Reader]) -> Funnel | None:
    """The funnel of whichever of samples, negatives and pairs there are; None without any."""
    counts: list[tuple[str, str, int, dict[str, int]]] = []
    samples = inputs.get("samples")
    if samples is not None:
        splits = Counter(row["split"] for row in samples.rows(columns=["split"]))
        note = ", ".join(f"{count:,} {split}" for split, count in sorted(splits.items()))
        counts.append(("samples", f"of all splits: {note}", samples.count(), dict(samples.manifest.dropped)))
        counts.append(("offline samples", "the split that is mined", splits["offline"], {}))
    for name, note in (
        ("negatives", "the attack gave a usable wrong answer"),
        ("pairs", "hard enough to learn from, and kept by gain"),
    ):
        reader = inputs.get(name)
        if reader is not None:
            counts.append((name, note, reader.count(), dict(reader.manifest.dropped)))
    if not counts:
        return None
    # All splits together are no step of the funnel: held-out questions would dwarf what is mined.
    widest = max((count for name, _, count, _ in counts if name != "samples"), default=0) or 1
    steps = [
        Step(name, note, count, None if name == "samples" else count / widest, _named(dropped))
        for name, note, count, dropped in counts
    ]
    return Funnel(steps, _setting(samples), _conflict(samples))


def _named(dropped: Mapping[str, int]) -> list[tuple[str, str, int]]:
    ordered = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    return [(reason, REASONS.get(reason, reason.replace("_", " ")), count) for reason, count in ordered if count]


def _conflict(samples: Reader | None) -> str:
    """How often the labels that are learnt from contradict the prior, where samples say so."""
    if samples is None:
        return ""
    told = conflicting = 0
    for row in samples.rows(columns=["split", "meta"]):
        meta = parse_meta(row["meta"]) if row["split"] in ("offline", "online") else {}
        if meta.get("prior_answer") is not None:
            told += 1
            conflicting += bool(meta.get("conflict"))
    return f"{conflicting:,} of {told:,} ({100 * conflicting / told:.1f} %)" if told else ""


def _setting(samples: Reader | None) -> str:
    """One sentence: what this setting can prove and what it cannot."""
    config = samples.manifest.config if samples is not None else {}
    if config.get("source") != "demo":
        return (
            "The numbers hold for these data and this split; without probes that contradict a prior they tell how "
            "often the policy is right, not what it leans on."
        )
    if config.get("demo_setting") == "natural":
        return (
            "Natural setting: the training labels mostly follow the prior, as labels of real photographs do, so a gain "
            "against the prior cannot be copied from the labels; it would still say nothing about larger models or "
            "real photographs."
        )
    return (
        "Uniform setting: colours of the training pool are uniform, so most labels contradict the prior and hold the "
        "cure themselves; a gain shows that the whole method works and carries over to objects it never trained on, "
        "but not that it beats plain supervised training on the same labels (see the SFT column where there is one), "
        "nor that it would help where labels follow the prior."
    )
