"""From samples to negatives to pairs: how many rows each step kept, and why it dropped the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from mbpo_core.methods import title_of
from mbpo_core.reports.kinds import plain, stayed_right, words_for
from mbpo_core.reports.sources import Rounds, filled, method_label, parse_meta, rounds_of
from mbpo_core.stage import Reader

REASONS: dict[str, str] = {
    "refusal": "the answer was a refusal",
    "repetition": "the answer repeated itself",
    "length": "the answer was too short or too long",
    "no_other_image": "the data have no other image to show",
    "nothing_to_change": "there was nothing that could be changed",
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
_SAME = "same_answer"


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
    """The steps, what the method has none of, and what the training labels say against the prior."""

    title: str
    steps: list[Step]
    absent: list[str]
    setting: str = ""
    conflict: str = ""


@dataclass(frozen=True)
class _Count:
    """A step before it is known how long its bar is; `same` is the reason same_answer in words."""

    name: str
    note: str
    count: int
    dropped: Mapping[str, int]
    same: str = stayed_right("")

    def step(self, share: float | None) -> Step:
        ordered = sorted(self.dropped.items(), key=lambda item: (-item[1], item[0]))
        words = REASONS | {_SAME: self.same}
        named = [(reason, words.get(reason, reason.replace("_", " ")), count) for reason, count in ordered if count]
        return Step(self.name, self.note, self.count, share, named)


def funnel_section(inputs: Mapping[str, Reader]) -> Funnel | None:
    """The funnel of whichever of samples, negatives, pairs and images there are; None without any."""
    samples = inputs.get("samples")
    mined = _mined(inputs)
    counts = [*_samples(samples, online=not mined and bool(rounds_of(inputs, "rollouts"))), *mined]
    if not counts:
        return None
    # All splits together are no step of the funnel: held-out questions would dwarf what is mined.
    widest = max((one.count for one in counts if one.name != "samples"), default=0) or 1
    return Funnel(
        title="From samples to pairs" if mined else "Samples",
        steps=[one.step(None if one.name == "samples" else one.count / widest) for one in counts],
        absent=_absent(inputs),
        setting=_setting(samples),
        conflict=_conflict(samples),
    )


def _samples(samples: Reader | None, *, online: bool) -> list[_Count]:
    """All samples, and those of the split that the method learns from."""
    if samples is None:
        return []
    splits = Counter(row["split"] for row in samples.rows(columns=["split"]))
    note = ", ".join(f"{count:,} {split}" for split, count in sorted(splits.items()))
    whole = _Count("samples", f"of all splits: {note}", samples.count(), samples.manifest.dropped)
    if online:
        return [whole, _Count("online samples", "the split that is asked and verified", splits["online"], {})]
    return [whole, _Count("offline samples", "the split that is mined", splits["offline"], {})]


def _mined(inputs: Mapping[str, Reader]) -> list[_Count]:
    negatives, pairs, images = (rounds_of(inputs, key) for key in ("negatives", "pairs", "negatives/images"))
    kind, made = _kind(negatives), _kind(images)
    counts = []
    if negatives:
        note = "the attack gave a usable wrong answer" if words_for(kind).is_attack else "a usable rejected side"
        counts.append(_summed("negatives", note, negatives, stayed_right(kind)))
    if pairs:
        counts.append(_summed("pairs", "hard enough to learn from, and kept by gain", pairs))
    if images:
        note = f"of the pairs, with a {plain(made)} image made for each" if made else "made for the pairs"
        counts.append(_summed("rejected images", note, images, stayed_right(made)))
    return counts


def _summed(name: str, note: str, rounds: Rounds, same: str = _Count.same) -> _Count:
    """All rounds together; the note has the count of each where there are several."""
    counts = [reader.count() for _, reader in rounds]
    dropped: Counter[str] = sum((Counter(reader.manifest.dropped) for _, reader in rounds), Counter())
    if len(counts) > 1:
        note = f"{note}; over {len(counts)} rounds: {', '.join(f'{count:,}' for count in counts)}"
    return _Count(name, note, sum(counts), dropped, same)


def _kind(rounds: Rounds) -> str:
    """The kind of negative of the first row; "" without one."""
    first = [reader.slice(0, 1, columns=["kind"])[0] for _, reader in filled(rounds)[:1]]
    return str(first[0]["kind"]) if first else ""


def _absent(inputs: Mapping[str, Reader]) -> list[str]:
    """What a run that was trained has none of, because its method wants none."""
    trained = rounds_of(inputs, "training")
    if not trained:
        return []
    name = title_of(method_label(inputs))
    on_pairs = trained[0][1].manifest.config.get("objective") != "none"
    sentences = []
    if not rounds_of(inputs, "pairs"):
        sentences.append(f"No negatives and no pairs: {name} learns from verified online groups alone.")
    elif not on_pairs:
        sentences.append(f"The pairs are for the baselines: {name} learns from verified online groups alone.")
    if not rounds_of(inputs, "rollouts"):
        sentences.append(f"No rollouts: {name} learns from pairs alone.")
    return sentences


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
