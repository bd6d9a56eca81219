"""What a model folder contains, as one digest: weights, processor, chat template, tokenizer, config."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import ModelError
from mbpo_core.models.resolve import resolve_model
from mbpo_core.stage import BASE, PolicyRef

_NAMES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "processor_config.json",
        "preprocessor_config.json",
        "chat_template.jinja",
        "chat_template.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "model.safetensors.index.json",
    }
)


def policy_digest(folder: Path) -> str:
    """sha256 over the files that decide what a policy answers; no torch.

    Only the folder's top level counts, and only files that loading reads: optimizer state, logs and a
    README next to them do not change a policy.

    Args:
        folder: a model folder.

    Returns:
        64 hexadecimal digits over (name, sha256 of content) of each file, in name order.

    Raises:
        ModelError: if the folder holds none of these files.
    """
    files = sorted(p for p in folder.glob("*") if p.name in _NAMES or p.suffix == ".safetensors")
    if not files:
        raise ModelError("the folder holds no model files", where=str(folder), remedy="Check policy.model.")
    lines = []
    for path in files:
        stat = path.stat()
        lines.append(f"{path.name}\0{_file_sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def import_policy(config: PolicyConfig) -> PolicyRef:
    """Resolve, check and digest the configured model.

    Raises:
        ModelError: if the folder cannot serve as a policy.
    """
    folder = resolve_model(config)
    return PolicyRef(folder=str(folder), digest=policy_digest(folder), label=BASE)


@lru_cache(maxsize=1024)
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
