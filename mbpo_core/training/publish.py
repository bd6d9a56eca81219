"""The trained policy as a folder that plain `from_pretrained` loads."""

from __future__ import annotations

import shutil
from pathlib import Path

from mbpo_core.models.policy import Policy

_WRITTEN_BY_MODEL = ("config.json", "generation_config.json")
_COPIED = (".json", ".jinja", ".model", ".txt")  # processor, tokenizer, chat template


def publish_policy(policy: Policy, source: Path, target: Path) -> None:
    """Write weights and config anew and copy processor, tokenizer and chat template byte for byte.

    Args:
        policy: the trained model.
        source: the model folder that training started from.
        target: folder to write; replaced if it exists.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    policy.model.save_pretrained(target)
    for path in sorted(source.iterdir()):
        copied = path.suffix in _COPIED and not path.name.endswith(".index.json")
        if copied and path.is_file() and path.name not in _WRITTEN_BY_MODEL:
            shutil.copyfile(path, target / path.name)
