"""The module that DeepSpeed trains: looks at groups in, log-probs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_scores
from mbpo_core.training.looks import Look


@dataclass(frozen=True)
class Scored:
    """What the model makes of one look; B completions over all its groups, in order.

    Attributes:
        logprobs: (B, T) float32, nats, zero after a completion's end.
        divergences: (B, T) KL(reference || policy) at each token's place, nats; None where nobody asked.
    """

    logprobs: Tensor
    divergences: Tensor | None = None


class Scorer(torch.nn.Module):
    """A policy as a module whose forward pass is the scoring of groups.

    The engine hooks into the forward and backward pass of the module it was given; a scoring function that
    reached around it into the model would bypass them.

    Args:
        policy: scores.
        reference: a frozen model that divergences are measured from; None where nobody asks for them.
    """

    def __init__(self, policy: Policy, reference: Policy | None = None) -> None:
        super().__init__()
        self.model = policy.model
        self._policy, self._reference = policy, reference

    def forward(self, looks: Sequence[Look], temperature: float = 1.0) -> list[Scored]:
        """Log-probs of all completions of the groups of each look.

        Sampled answers to a closed question are mostly alike: each distinct completion of a group goes
        through the model once, and its log-probs (and gradients) are shared.

        Args:
            looks: at groups with their prompts.
            temperature: what logits are divided by.
        """
        return [self._score(look, temperature) for look in looks]

    def _score(self, look: Look, temperature: float) -> Scored:
        distinct = [group.distinct() for group in look.groups]
        slim = [
            replace(group, completions=[list(read) for read, _ in one], targets=[list(target) for _, target in one])
            for group, one in zip(look.groups, distinct, strict=True)
        ]
        # Divergences are asked for of the clean view alone; see `objectives.table.DIVERGENCES`.
        reference = self._reference if look.passes[0].view == "clean" else None
        scores = group_scores(
            self._policy,
            slim,
            blind=look.blind,
            temperature=temperature,
            grad=look.grad and torch.is_grad_enabled(),
            rows=sum(map(len, distinct)),
            reference=reference,
        )
        rows = [
            several[one.index(pair)]
            for group, one, several in zip(look.groups, distinct, scores, strict=True)
            for pair in group.pairs()
        ]
        divergences = [row.divergences for row in rows if row.divergences is not None]
        return Scored(pad([row.logprobs for row in rows]), pad(divergences) if divergences else None)


def pad(rows: Sequence[Tensor]) -> Tensor:
    """(B, T) from B vectors (T_b,), zero after each one's end."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
