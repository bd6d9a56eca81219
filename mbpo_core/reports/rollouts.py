"""What the policy tried on closed-ended questions, and how the verifiers judged it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mbpo_core.records import message_text
from mbpo_core.reports.gallery import Controls, Traits, controls, object_of
from mbpo_core.reports.pictures import Picture, decode, picture
from mbpo_core.reports.sources import Rounds, dealt, filled, parse_meta, percent, rounds_of, spread
from mbpo_core.stage import Reader


@dataclass(frozen=True)
class Attempt:
    """Completions of one group with the same text and verdict."""

    text: str
    verdict: str
    reason: str
    reward: float
    times: int


@dataclass(frozen=True)
class GroupCard:
    """One prompt with its completions."""

    sample_id: str
    round_index: int
    picture: Picture | None
    question: str
    answer: str
    kind: str
    object: str
    verifier: str
    zero_variance: bool
    attempts: list[Attempt]

    @property
    def traits(self) -> Traits:
        rewards = "all equal" if self.zero_variance else "unequal"
        words = {"round": str(self.round_index + 1), "kind": self.kind, "object": self.object, "rewards": rewards}
        times = sum(attempt.times for attempt in self.attempts)
        return Traits(words, {"reward": sum(one.times * one.reward for one in self.attempts) / max(times, 1)})


@dataclass(frozen=True)
class RoundLine:
    """One round in numbers."""

    round_index: int
    groups: int
    mixed: str
    reward: float
    entropy: float | None
    verdicts: dict[str, str]


@dataclass(frozen=True)
class Rollouts:
    """The section on rollouts."""

    rounds: list[RoundLine]
    cards: list[GroupCard]
    controls: Controls


def entropies(rounds: Rounds) -> list[float | None]:
    """Entropy of what was sampled in each round, nats per token; None where nothing was.

        H = -(1/N) sum_t log q(y_t)

    over all N sampled tokens of a round, the closing EOS included; q is the sampling distribution (temperature
    applied). Its expectation is the mean entropy of q at the sampled positions.
    """
    found = []
    for _, reader in rounds:
        several = [
            completion["logprobs"] for row in reader.rows(columns=["completions"]) for completion in row["completions"]
        ]
        tokens = [value for logprobs in several for value in logprobs]
        found.append(-sum(tokens) / len(tokens) if tokens else None)
    return found


def rollouts_section(inputs: Mapping[str, Reader], wanted: int) -> Rollouts | None:
    """The section, or None where nothing was sampled.

    Args:
        inputs: all readers; those of `rollouts` are used.
        wanted: groups shown, dealt over the rounds; among a round's groups those with unequal rewards come first,
            because only they teach anything.
    """
    readers = filled(rounds_of(inputs, "rollouts"))
    if not readers:
        return None
    lines: list[RoundLine] = []
    cards: list[GroupCard] = []
    for index, reader, share in dealt(readers, wanted):
        groups = list(reader.rows(columns=["zero_variance", "completions"]))
        lines.append(_round_line(index, groups, entropies([(index, reader)])[0]))
        cards += [_card(index, reader.slice(number, number + 1)[0]) for number in _shown(groups, share)]
    names = {"round": "round", "kind": "kind", "object": "object", "rewards": "rewards"}
    return Rollouts(lines, cards, controls(cards, names, {"reward": "mean reward"}))


def _shown(groups: list[dict[str, Any]], wanted: int) -> list[int]:
    mixed = [number for number, group in enumerate(groups) if not group["zero_variance"]]
    equal = [number for number, group in enumerate(groups) if group["zero_variance"]]
    few = min(len(equal), wanted // 4)  # some of the others too, or the page would flatter
    chosen = [mixed[i] for i in spread(len(mixed), wanted - few)] + [equal[i] for i in spread(len(equal), few)]
    return sorted(chosen)


def _round_line(index: int, groups: list[dict[str, Any]], entropy: float | None) -> RoundLine:
    completions = [completion for group in groups for completion in group["completions"]]
    verdicts = Counter(completion["verdict"] for completion in completions)
    mixed = sum(not group["zero_variance"] for group in groups)
    return RoundLine(
        round_index=index,
        groups=len(groups),
        mixed=percent(mixed, len(groups)),
        reward=sum(completion["reward"] for completion in completions) / max(len(completions), 1),
        entropy=entropy,
        verdicts={name: percent(verdicts[name], len(completions)) for name in ("correct", "wrong", "unparsed")},
    )


def _card(index: int, row: dict[str, Any]) -> GroupCard:
    question = message_text(row["prompt"])
    same: dict[tuple[str, str, str, float], int] = Counter(
        (item["text"], item["verdict"], item["reason"], item["reward"]) for item in row["completions"]
    )
    attempts = [Attempt(*key, times) for key, times in same.items()]
    return GroupCard(
        sample_id=row["sample_id"],
        round_index=index,
        picture=picture(decode(row["images"][0] if row["images"] else None), f"Image of the question: {question}"),
        question=question,
        answer=row["answer"],
        kind=row["question_kind"].replace("_", " "),
        object=object_of(parse_meta(row["meta"])),
        verifier=row["verifier"],
        zero_variance=row["zero_variance"],
        attempts=sorted(attempts, key=lambda attempt: (-attempt.reward, -attempt.times, attempt.text)),
    )
