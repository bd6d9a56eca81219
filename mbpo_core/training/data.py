"""Pairs and rollouts as groups: the one data type that training knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mbpo_core.config import TrainingConfig
from mbpo_core.errors import DataError
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.stage import Row

_EMPTY = Prompt(token_ids=[])


class GroupSet:
    """A round's groups. Completions are tokens from the start; a prompt is rendered when its group is taken.

    Pixel values of thousands of images would fill the memory of every process, while lengths and rewards of all
    groups are needed at once to normalise a step globally.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._groups: list[PromptGroup] = []
        self._prompts: list[tuple[list[dict[str, Any]], list[Row]]] = []

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> PromptGroup:
        """A group with its prompt, ready for the model."""
        messages, images = self._prompts[index]
        group = self._groups[index]
        return replace(group, prompt=self._policy.prepare(messages, [open_image(image) for image in images]))

    def bare(self, index: int) -> PromptGroup:
        """The same group without its prompt: lengths, rewards, log-probs."""
        return self._groups[index]

    def lengths(self, index: int) -> list[int]:
        """Tokens of each completion, EOS included."""
        return [len(tokens) for tokens in self._groups[index].completions]

    def trains(self, index: int) -> bool:
        """Whether its rewards differ: a group of equals has zero advantage everywhere."""
        return len(set(self._groups[index].rewards)) > 1

    def set_reference(self, index: int, logprobs: list[list[float]]) -> None:
        """Keep the frozen reference's log-probs beside a group."""
        self._groups[index] = replace(self._groups[index], reference_logprobs=logprobs)

    def add_pair(self, row: Row, config: TrainingConfig) -> int:
        """An offline pair is a group of two, chosen first; SFT needs the chosen response alone."""
        texts = [_text(row["chosen"])] if config.objective == "sft" else [_text(row[k]) for k in ("chosen", "rejected")]
        group = PromptGroup(
            prompt=_EMPTY,
            completions=[self._policy.encode_completion(text) for text in texts],
            sample_id=row["sample_id"],
            source="offline",
            rewards=[config.reward_chosen, config.reward_rejected][: len(texts)],
        )
        return self._add(group, row)

    def add_rollout(self, row: Row) -> int:
        """An online group of G completions with verified rewards and the log-probs they were sampled with."""
        completions = row["completions"]
        for number, completion in enumerate(completions):
            tokens, logprobs = len(completion["token_ids"]), len(completion["logprobs"])
            if not tokens or tokens != logprobs:
                raise DataError(
                    f"completion {number} has {tokens} tokens and {logprobs} log-probs",
                    where=f"rollouts, sample {row['sample_id']}",
                    expected="one log-prob a token, and at least one token",
                    remedy="Run the rollouts stage again.",
                )
        group = PromptGroup(
            prompt=_EMPTY,
            completions=[list(c["token_ids"]) for c in completions],
            sample_id=row["sample_id"],
            source="online",
            rewards=[float(c["reward"]) for c in completions],
            rollout_logprobs=[list(c["logprobs"]) for c in completions],
            temperature=float(row["temperature"]),
        )
        return self._add(group, row)

    def _add(self, group: PromptGroup, row: Row) -> int:
        self._groups.append(group)
        self._prompts.append((row["prompt"], row["images"]))
        return len(self._groups) - 1


def _text(messages: list[dict[str, Any]]) -> str:
    return "".join(part["text"] or "" for message in messages for part in message["content"] if part["type"] == "text")
