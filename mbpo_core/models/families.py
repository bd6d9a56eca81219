"""Which class knows a model family, keyed on `config.model_type`.

Importing this module needs no torch, so that a folder can be refused before anything heavy is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Literal, cast

from mbpo_core.errors import ModelError

if TYPE_CHECKING:
    from mbpo_core.models.family import Family

Part = Literal["vision", "projector", "language"]

FAMILIES: dict[str, str] = {
    "gemma3": "mbpo_core.models.gemma3:Gemma3Family",
    "idefics3": "mbpo_core.models.idefics3:Idefics3Family",
    "internvl": "mbpo_core.models.internvl:InternVLFamily",
    "llava": "mbpo_core.models.llava:LlavaFamily",
    "llava_next": "mbpo_core.models.llava_next:LlavaNextFamily",
    "llava_onevision": "mbpo_core.models.llava_onevision:LlavaOnevisionFamily",
    "qwen2_5_vl": "mbpo_core.models.qwen2_5_vl:Qwen2_5_VLFamily",
    "qwen2_vl": "mbpo_core.models.qwen2_vl:Qwen2VLFamily",
    "qwen3_vl": "mbpo_core.models.qwen3_vl:Qwen3VLFamily",
    "qwen3_vl_moe": "mbpo_core.models.qwen3_vl:Qwen3VLFamily",
    "smolvlm": "mbpo_core.models.smolvlm:SmolVLMFamily",
}
"""model_type -> "module:class" of its adapter."""

FROZEN_PARTS: dict[str, frozenset[Part]] = {
    "none": frozenset(),
    "vision": frozenset({"vision"}),
    "vision_and_projector": frozenset({"vision", "projector"}),
    "language": frozenset({"language"}),
}
"""Values of `training.freeze` -> the parts whose weights stay bit-equal."""


def family_class(model_type: str, *, where: str) -> type[Family]:
    """The adapter class of a family.

    Raises:
        ModelError: if no adapter is registered for this model_type.
    """
    check_family(model_type, where=where)
    module, _, name = FAMILIES[model_type].partition(":")
    return cast("type[Family]", getattr(importlib.import_module(module), name))


def check_family(model_type: str, *, where: str) -> None:
    """Refuse a model_type without adapter; imports nothing."""
    if model_type not in FAMILIES:
        raise ModelError(
            f"model_type {model_type!r} has no adapter",
            where=where,
            expected=f"one of {', '.join(sorted(FAMILIES))}",
            remedy="Choose a model of a supported family, in transformers' own format (hub names that end in -hf), or "
            "add an adapter to mbpo_core/models/families.py; docs/models.md says what each does.",
        )
