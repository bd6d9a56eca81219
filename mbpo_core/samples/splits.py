"""Which split a row belongs to."""

from __future__ import annotations

import hashlib
from typing import Any, get_args

from mbpo_core.config import SamplesConfig
from mbpo_core.records import Split
from mbpo_core.samples.problems import Unusable

_NAMES: dict[str, Split] = {name: name for name in get_args(Split)} | {
    "validation": "dev", "valid": "dev", "val": "dev", "test": "eval",
}  # fmt: skip


def deal(image_digest: str, config: SamplesConfig, *, training_only: bool = False) -> Split:
    """Deal an image to a split by its content.

    A uniform number u in [0, 1) is read off sha256(image bytes); u < offline_share is offline, and
    so on. All questions about one image therefore share a split, and the same image lands in the
    same split in every run and with every seed, so that no run is measured on what another learned from.

    Args:
        image_digest: sha256 of the row's first image as it came, hex.
        config: the shares.
        training_only: deal between offline and online only, in the proportion of their shares.
    """
    digest = hashlib.sha256(f"split\x1f{image_digest}".encode()).digest()
    u = int.from_bytes(digest[:8], "big") / 2**64
    if training_only:
        u *= config.offline_share + config.online_share
        return "offline" if u < config.offline_share or config.online_share == 0 else "online"
    if u < config.offline_share:
        return "offline"
    if u < config.offline_share + config.online_share:
        return "online"
    return "dev" if u < config.offline_share + config.online_share + config.dev_share else "eval"


def declared(value: Any, image_digest: str, config: SamplesConfig) -> Split:
    """The split a column names: ours, or validation/val (dev), test (eval), train (dealt to offline and online).

    Raises:
        Unusable: missing_value where it is none of these.
    """
    name = str(value).strip().lower()
    if name == "train":
        return deal(image_digest, config, training_only=True)
    if name not in _NAMES:
        raise Unusable("missing_value", f"split {value!r} is none of {', '.join([*_NAMES, 'train'])}")
    return _NAMES[name]
