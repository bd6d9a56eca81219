"""Pairs and rollouts as groups: the one data type that training knows."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mbpo_core.config import TrainingConfig
from mbpo_core.errors import DataError
from mbpo_core.methods import ObjectiveEntry
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.objectives.passes import MASKED, SAMPLED, Pass, Side, View, by_view
from mbpo_core.records import message_text
from mbpo_core.stage import Row
from mbpo_core.training.looks import Look, black_out
from mbpo_core.training.rows import Table

Source = Literal["offline", "online"]

_PAIR = ("sample_id", "chosen", "rejected")
_ROLLOUT = ("sample_id", "temperature", "completions")
_COLUMNS: dict[View, str] = {
    "clean": "images",
    "rejected": "rejected_images",
    "blind": "images",
    "masked": "images",
}
"""Where a view finds its pictures."""

_EMPTY = Prompt(token_ids=[])


class GroupSet:
    """A round's groups. Completions are tokens from the start; a prompt is read and rendered when a group is looked at.

    Lengths and rewards of all groups are needed at once to normalise a step globally; pictures are not. So a group
    keeps 4 bytes a token, as many for each log-prob, and some 300 of its own; its picture stays in its table.

    Args:
        policy: renders and tokenises.
        config: what the loss looks at.
        seed: the run's; patches of the masked view derive from it.
    """

    def __init__(self, policy: Policy, config: TrainingConfig, seed: int = 0) -> None:
        self._policy, self._config, self._seed = policy, config, seed
        self._groups: list[_Packed] = []

    def __len__(self) -> int:
        return len(self._groups)

    def bare(self, index: int) -> PromptGroup:
        """A group without its prompt: completions, rewards, log-probs when sampled."""
        return self._groups[index].unpacked()

    def kind(self, index: int) -> tuple[float, Source]:
        """Temperature and source of a group; groups of one kind may go through the model together."""
        packed = self._groups[index]
        return packed.temperature, packed.source

    def lengths(self, index: int) -> list[int]:
        """Tokens of each completion, EOS included."""
        return list(self._groups[index].lengths)

    def trains(self, index: int) -> bool:
        """Whether its rewards differ: a group of equals has zero advantage everywhere."""
        return len(set(self._groups[index].rewards)) > 1

    def entry(self, source: Source) -> ObjectiveEntry:
        """What the loss looks at in groups of a source."""
        if source == "online":
            seen = (SAMPLED, MASKED) if self._config.perception_weight > 0 else (SAMPLED,)
            return ObjectiveEntry("", "", seen, reference=(SAMPLED,))
        entry = self._config.pair_passes
        assert entry is not None  # without an objective on pairs there are none
        return entry

    def looks(self, indices: Sequence[int], passes: Sequence[Pass], *, grad: bool = False) -> list[Look]:
        """Groups of one source, once under each view that the passes have; may be called in another thread."""
        views = by_view(passes)
        if not views:
            return []
        rows = [self._row(index, [_COLUMNS[view] for view in views]) for index in indices]
        return [
            Look(
                several,
                [self._shown(index, row, view, several) for index, row in zip(indices, rows, strict=True)],
                self._config.blind if view == "blind" else None,
                grad,
            )
            for view, several in views.items()
        ]

    def positions(self, index: int) -> int:
        """Token positions that training on a group once runs forward and backward; reads its pictures, once."""
        packed = self._groups[index]
        if packed.positions is None:
            looks = self.looks([index], self.entry(packed.source).passes)
            packed.positions = sum(sum(look.positions()) for look in looks)
        return packed.positions

    def fingerprint(self, index: int) -> str:
        """Digest of all that a reference sees of a group: its prompt, pictures and completions, and under which views.

        How prompts are rendered and pictures processed is the model folder's affair, whose digest is another one.
        """
        packed = self._groups[index]
        passes = self.entry(packed.source).scored
        columns = sorted({_COLUMNS[one.view] for one in passes})
        row = self._row(index, columns)
        pictures = [[hashlib.sha256(image["bytes"] or b"").hexdigest() for image in row[name]] for name in columns]
        slip = [] if packed.slip is None else packed.slip.tolist()
        completions = [packed.tokens.tolist(), slip, packed.lengths, packed.temperature]
        blind = self._config.blind if any(one.view == "blind" for one in passes) else None
        seen = [passes, blind, columns, pictures, row["prompt"], completions]
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()

    def set_slips(self, index: int, tokens: Sequence[int]) -> None:
        """Keep what the reference would have said at each token of chosen; as many tokens."""
        self._groups[index].slip = array("i", tokens)

    def set_reference(self, index: int, logprobs: Iterable[float], *, second: bool = False) -> None:
        """Keep a frozen reference's log-probs of all tokens of all passes it scored beside a group, in their order."""
        self._groups[index].references[second] = array("f", logprobs)

    def reference(self, index: int, *, second: bool = False) -> dict[Pass, list[list[float]]] | None:
        """What `set_reference` kept, by pass, a list for each completion; None where nothing was scored."""
        packed = self._groups[index]
        if second not in packed.references:
            return None
        rest = iter(packed.references[second])
        return {
            one: [[next(rest) for _ in range(length)] for length in packed.lengths_of(one.side)]
            for several in by_view(self.entry(packed.source).scored).values()
            for one in several
        }

    def set_start(self, index: int, logprobs: Iterable[float]) -> None:
        """Keep the log-probs of a rollout group's tokens under the policy as the round began."""
        self._groups[index].start = array("f", logprobs)

    def start(self, index: int) -> list[list[float]]:
        """What `set_start` kept, a list for each completion; empty where nothing was scored."""
        return self._groups[index].start_rows()

    def add_pairs(self, table: Table) -> range:
        """Each offline pair as a group of the sides that the loss looks at, chosen first.

        Returns:
            Indices of the new groups, in the table's order.
        """
        entry, begin = self.entry("offline"), len(self)
        sides = [side for side in ("chosen", "rejected") if any(p.side == side for p in (*entry.passes, *entry.scored))]
        rewards = (self._config.reward_chosen, self._config.reward_rejected)[: len(sides)]
        for place, row in enumerate(table.rows(columns=_PAIR)):
            completions = [self._policy.encode_completion(message_text(row[side])) for side in sides]
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

    def _row(self, index: int, images: Sequence[str]) -> Row:
        """A group's prompt and pictures, read in one go."""
        packed = self._groups[index]
        columns = ("prompt", *dict.fromkeys(images))
        (row,) = packed.table.slice(packed.place, packed.place + 1, columns=columns)
        return row

    def _shown(self, index: int, row: Row, view: View, passes: Sequence[Pass]) -> PromptGroup:
        """A group as a view shows it, with the completions of the passes."""
        packed = self._groups[index]
        pictures = [open_image(image) for image in row[_COLUMNS[view]]]
        if view == "masked":
            pictures = [black_out(picture, self._config, self._seed, packed.sample_id) for picture in pictures]
        prompt = self._policy.prepare(row["prompt"], pictures)
        if packed.source == "online":
            return replace(packed.unpacked(), prompt=prompt)
        # A slip is read as chosen and scored as itself.
        read = [packed.side("chosen" if one.side == "slip" else one.side) for one in passes]
        return PromptGroup(prompt, read, packed.sample_id, targets=[packed.side(one.side) for one in passes])


