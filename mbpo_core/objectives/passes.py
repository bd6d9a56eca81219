"""What an objective looks at: which completions under which images. Needs no torch to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

View = Literal["clean", "rejected", "blind", "masked"]
"""The images as they are, the rejected ones, none that the text can see, the images with patches blacked out."""

Side = Literal["chosen", "rejected", "slip", "sampled"]
"""Sides of a pair; slip: what the reference would have said at each token of chosen, seeing the rejected images; all
completions of an online group."""


class Pass(NamedTuple):
    """One side under one view: what goes through the model once."""

    view: View
    side: Side


CHOSEN = Pass("clean", "chosen")
REJECTED = Pass("clean", "rejected")
SLIP = Pass("clean", "slip")
WRONG = Pass("rejected", "chosen")
WRONG_REJECTED = Pass("rejected", "rejected")
BLIND = Pass("blind", "chosen")
BLIND_REJECTED = Pass("blind", "rejected")
SAMPLED = Pass("clean", "sampled")
MASKED = Pass("masked", "sampled")


def by_view(passes: Sequence[Pass]) -> dict[View, tuple[Pass, ...]]:
    """Passes by view, in the order in which the views come up: the order of everything that is scored of a group."""
    return {
        view: tuple(one for one in passes if one.view == view) for view in dict.fromkeys(one.view for one in passes)
    }


@dataclass(frozen=True)
class PairScores:
    """Log-probs of P pairs, by pass.

    Attributes:
        policy: (P, T) nats, with gradient where the objective asks for it.
        reference: (P, T) nats, frozen.
        masks: (P, T) bool by side, True on completion tokens incl. EOS.
        second: (P, T) nats, under a second reference.
        weights: (P, T) by side, what CHiP multiplies a token's log-prob by.
        divergences: (P, T) KL(reference || policy) at each token's place, nats.
        shift: BCO's reward shift.
        gain_mean, gain_std: of chosen under the reference over all pairs, nats per token.
    """

    policy: Mapping[Pass, Tensor]
    reference: Mapping[Pass, Tensor]
    masks: Mapping[Side, Tensor]
    second: Mapping[Pass, Tensor] = field(default_factory=dict)
    weights: Mapping[Side, Tensor] = field(default_factory=dict)
    divergences: Mapping[Pass, Tensor] = field(default_factory=dict)
    shift: float = 0.0
    gain_mean: float = 0.0
    gain_std: float = 1.0

    def total(self, logprobs: Mapping[Pass, Tensor], which: Pass) -> Tensor:
        """(P,) sums over a completion's tokens, nats."""
        return self._kept(logprobs[which], which).sum(dim=1)

    def ratio(self, which: Pass) -> Tensor:
        """(P,) log pi - log pi_ref, SUM over tokens, nats: what the DPO family takes."""
        return self._kept(self.policy[which] - self.reference[which], which).sum(dim=1)

    def mean_ratio(self, which: Pass) -> Tensor:
        """(P,) the same as a mean over tokens, nats per token: IPO."""
        return self.ratio(which) / self._length(which)

    def weighted_ratio(self, which: Pass) -> Tensor:
        """(P,) the sum with each token's weight: CHiP."""
        kept = self._kept(self.policy[which] - self.reference[which], which)
        return (kept * self.weights[which.side]).sum(dim=1)

    def mean(self, logprobs: Mapping[Pass, Tensor], which: Pass) -> Tensor:
        """(P,) mean log-prob, nats per token."""
        return self.total(logprobs, which) / self._length(which)

    def _length(self, which: Pass) -> Tensor:
        return self.masks[which.side].sum(dim=1).clamp(min=1)

    def _kept(self, values: Tensor, which: Pass) -> Tensor:
        return values.masked_fill(~self.masks[which.side], 0.0)
