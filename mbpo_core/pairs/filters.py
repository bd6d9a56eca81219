"""Which scored pairs teach something: small predicates that say nothing, or why not.

Comparisons are written so that a value that is not a number fails them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from mbpo_core.config import PairsConfig


@dataclass(frozen=True)
class Scores:
    """The columns of a scored pair that filters and selection look at; nats per token."""

    sample_id: str
    question_kind: str
    gain_chosen: float
    gain_rejected: float | None  # null where only the image is dispreferred
    logprob_rejected: float | None
    blind_logprob_chosen: float
    blind_logprob_rejected: float | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Scores:
        """From a row of PreferencePair that has at least these columns."""
        return cls(**{name: row[name] for name in COLUMNS})


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Scores))


def low_gain(scores: Scores, config: PairsConfig) -> str | None:
    """The image must make the chosen response likelier: gain_chosen > min_gain."""
    if scores.gain_chosen > (config.min_gain if config.informative else -math.inf):
        return None
    return f"gain of chosen {scores.gain_chosen:.4f} nats/token, must exceed {config.min_gain:g}"


def not_text_leaning(scores: Scores, config: PairsConfig) -> str | None:
    """The rejected response must lean on the text (recipe 1.4, filter 4).

    gain_rejected < gain_chosen - gain_margin, and
    blind log p(rejected) >= blind log p(chosen) - blind_slack.
    """
    if not config.text_leaning or scores.gain_rejected is None or scores.blind_logprob_rejected is None:
        return None
    margin = scores.gain_chosen - scores.gain_rejected
    if not margin > config.gain_margin:
        return f"gain of chosen exceeds that of rejected by {margin:.4f} nats/token, must exceed {config.gain_margin:g}"
    lag = scores.blind_logprob_chosen - scores.blind_logprob_rejected
    if not lag <= config.blind_slack:
        return (
            f"blind, rejected is {lag:.4f} nats/token less likely than chosen, at most {config.blind_slack:g} allowed"
        )
    return None


def implausible(scores: Scores, config: PairsConfig) -> str | None:
    """A hard negative is plausible on the clean image, too (recipe 1.4, filter 5).

    log p(rejected | clean image) > min_rejected_logprob, mean over tokens.
    """
    if not config.plausible or scores.logprob_rejected is None:
        return None
    if scores.logprob_rejected > config.min_rejected_logprob:
        return None
    return f"log p(rejected) is {scores.logprob_rejected:.4f} nats/token, must exceed {config.min_rejected_logprob:g}"


FILTERS: dict[str, Callable[[Scores, PairsConfig], str | None]] = {
    "low_gain": low_gain,
    "not_text_leaning": not_text_leaning,
    "implausible": implausible,
}
"""By reason, in the order they are asked; the first that speaks decides."""


def reason_against(scores: Scores, config: PairsConfig) -> tuple[str, str] | None:
    """(reason, detail) of the first filter that a pair fails, or None."""
    for reason, check in FILTERS.items():
        if detail := check(scores, config):
            return reason, detail
    return None
