"""Seeds that belong to a row, so that no result depends on batches, parts or order."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for one purpose, e.g. `derive_seed(run_seed, "negatives", sample_id)`.

    Args:
        seed: the run's seed.
        names: what the seed is for; different names give independent streams.

    Returns:
        An integer in [0, 2**63), the same on every machine and Python version.
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
