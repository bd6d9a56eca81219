"""A tower with small numbers, for formulas worked out by hand."""

from __future__ import annotations

from mbpo_core.memory.architecture import Tower

LLAMA = Tower(layers=2, width=8, inner=16, heads=2, key_heads=1, head_width=4, kept=3, rms=True)
