"""Bytes of tensors that are alive, as a program makes and drops them: on a CPU what an accelerator's allocator counts.

Scratch that a kernel takes and gives back inside one operation is not seen, and neither is memory that is not a
tensor's. PyTorch's `torch.distributed._tools.mem_tracker` counts in the same way and wants to know the module and the
optimizer, which DeepSpeed replaces.
"""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class Meter(TorchDispatchMode):
    """Counts every tensor that an operation reads or makes while the mode is on, until it is gone; views count once.

    Attributes:
        now, peak: bytes alive, and the most at any time since `mark`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def mark(self) -> None:
        """Let the peak begin again at what is alive."""
        self.peak = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter((args, kwargs, result)):
            if isinstance(value, Tensor):
                self._take(value)
        return result

    def _take(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or tensor.device.type == "meta":
            return
        self._known[key] = size
        weakref.finalize(storage, self._drop, key).atexit = False
        self.now += size
        self.peak = max(self.peak, self.now)

    def _drop(self, key: int) -> None:
        self.now -= self._known.pop(key)
