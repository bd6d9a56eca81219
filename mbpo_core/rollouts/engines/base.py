"""What every engine does: take prompts, give each G completions with the log-probs they were sampled with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mbpo_core.config import RolloutsConfig
from mbpo_core.generation.generate import Generated, generate
from mbpo_core.models.groups import Prompt
from mbpo_core.models.policy import Policy
from mbpo_core.records import Sample


@dataclass(frozen=True)
class Answers:
    """The completions of one prompt.

    Attributes:
        completions: G of them. Their log-probs are what training takes for the sampling distribution.
        gap: mean |engine's own log-prob - policy's| of the tokens, nats; None where only one of them is known.
    """

    completions: list[Generated]
    gap: float | None = None


class Engine(Protocol):
    """Samples from the round's policy, over the whole distribution at `rollouts.temperature` (no nucleus)."""

    def answer(self, samples: Sequence[Sample], prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Answers]:
        """G = `rollouts.group_size` completions a prompt.

        Args:
            samples: P questions with their pictures.
            prompts: the same, as the policy reads them.
            seeds: one a prompt, 63 bits; what an engine draws for a prompt depends on nothing else, as far as it can.

        Returns:
            P answers, in order.
        """

    def close(self) -> None:
        """Give back what the engine holds."""


@dataclass(frozen=True)
class PolicyEngine:
    """The policy itself, by the decode loop of `mbpo_core.generation` (engine transformers)."""

    policy: Policy
    config: RolloutsConfig

    def answer(self, samples: Sequence[Sample], prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Answers]:
        """The recorded log-probs are exactly those of the sampling distribution."""
        groups = generate(
            self.policy,
            prompts,
            completions=self.config.group_size,
            temperature=self.config.temperature,
            top_p=1.0,
            max_new_tokens=self.config.max_new_tokens,
            seeds=seeds,
        )
        return [Answers(group) for group in groups]

    def close(self) -> None:
        """The policy holds nothing that is not collected with it."""
