"""The module that DeepSpeed trains: groups in, log-probs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs


class Scorer(torch.nn.Module):
    """A policy as a module whose forward pass is the scoring of groups.

    The engine hooks into the forward and backward pass of the module it was given; a scoring function that
    reached around it into the model would bypass them.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.model = policy.model
        self._policy = policy

    def forward(self, groups: Sequence[PromptGroup], temperature: float = 1.0) -> Tensor:
        """Log-probs of all completions of the groups, in order.

        Sampled answers to a closed question are mostly alike: each distinct completion of a group goes
        through the model once, and its log-probs (and gradients) are shared.

        Args:
            groups: with their prompts.
            temperature: what logits are divided by.

        Returns:
            (B, T) float32, nats, zero after a completion's end; B completions over all groups.
        """
        distinct = [list(dict.fromkeys(map(tuple, group.completions))) for group in groups]
        slim = [
            replace(group, completions=[list(tokens) for tokens in unique])
            for group, unique in zip(groups, distinct, strict=True)
        ]
        scored = group_logprobs(
            self._policy, slim, temperature=temperature, grad=torch.is_grad_enabled(), rows=sum(map(len, distinct))
        )
        rows = [
            logprobs[unique.index(tuple(tokens))]
            for group, unique, logprobs in zip(groups, distinct, scored, strict=True)
            for tokens in group.completions
        ]
        return pad(rows)


def pad(rows: Sequence[Tensor]) -> Tensor:
    """(B, T) from B vectors (T_b,), zero after each one's end."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
