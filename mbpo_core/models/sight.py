"""Does the model look at all? Images that are dropped on the way to the model raise no error by themselves."""

from __future__ import annotations

from mbpo_core.errors import ModelError
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import group_logprobs

_QUESTION = "What is this?"
_SIDE = 64  # pixels
_NOISE = 1e-5
"""Difference of log-probs that rounding explains, nats."""


def check_sight(policy: Policy) -> None:
    """Ask the same about two pictures of noise, in two rows: some log-prob must differ.

    Raises:
        ModelError: none does.
    """
    import numpy as np
    from PIL.Image import fromarray

    random = np.random.default_rng(0)
    pictures = [fromarray(random.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)) for _ in range(2)]
    completion = policy.encode_completion("Yes")
    groups = [PromptGroup(policy.prepare(_QUESTION, [picture]), [completion]) for picture in pictures]
    (first,), (second,) = group_logprobs(policy, groups)
    if float((first - second).abs().max()) <= _NOISE:
        raise ModelError(
            "the model's answer does not depend on the picture: two pictures of noise give equal log-probs",
            where=policy.where,
            expected="a model whose tower and projector are trained",
            remedy="Check that the folder holds the weights of tower and projector; a projector that was never trained "
            "may be all zeros.",
        )
