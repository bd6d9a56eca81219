"""The trainer once more, slowly: one plain float64 forward pass of the model itself for every picture and completion.

Nothing here packs, pads or shares rows. `formulas` says what each objective makes of the log-probs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from PIL.Image import Image
from torch import Tensor

from mbpo_core.models.groups import Prompt
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.records import Blind
from mbpo_core.stage import Row

View = Literal["clean", "wrong"]


class SlowModel:
    """A float64 copy of a demo policy, asked about one row at a time."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.model: Any = copy.deepcopy(policy.model).double()
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def prompt(self, question: str, picture: Image) -> Prompt:
        return self._policy.prepare(question, [picture])

    def vocabulary(
        self, prompt: Prompt, read: Sequence[int], blind: Blind | None = None, temperature: float = 1.0
    ) -> Tensor:
        """(T, V) log-probs at the place of every token read; image ids take part in no softmax."""
        banned = torch.tensor(self._policy.banned_token_ids)
        ids = torch.tensor([[*prompt.token_ids, *read]])
        length = ids.shape[1]
        is_image = torch.isin(ids[0], banned)
        seen = torch.ones(length, length, dtype=torch.bool).tril()
        if blind == "mask":
            seen &= is_image[:, None] | ~is_image[None, :]
        pixels = torch.stack([image.pixel_values for image in prompt.images]).double()
        logits = self.model(
            input_ids=ids,
            pixel_values=torch.zeros_like(pixels) if blind == "mean" else pixels,
            attention_mask=torch.zeros(1, 1, length, length, dtype=torch.float64).masked_fill(~seen, -1e300),
            position_ids=torch.arange(length)[None],
        ).logits[0]
        logits = logits.index_fill(-1, banned, -torch.inf) / temperature
        found: Tensor = logits.log_softmax(-1)[len(prompt.token_ids) - 1 : -1]
        return found


def picked(vocabulary: Tensor, tokens: Sequence[int]) -> Tensor:
    """(T,) the log-probs of tokens."""
    return vocabulary.gather(-1, torch.tensor(tokens)[:, None])[:, 0]


@dataclass
class SlowPair:
    """A pair as three models see it; (T,) nats, the policy's with gradient. Each row is read when it is asked for.

    Attributes:
        row: as training reads it.
        policy, reference, second: who scores.
    """

    row: Row
    policy: SlowModel
    reference: SlowModel
    second: SlowModel
    tokens: Mapping[str, list[int]]
    _read: dict[Any, Tensor] = field(default_factory=dict)

    def whole(self, who: str, view: View, side: str, blind: Blind | None = None) -> Tensor:
        """(T, V) of one side read under one picture."""
        key = (who, view, side, blind)
        if key not in self._read:
            column = {"clean": "images", "wrong": "rejected_images"}[view]
            model: SlowModel = getattr(self, who)
            (picture,) = (open_image(image) for image in self.row[column])
            question = self.row["prompt"][0]["content"][1]["text"]
            with torch.set_grad_enabled(who == "policy"):
                self._read[key] = model.vocabulary(model.prompt(question, picture), self.tokens[side], blind)
        return self._read[key]

    def logprobs(self, who: str, view: View = "clean", side: str = "chosen", blind: Blind | None = None) -> Tensor:
        """(T,) of one side; a slip is read as chosen and scored as itself."""
        if side == "slip":
            return picked(self.whole(who, view, "chosen", blind), self.slip)
        return picked(self.whole(who, view, side, blind), self.tokens[side])

    def delta(self, side: str, view: View = "clean") -> Tensor:
        """log pi - log pi_ref, summed over tokens: Delta of recipe 3."""
        return (self.logprobs("policy", view, side) - self.logprobs("reference", view, side)).sum()

    def divergence(self, side: str) -> Tensor:
        """KL(pi_ref || pi) over the vocabulary, summed over the positions of a side."""
        reference, policy = (self.whole(who, "clean", side) for who in ("reference", "policy"))
        allowed = reference.isfinite()[0]
        return (reference.exp() * (reference - policy))[:, allowed].sum()

    def gain(self, who: str, blind: Blind) -> Tensor:
        """Image Information Gain of chosen, nats per token."""
        return (self.logprobs(who) - self.logprobs(who, blind=blind)).mean()

    @cached_property
    def slip(self) -> list[int]:
        """What the reference would say at each token of chosen, shown the rejected picture."""
        said: list[int] = self.whole("reference", "wrong", "chosen").argmax(-1).tolist()
        return said


@dataclass
class SlowGroup:
    """An online group, likewise: every completion is read, also where several are alike.

    Attributes:
        row: as training reads it.
        policy, reference: who scores.
        masked: the picture with patches blacked out.
    """

    row: Row
    policy: SlowModel
    reference: SlowModel
    masked: Image
    _read: dict[Any, list[Tensor]] = field(default_factory=dict)

    @property
    def rewards(self) -> list[float]:
        return [completion["reward"] for completion in self.row["completions"]]

    @property
    def rollout(self) -> list[Tensor]:
        return [torch.tensor(c["logprobs"], dtype=torch.float64) for c in self.row["completions"]]

    def logprobs(self, who: str, *, masked: bool = False) -> list[Tensor]:
        """G of (T,), nats, at the temperature of the rollout."""
        if (who, masked) not in self._read:
            model: SlowModel = getattr(self, who)
            question = self.row["prompt"][0]["content"][1]["text"]
            prompt = model.prompt(question, self.masked if masked else open_image(self.row["images"][0]))
            answers = [completion["token_ids"] for completion in self.row["completions"]]
            with torch.set_grad_enabled(who == "policy"):
                self._read[who, masked] = [
                    picked(model.vocabulary(prompt, tokens, temperature=self.row["temperature"]), tokens)
                    for tokens in answers
                ]
        return self._read[who, masked]
