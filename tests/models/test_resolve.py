"""A folder is refused before anything is loaded, and its digest is of what a policy answers from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.paths import config_file
from flows.pipeline import follow_method
from mbpo_core.config import PolicyConfig, load_config
from mbpo_core.errors import ModelError
from mbpo_core.models.digest import import_policy, policy_digest
from mbpo_core.models.resolve import resolve_model
from mbpo_core.store import Store
from tasks.run import Run


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "model")


def _config(folder: Path) -> PolicyConfig:
    return PolicyConfig(model=str(folder))


def test_demo_model_ships_with_the_package() -> None:
    ref = import_policy(PolicyConfig(model="demo:absolute"))
    assert Path(ref.folder).is_dir()
    assert len(ref.digest) == 64
    assert ref.label == "base"


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _other_family(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "blip"}))


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _no_processor(folder: Path) -> None:
    (folder / "processor_config.json").unlink()


def _half_downloaded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_config, "config.json is missing"),
        (_no_template, "no chat template"),
        (_no_weights, "no safetensors weights"),
        (_other_family, "model_type 'blip' has no adapter.*llava"),
        (_broken_config, "config.json is not JSON"),
        (_no_tokenizer, "no tokenizer.*tokenizer.json or"),
        (_no_processor, "no image processor.*processor_config.json or"),
        (_half_downloaded, "1 of 2 files of weights are missing, first model-00002-of-00002.safetensors"),
    ],
)
def test_unusable_folders_are_refused(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    """What, where, expected and remedy; and a run stops before it makes anything."""
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        resolve_model(_config(folder))
    assert str(folder) in str(caught.value)
    assert caught.value.remedy
    assert caught.value.expected
    store = Store(tmp_path / "store")
    config = load_config(config_file("smoke"), [f"policy.model={folder}"])
    with pytest.raises(ModelError, match=message):
        follow_method(Run(config, store))
    assert not list((tmp_path / "store").rglob("manifest.json"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./no/such/folder", "does not exist"),
        ("demo:hard", "demo:absolute or demo:soft"),
        ("nobody/no-such-model", "allow_download"),
    ],
)
def test_unknown_names_are_refused(model: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=message):
        resolve_model(PolicyConfig(model=model))


def test_template_inside_the_processor_config_counts(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    _no_template(folder)
    config = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({**config, "chat_template": template}))
    assert resolve_model(_config(folder)) == folder


def test_digest_is_of_content(folder: Path, tiny_folder: Path) -> None:
    digest = policy_digest(folder)
    assert digest == policy_digest(tiny_folder)
    (folder / "README.md").write_text("notes")
    (folder / "optimizer").mkdir()
    (folder / "optimizer" / "state.safetensors").write_bytes(b"1")
    assert policy_digest(folder) == digest
    for name in ("chat_template.jinja", "model.safetensors", "tokenizer.json", "config.json"):
        before = policy_digest(folder)
        with (folder / name).open("ab") as file:
            file.write(b" ")
        assert policy_digest(folder) != before, name
    (folder / "empty").mkdir()
    with pytest.raises(ModelError, match="no model files"):
        policy_digest(folder / "empty")


def test_resolving_needs_no_torch() -> None:
    code = (
        "import sys; from mbpo_core.config import PolicyConfig; from mbpo_core.models.digest import import_policy;"
        "import_policy(PolicyConfig()); assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
