"""From a model name to a local folder that can serve as a policy; imports no torch."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import ModelError
from mbpo_core.models.families import check_family

DEMO_MODELS = ("absolute", "soft")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


def resolve_model(config: PolicyConfig) -> Path:
    """The local folder of the configured model, checked without loading it.

    Args:
        config: names a folder, `demo:absolute`, `demo:soft`, or a hub name (from the local cache, or
            downloaded if `allow_download`).

    Returns:
        A folder with config.json, a known model_type, a chat template and safetensors weights.

    Raises:
        ModelError: if any of these is missing, with the remedy.
    """
    folder = locate_model(config)
    check_folder(folder)
    return folder


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot serve as a policy; reads small files only."""
    where = str(folder)
    if not folder.is_dir():
        raise ModelError(
            "the model folder does not exist",
            where=where,
            expected="a local folder, demo:absolute, demo:soft, or a hub name",
            remedy="Check policy.model.",
        )
    model_config = _read_json(folder / "config.json")
    if model_config is None:
        raise ModelError(
            "config.json is missing",
            where=where,
            expected="a folder that save_pretrained wrote",
            remedy="Point policy.model at a saved model folder.",
        )
    check_family(str(model_config.get("model_type", "")), where=where)
    _check_weights(folder)
    for names, what in ((_PROCESSORS, "image processor"), (_TOKENIZERS, "tokenizer")):
        if not any((folder / name).is_file() for name in names):
            raise ModelError(
                f"the folder has no {what}",
                where=where,
                expected=" or ".join(names),
                remedy="Save the processor beside the model: processor.save_pretrained(folder).",
            )
    if not _has_chat_template(folder):
        raise ModelError(
            "the folder has no chat template",
            where=where,
            expected="chat_template.jinja, or chat_template in the processor or tokenizer config",
            remedy="Set processor.chat_template and save the processor again.",
        )


def _check_weights(folder: Path) -> None:
    """Safetensors, and all the files that an index names."""
    index = _read_json(folder / "model.safetensors.index.json")
    if index is None and not (folder / "model.safetensors").is_file():
        raise ModelError(
            "the folder has no safetensors weights",
            where=str(folder),
            expected="model.safetensors or model.safetensors.index.json",
            remedy="Save the model again with save_pretrained; pickled weights are not loaded.",
        )
    named = sorted(set((index or {}).get("weight_map", {}).values()))
    if missing := [name for name in named if not (folder / Path(name).name).is_file()]:
        raise ModelError(
            f"{len(missing)} of {len(named)} files of weights are missing, first {missing[0]}",
            where=str(folder),
            expected="every file that model.safetensors.index.json names",
            remedy="Download or copy the model again.",
        )


def locate_model(config: PolicyConfig) -> Path:
    """The folder that a config names, unchecked; see `resolve_model`."""
    name = config.model
    if name.startswith("demo:"):
        return _demo_folder(name.removeprefix("demo:"))
    folder = Path(name).expanduser()
    looks_like_hub = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if folder.is_dir() or not looks_like_hub:
        return folder
    return _hub_snapshot(name, allow_download=config.allow_download)


def _demo_folder(name: str) -> Path:
    if name not in DEMO_MODELS:
        raise ModelError(f"unknown demo model demo:{name}", expected=" or ".join(f"demo:{n}" for n in DEMO_MODELS))
    return Path(str(resources.files("mbpo_core.demo"))) / "assets" / name


def _hub_snapshot(name: str, *, allow_download: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=not allow_download))
    except Exception as error:  # the client raises many unrelated classes; all mean the same here
        remedy = (
            "Check the name and the network."
            if allow_download
            else "Download it first, or set policy.allow_download: true."
        )
        raise ModelError(f"model {name!r} is neither a folder nor in the local hub cache", remedy=remedy) from error


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        if (_read_json(folder / name) or {}).get("chat_template"):
            return True
    return False


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(
            f"{path.name} is not JSON: {error}",
            where=str(path.parent),
            expected="a JSON object",
            remedy="Copy or download the file again.",
        ) from error
    return value if isinstance(value, dict) else None