@dataclass(slots=True)
class _Packed:
    """A group in arrays. Log-probs were computed in float32, so that float32 loses nothing."""

    sample_id: str
    source: Source
    table: Table
    place: int  # row in the table
    lengths: tuple[int, ...]
    tokens: array[int]
    rewards: tuple[float, ...]
    references: dict[bool, array[float]]  # by whether it is the second
    temperature: float = 1.0
    rollout: array[float] | None = None
    start: array[float] | None = None
    slip: array[int] | None = None
    positions: int | None = None

    def side(self, side: Side) -> list[int]:
        """Token ids of one side of a pair."""
        if side == "slip":
            assert self.slip is not None  # read before anything is scored
            return self.slip.tolist()
        whole: list[list[int]] = self._cut(self.tokens)
        return whole[0 if side == "chosen" else 1]

    def start_rows(self) -> list[list[float]]:
        return [] if self.start is None else self._cut(self.start)

    def lengths_of(self, side: Side) -> tuple[int, ...]:
        if side == "sampled":
            return self.lengths
        return (self.lengths[1 if side == "rejected" else 0],)

    def unpacked(self) -> PromptGroup:
        return PromptGroup(
            prompt=_EMPTY,
            completions=self._cut(self.tokens),
            sample_id=self.sample_id,
            source=self.source,
            rewards=list(self.rewards),
            rollout_logprobs=None if self.rollout is None else self._cut(self.rollout),
            temperature=self.temperature,
        )

    def _cut(self, values: array[Any]) -> list[list[Any]]:
        rest = iter(values)
        return [[next(rest) for _ in range(length)] for length in self.lengths]


def _pack(
    sample_id: str,
    source: Source,
    completions: Sequence[Sequence[int]],
    rewards: Sequence[float],
    table: Table,
    place: int,
) -> _Packed:
    tokens = array("i", (token for completion in completions for token in completion))
    return _Packed(sample_id, source, table, place, tuple(map(len, completions)), tokens, tuple(rewards), {})


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
