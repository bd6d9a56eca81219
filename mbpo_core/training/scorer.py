"""The module that DeepSpeed trains: looks at groups in, log-probs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import torch
from PIL import Image as pil
from torch import Tensor

from mbpo_core.models.encoding import encode
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import check_packing, group_scores
from mbpo_core.training.data import GroupSet
from mbpo_core.training.looks import Look
from mbpo_core.training.plan import Batch

_SIDE = 64  # pixels of a blank image; families resize it as they like


class Scored(NamedTuple):
    """What the model makes of one look; B completions over all its groups, in order.

    A tuple, in which DeepSpeed finds the tensors: where their backward pass begins, ZeRO-3 gathers what the scorer
    reads of the model directly, the vocabulary projection.

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
        in_step: whether other processes make the same pass, on other groups: then prompts without any image go
            through the vision tower too, by way of a blank one.
    """

    def __init__(self, policy: Policy, reference: Policy | None = None, *, in_step: bool = False) -> None:
        super().__init__()
        self.model = policy.model
        self._policy, self._reference, self._in_step = policy, reference, in_step

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
        nothing = self._nothing_seen(look)  # first, as pictures are
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
        return Scored(pad([row.logprobs for row in rows]) + nothing, pad(divergences) if divergences else None)

    def _nothing_seen(self, look: Look) -> Tensor | float:
        """Zero; from a blank image where no prompt has one.

        Parameters that get a gradient, or are gathered, in one process and not in another stop both.
        """
        if not self._in_step or look.blind in ("mask", "drop") or any(group.prompt.images for group in look.groups):
            return 0.0
        with torch.set_grad_enabled(look.grad and torch.is_grad_enabled()):
            (features,) = encode(self._policy, [self._policy.family.read(pil.new("RGB", (_SIDE, _SIDE)))])
            return 0.0 * features.float().sum()


def settle_packing(policy: Policy, groups: GroupSet, batches: Sequence[Batch]) -> None:
    """Compare packed with plain rows now: later one process would do so alone, amid passes that all make together."""
    for several in ([batch.offline for batch in batches], [batch.online for batch in batches]):
        for index in list(chain.from_iterable(several))[:1]:
            for look in groups.looks([index], groups.entry(groups.kind(index)[1]).passes):
                check_packing(policy, look.groups)


def pad(rows: Sequence[Tensor]) -> Tensor:
    """(B, T) from B vectors (T_b,), zero after each one's end."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
