"""What is published: a model folder that stands on its own, made without a compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.policy import load_policy
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.objectives.passes import CHOSEN
from mbpo_core.training.checkpoint import _read
from mbpo_core.training.data import GroupSet
from mbpo_core.training.job import JobRows, write_job
from mbpo_core.training.rows import ListTable
from tests.training.conftest import Recorder, Trained, trained
from tests.training.rows import POLICY, job

# Plain transformers, nothing of this project: the checkpoint must load wherever transformers is.
LOADING = """
import io, json, sys
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, request = sys.argv[1], json.load(sys.stdin)
processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForImageTextToText.from_pretrained(folder).eval()
image = Image.open(io.BytesIO(bytes.fromhex(request["image"]))).convert("RGB")
text = processor.apply_chat_template(request["messages"], add_generation_prompt=True)
inputs = processor(images=image, text=text, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits[0, -1]
print(json.dumps({"ids": inputs["input_ids"][0].tolist(), "logits": logits.tolist()}))
"""


@pytest.mark.slow
def test_checkpoint_loads_in_a_fresh_process_with_equal_logits(plain: Trained, rows: JobRows) -> None:
    folder, row = plain.job.result / "checkpoint", rows.pairs.content[0]
    messages = [
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": row["prompt"][0]["content"][1]["text"]}],
        }
    ]
    request = json.dumps({"image": row["images"][0]["bytes"].hex(), "messages": messages})
    done = subprocess.run([sys.executable, "-c", LOADING, str(folder)], input=request, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    policy = load_policy(folder, POLICY)
    groups = GroupSet(policy, plain.job.config)
    prompt = groups.looks(groups.add_pairs(ListTable([row])), [CHOSEN])[0].groups[0].prompt
    assert answer["ids"] == prompt.token_ids
    # Log-probs of every one-token answer, through our scoring, against the other process's logits.
    allowed = sorted(set(range(len(answer["logits"]))) - set(policy.banned_token_ids))
    ours = group_logprobs(policy, [PromptGroup(prompt, [[token] for token in allowed])])[0]
    theirs = torch.tensor(answer["logits"])[allowed].log_softmax(-1)
    torch.testing.assert_close(torch.cat(ours), theirs, atol=1e-5, rtol=1e-5)


def test_checkpoint_carries_processor_and_template_unchanged(plain: Trained) -> None:
    source, target = Path(plain.job.policy), plain.job.result / "checkpoint"
    names = {path.name for path in source.iterdir()}
    assert {path.name for path in target.iterdir()} == names
    for name in names - {"model.safetensors", "config.json", "generation_config.json"}:
        assert (target / name).read_bytes() == (source / name).read_bytes(), name
    states = {path.suffix for path in (plain.job.result / "state").iterdir()}
    assert states == {".json", ".safetensors"}  # nothing is pickled


def test_half_precision_keeps_float32_weights_beside_the_published_ones(rows: JobRows, tmp_path: Path) -> None:
    half = job(tmp_path / "0", use_online=False, learning_rate=1e-5)
    half = half.model_copy(update={"policy_config": POLICY.model_copy(update={"dtype": "bfloat16"})})
    first = trained(half, JobRows(ListTable(rows.pairs.content[:2])))
    assert {tensor.dtype for tensor in first.weights.values()} == {torch.bfloat16}
    masters = dict(_read(half.result / "state", "weights"))
    published = dict(load_policy(half.result / "checkpoint", half.policy_config).model.named_parameters())
    assert all(torch.equal(value.bfloat16(), published[name]) for name, value in masters.items())
    assert any(not torch.equal(value.bfloat16().float(), value) for value in masters.values())
    following = half.model_copy(
        update={
            "work": str(tmp_path / "1"),
            "policy": str(half.result / "checkpoint"),
            "policy_digest": "round-0",
            "previous": str(half.result / "state"),
        }
    )
    second = trained(following, JobRows(ListTable(rows.pairs.content[:2])), Recorder())
    assert second.summary["optimizer_steps"] == 2


def test_training_compiles_nothing(rows: JobRows, tmp_path: Path) -> None:
    """A fresh process with an empty extensions folder and no compiler on its path."""
    work = job(tmp_path / "work", pairs_per_step=4, use_online=False)
    write_job(tmp_path / "job", work, rows)
    script = (
        "import sys; from pathlib import Path; from mbpo_core.training.job import read_job;"
        "from mbpo_core.training.loop import train; from mbpo_core.progress import NullProgress;"
        "train(*read_job(Path(sys.argv[1])), NullProgress())"
    )
    extensions = tmp_path / "extensions"
    environment = {
        **os.environ,
        "TORCH_EXTENSIONS_DIR": str(extensions),
        "PATH": "",
        "CC": "/nowhere",
        "CXX": "/nowhere",
    }
    command = [sys.executable, "-c", script, str(tmp_path / "job")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not extensions.exists() or not any(extensions.iterdir())
    assert done.stdout == ""  # standard output belongs to the caller
    assert (work.result / "summary.json").exists()


@pytest.mark.parametrize("name", ["weights", "exp_avg", "exp_avg_sq"])
def test_state_names_every_trained_parameter(plain: Trained, name: str) -> None:
    tensors = dict(_read(plain.job.result / "state", name))
    assert sum(tensor.numel() for tensor in tensors.values()) == plain.summary["trainable_parameters"]
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
