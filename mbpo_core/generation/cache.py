"""Keys and values of past tokens, in buffers that grow in place."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from mbpo_core.models.packing import obstacle_to_packing
from mbpo_core.models.policy import Policy

_ROOM = 1.5


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A dynamic layer that writes new tokens behind the old ones instead of copying everything a token.

    The buffers are (B, heads, capacity, head width); `keys` and `values` are views of their filled part.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, heads, new, head width) and return all that is there."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self._buffers = [key_states[:, :, :0], value_states[:, :, :0]]
        filled, added = self.keys.shape[-2], key_states.shape[-2]
        if filled + added > self._buffers[0].shape[-2]:
            self._grow(int((filled + added) * (_ROOM if filled else 1)))
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, filled : filled + added] = states
        self._show(filled + added)
        return self.keys, self.values

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last -tokens_to_remove tokens."""
        self._show(self.keys.shape[-2] + tokens_to_remove)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Give every row `repeats` copies, side by side."""
        self._hold(self.keys.repeat_interleave(repeats, dim=0), self.values.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the named rows."""
        self._hold(self.keys[indices], self.values[indices])

    def _grow(self, capacity: int) -> None:
        filled = self.keys.shape[-2]
        for index, old in enumerate(self._buffers):
            self._buffers[index] = old.new_empty((*old.shape[:2], capacity, old.shape[3]))
            self._buffers[index][:, :, :filled] = old[:, :, :filled]

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        self._buffers = [keys, values]
        self._show(keys.shape[-2])

    def _show(self, filled: int) -> None:
        self.keys, self.values = (buffer[:, :, :filled] for buffer in self._buffers)


def new_cache(policy: Policy) -> Any:
    """An empty cache for a policy; models with windows or state of their own get what transformers makes for them."""
    config = policy.family.language_model(policy.model).config
    if obstacle_to_packing(config) and not policy.family.own_masks:
        return DynamicCache(config=config)
    return Cache(layer_class_to_replicate=GrowingLayer)
