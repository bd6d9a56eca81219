"""A model as the numbers that memory depends on, read from its config.json; the model is built without storage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbpo_core.errors import ModelError
from mbpo_core.models.families import family_class

PARTS = ("vision", "projector", "language", "embedding", "head")
"""Parts that parameters are counted by: `freeze`'s, with the language model's embedding and head apart."""


@dataclass(frozen=True)
class Tower:
    """A stack of transformer layers.

    Attributes:
        layers: how many.
        width: of the hidden states.
        inner: width of the MLP that a token goes through (all its experts together).
        heads, key_heads, head_width: of attention.
        kept: tensors of the inner width that the MLP keeps for its backward pass where its weights do not learn: 3 of
            SwiGLU (gate, its activation, up), 2 of QuickGELU, 1 of others.
        rms: norms are RMSNorm as transformers writes it, in float32; else torch's LayerNorm.
        head_norms: queries and keys are normalised a head.
        fused: queries, keys and values come out of one projection.
    """

    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    head_width: int
    kept: int
    rms: bool
    head_norms: bool = False
    fused: bool = False


@dataclass(frozen=True)
class Architecture:
    """What memory depends on.

    Attributes:
        model_type: family.
        parameters: by part of PARTS; the head's are 0 where it is the embedding.
        adapted: parameters of adapters, a rank: inputs plus outputs of the language model's linear layers, no head.
        vocabulary: rows of the head.
        tied: the head is the embedding.
        language, vision: the towers.
        merge: patches that become one image position.
    """

    model_type: str
    parameters: Mapping[str, int]
    adapted: int
    vocabulary: int
    tied: bool
    language: Tower
    vision: Tower
    merge: float

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())

    @property
    def head(self) -> int:
        """Elements of the vocabulary projection."""
        return self.vocabulary * self.language.width

    @property
    def linear(self) -> int:
        """Parameters of the language model's layers, which every token goes through."""
        return self.parameters["language"]


def read_architecture(folder: Path) -> Architecture:
    """Count a model's parameters and read its shape; only config.json is needed, and nothing is allocated.

    Raises:
        ModelError: config.json is missing or not JSON, or the family is unknown.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.initialization import no_init_weights

    model_type = _model_type(folder)
    adapter = family_class(model_type, where=str(folder))
    family = adapter.__new__(adapter)  # without a processor, which naming parts does not ask for
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"), no_init_weights():
        model = AutoModelForImageTextToText.from_config(config)
    model.tie_weights()
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    parameters = Counter(dict.fromkeys(PARTS, 0))
    for name, parameter in model.named_parameters():
        part = "embedding" if parameter is embedding else "head" if parameter is head else family.part_of(name)
        parameters[part] += parameter.numel()
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m.weight is not head]
    own = [layer for name, layer in linear if family.part_of(f"{name}.weight") == "language"]
    names = [name for name, _ in model.named_parameters()]
    vision_names = [name for name in names if family.part_of(name) == "vision"]
    return Architecture(
        model_type=model_type,
        parameters=dict(parameters),
        adapted=sum(layer.in_features + layer.out_features for layer in own),
        vocabulary=len(head),
        tied=head is embedding,
        language=_language(config.get_text_config(), [name for name in names if name not in vision_names]),
        vision=_vision(config.vision_config, vision_names, model),
        merge=float(getattr(config.vision_config, "spatial_merge_size", 1)) ** 2,
    )


def _model_type(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"config.json of the model cannot be read: {error}",
            where=str(folder),
            expected="a folder with the config.json of a model; its weights are not needed",
            remedy="Check policy.model.",
        ) from error


def _language(config: Any, names: list[str]) -> Tower:
    heads = config.num_attention_heads
    experts = getattr(config, "num_experts_per_tok", None)
    return Tower(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        inner=experts * config.moe_intermediate_size if experts else config.intermediate_size,
        heads=heads,
        key_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        kept=3,
        rms=True,
        head_norms=any("q_norm" in name for name in names),
    )


def _vision(config: Any, names: list[str], model: Any) -> Tower:
    # Qwen2-VL calls the tower's width embed_dim, and its output hidden_size.
    width = getattr(config, "embed_dim", None) or config.hidden_size
    heads = getattr(config, "num_attention_heads", None) or config.num_heads
    inner = getattr(config, "intermediate_size", None) or int(width * config.mlp_ratio)
    layers = getattr(config, "num_hidden_layers", None) or config.depth
    gated = any("gate_proj" in name for name in names)
    activation = 2 if getattr(config, "hidden_act", "") == "quick_gelu" else 1
    norms = [type(module).__name__ for name, module in model.named_modules() if f"{name}.weight" in set(names)]
    return Tower(
        layers=layers,
        width=width,
        inner=inner,
        heads=heads,
        key_heads=heads,
        head_width=width // heads,
        kept=3 if gated else activation,
        rms=any("RMSNorm" in norm for norm in norms),
        fused=any("qkv" in name for name in names),
    )
