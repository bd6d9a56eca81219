"""How well a text fits pictures by a CLIP model from a local folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from mbpo_core.errors import ConfigError, ModelError

_WHERE = "negatives.clip_model"


class ClipScorer:
    """CLIP in float32; see `open_clip`.

    Attributes:
        longest: tokens that it reads of a text; the rest is left out, as CLIP's own processor does.
    """

    def __init__(self, model: Any, tokenizer: Any, images: Any) -> None:
        self._model, self._tokenizer, self._images = model, tokenizer, images
        self.longest = int(model.config.text_config.max_position_embeddings)

    def similarities(self, pictures: Sequence[Image], texts: Sequence[str]) -> list[float]:
        """Cosine of each text to the pictures, in [-1, 1].

            s(y) = mean_i  e(y) . e(x_i) / (|e(y)| |e(x_i)|)

        Args:
            pictures: n >= 1, of one sample.
            texts: K of them.
        """
        device = self._model.device
        read = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(device)
        pixels = self._images(list(pictures), return_tensors="pt")["pixel_values"].to(device)
        with torch.no_grad():
            shown = self._model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
            said = self._model.get_text_features(
                input_ids=read["input_ids"], attention_mask=read["attention_mask"], return_dict=True
            ).pooler_output
            cosines = torch.nn.functional.cosine_similarity(said[:, None], shown[None], dim=-1).mean(1)
        return [float(cosine) for cosine in cosines.cpu()]


@lru_cache(maxsize=1)
def open_clip(folder: str, device: torch.device) -> ClipScorer:
    """Load a CLIP model; nothing is downloaded. The one loaded last is kept.

    Raises:
        ConfigError: there is no such folder.
        ModelError: it holds no CLIP model, or its weights do not fit its config.json.
    """
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip import CLIPImageProcessorPil

    _check_folder(Path(folder))
    local: dict[str, Any] = {"local_files_only": True}
    model, info = CLIPModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **local)
    if wrong := sorted(info["missing_keys"]) + sorted(map(str, info["mismatched_keys"])):
        raise ModelError(
            f"{len(wrong)} weights are missing or have another shape, first {wrong[0]}",
            where=f"{_WHERE}: {folder}",
            remedy="The weights do not belong to this config.json; save the model again.",
        )
    # Pillow in every environment, as for the policy's pictures.
    images = CLIPImageProcessorPil.from_pretrained(folder, **local)
    # Positions count from the first place of a row, padding or not.
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right", **local)
    return ClipScorer(model.to(device).eval(), tokenizer, images)


def _check_folder(folder: Path) -> None:
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"{str(folder)!r} is no model folder",
            where=_WHERE,
            expected="a local folder with config.json, weights, tokenizer and image processor of a CLIP model",
            remedy="Save the model with save_pretrained, or set negatives.scorer to claims or gain.",
        )
    found = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    if found != "clip":
        raise ModelError(
            f"model_type is {found!r}",
            where=f"{_WHERE}: {folder}",
            expected="clip",
            remedy="Other image-text models are not supported.",
        )
