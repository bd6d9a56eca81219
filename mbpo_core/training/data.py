"""Pairs and rollouts as groups: the one data type that training knows."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mbpo_core.config import TrainingConfig
from mbpo_core.errors import DataError
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.stage import Row
from mbpo_core.training.rows import Table

_PROMPT = ("prompt", "images")
_PAIR = ("sample_id", "chosen", "rejected")
_ROLLOUT = ("sample_id", "temperature", "completions")
_EMPTY = Prompt(token_ids=[])


class GroupSet:
    """A round's groups. Completions are tokens from the start; a prompt is read and rendered when its group is taken.

    Lengths and rewards of all groups are needed at once to normalise a step globally; pictures are not. So a group
    keeps 4 bytes a token, as many for each log-prob, and some 300 of its own; its picture stays in its table.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._groups: list[_Packed] = []

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> PromptGroup:
        """A group with its prompt, ready for the model; may be called in another thread."""
        packed = self._groups[index]
        (row,) = packed.table.slice(packed.place, packed.place + 1, columns=_PROMPT)
        prompt = self._policy.prepare(row["prompt"], [open_image(image) for image in row["images"]])
        return replace(packed.unpacked(), prompt=prompt)

    def bare(self, index: int) -> PromptGroup:
        """The same group without its prompt: lengths, rewards, log-probs."""
        return self._groups[index].unpacked()

    def lengths(self, index: int) -> list[int]:
        """Tokens of each completion, EOS included."""
        return list(self._groups[index].lengths)

    def trains(self, index: int) -> bool:
        """Whether its rewards differ: a group of equals has zero advantage everywhere."""
        return len(set(self._groups[index].rewards)) > 1

    def set_reference(self, index: int, logprobs: Iterable[float]) -> None:
        """Keep the frozen reference's log-probs of all a group's tokens beside it, completion after completion."""
        self._groups[index].reference = array("f", logprobs)

    def add_pairs(self, table: Table, config: TrainingConfig) -> range:
        """Each offline pair as a group of two, chosen first; SFT needs the chosen response alone.

        Returns:
            Indices of the new groups, in the table's order.
        """
        sides = ("chosen",) if config.objective == "sft" else ("chosen", "rejected")
        rewards = (config.reward_chosen, config.reward_rejected)[: len(sides)]
        begin = len(self)
        for place, row in enumerate(table.rows(columns=_PAIR)):
            completions = [self._policy.encode_completion(_text(row[side])) for side in sides]
            self._groups.append(_pack(row["sample_id"], "offline", completions, rewards, table, place))
        return range(begin, len(self))

    def add_rollouts(self, table: Table) -> range:
        """Online groups of G completions with verified rewards and the log-probs they were sampled with.

        Returns:
            Indices of the new groups, in the table's order.
        """
        begin = len(self)
        for place, row in enumerate(table.rows(columns=_ROLLOUT)):
            completions = row["completions"]
            _check_logprobs(row["sample_id"], completions)
            rewards = [float(completion["reward"]) for completion in completions]
            tokens = [completion["token_ids"] for completion in completions]
            group = _pack(row["sample_id"], "online", tokens, rewards, table, place)
            group.rollout = array("f", (value for completion in completions for value in completion["logprobs"]))
            group.temperature = float(row["temperature"])
            self._groups.append(group)
        return range(begin, len(self))


@dataclass(slots=True)
class _Packed:
    """A group in arrays. Log-probs were computed in float32, so that float32 loses nothing."""

    sample_id: str
    source: Literal["offline", "online"]
    table: Table
    place: int  # row in the table
    lengths: tuple[int, ...]
    tokens: array[int]
    rewards: tuple[float, ...]
    temperature: float = 1.0
    rollout: array[float] | None = None
    reference: array[float] | None = None

    def unpacked(self) -> PromptGroup:
        return PromptGroup(
            prompt=_EMPTY,
            completions=self._cut(self.tokens),
            sample_id=self.sample_id,
            source=self.source,
            rewards=list(self.rewards),
            rollout_logprobs=None if self.rollout is None else self._cut(self.rollout),
            reference_logprobs=None if self.reference is None else self._cut(self.reference),
            temperature=self.temperature,
        )

    def _cut(self, values: array[Any]) -> list[list[Any]]:
        rest = iter(values)
        return [[next(rest) for _ in range(length)] for length in self.lengths]


def _pack(
    sample_id: str,
    source: Literal["offline", "online"],
    completions: Sequence[Sequence[int]],
    rewards: Sequence[float],
    table: Table,
    place: int,
) -> _Packed:
    tokens = array("i", (token for completion in completions for token in completion))
    return _Packed(sample_id, source, table, place, tuple(map(len, completions)), tokens, tuple(rewards))


def _check_logprobs(sample_id: str, completions: Sequence[Row]) -> None:
    for number, completion in enumerate(completions):
        tokens, logprobs = len(completion["token_ids"]), len(completion["logprobs"])
        if not tokens or tokens != logprobs:
            raise DataError(
                f"completion {number} has {tokens} tokens and {logprobs} log-probs",
                where=f"rollouts, sample {sample_id}",
                expected="one log-prob a token, and at least one token",
                remedy="Run the rollouts stage again.",
            )


def _text(messages: list[dict[str, Any]]) -> str:
    return "".join(part["text"] or "" for message in messages for part in message["content"] if part["type"] == "text")
