"""Which completions of a group share a row, chosen by counted cost; and whether the model may be packed at all."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mbpo_core.errors import ConfigError
from mbpo_core.models.attention import install, pairs

GroupPacking = Literal["auto", "packed", "plain"]


class PackingWarning(UserWarning):
    """Packed rows are not used, and why."""


@dataclass
class Packing:
    """How groups of one policy become rows.

    Attributes:
        mode: auto chooses by cost, packed puts a whole group in one row, plain puts one completion in a row.
        token_cost: operations a token of a row, in the linear layers of the language model.
        pair_cost: operations a (query, key) pair of a row.
        segmented: the model can attend segment by segment (`attention.attend`); else packed rows pay for all pairs,
            seen or not.
        checked: packed rows were compared with plain ones on this model (`scoring.check_packing`).
    """

    mode: GroupPacking
    token_cost: float = 1.0
    pair_cost: float = 0.0
    segmented: bool = False
    checked: bool = False

    def split(self, prompt: int, lengths: Sequence[int]) -> list[list[int]]:
        """Completions of one group by row.

        Args:
            prompt: P, tokens of the prompt.
            lengths: K lengths of its completions, tokens.

        Returns:
            Positions in `lengths`, in order; under auto the rows of consecutive completions that cost least together.
        """
        everything = list(range(len(lengths)))
        if self.mode == "plain" or len(lengths) < 2:
            return [[index] for index in everything]
        if self.mode == "packed":
            return [everything]
        # best[stop]: least cost of the first `stop` completions, and where their last row begins.
        best = [(0.0, 0)]
        for stop in range(1, len(lengths) + 1):
            best.append(
                min((best[start][0] + self.cost((prompt, *lengths[start:stop])), start) for start in range(stop))
            )
        rows, stop = [], len(lengths)
        while stop:
            start = best[stop][1]
            rows.append(everything[start:stop])
            stop = start
        return rows[::-1]

    def cost(self, segments: tuple[int, ...]) -> float:
        """Operations of one row, forward; segments are the tokens of its prompt and of each completion."""
        length = sum(segments)
        dense = length**2 if len(segments) > 2 else length**2 / 2  # a plain row is causal
        return self.token_cost * length + self.pair_cost * (min(dense, pairs(segments)) if self.segmented else dense)

    def by_segment(self, rows: Sequence[tuple[int, ...]]) -> bool:
        """Whether a batch of rows attends segment by segment for less than under a dense mask."""
        longest = max(map(sum, rows))
        return self.segmented and sum(map(pairs, rows)) < len(rows) * longest**2

    def give_up(self, why: str) -> None:
        """Go on with plain rows, loudly."""
        warnings.warn(f"group_packing: rows are not packed, because {why}", PackingWarning, stacklevel=3)
        self.mode, self.checked = "plain", True


def choose_packing(mode: GroupPacking, language: Any, *, where: str, own_masks: bool = False) -> Packing:
    """The packing of a loaded language model, which learns to attend segment by segment if it uses torch's attention.

    Args:
        own_masks: the family makes the masks of windows by itself (`Family.own_masks`), so that they are no obstacle.

    Raises:
        ConfigError: `packed` is asked for and the model's layers cannot do it.
    """
    config = language.config
    if mode != "plain" and not own_masks and (obstacle := obstacle_to_packing(config)):
        if mode == "packed":
            raise ConfigError(
                f"policy.group_packing is packed, but {obstacle}",
                where=where,
                expected="layers with full attention only",
                remedy="Use auto or plain.",
            )
        packing = Packing("plain")
        packing.give_up(obstacle)
        return packing
    linear = sum(p.numel() for name, p in language.named_parameters() if p.ndim == 2 and "embed" not in name)
    if experts := sum(p.numel() for p in language.parameters() if p.ndim == 3):  # a token goes through a few of them
        linear += experts * config.num_experts_per_tok // config.num_experts
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    pair = 4.0 * config.num_hidden_layers * config.num_attention_heads * head
    segmented = mode != "plain" and not own_masks and getattr(config, "_attn_implementation", "") == "sdpa"
    if segmented:
        install(language)
    return Packing(mode, token_cost=2.0 * linear, pair_cost=pair, segmented=segmented)


def obstacle_to_packing(config: Any) -> str:
    """Why a block mask would not mean the same to this model; "" if it would."""
    odd = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
    if odd:
        return f"{config.model_type} has layers of the type {', '.join(odd)}"
    # Models that name no layer types: a window that is set is used, unless a switch says otherwise.
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and not getattr(config, "layer_types", None):
        return f"{config.model_type} attends within a sliding window of {window}"
    recurrent = [name for name in ("ssm_state_size", "mamba_d_state", "linear_num_key_heads") if hasattr(config, name)]
    return f"{config.model_type} has recurrent layers" if recurrent else ""
