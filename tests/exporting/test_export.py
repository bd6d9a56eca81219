"""`mbpo export`: others open the folder, the card tells where it is from, and nothing that should stay leaves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import cli
from mbpo_core.config import PolicyConfig, SamplesConfig
from mbpo_core.errors import ConfigError, StoreError
from mbpo_core.execution import checkpoint_policy, execute, plan
from mbpo_core.exporting import told
from mbpo_core.exporting.dataset import export_tables
from mbpo_core.exporting.model import export_checkpoint
from mbpo_core.progress import NullProgress
from mbpo_core.records import Completion, Image, Message, Part, PreferencePair, RolloutGroup
from mbpo_core.stage import ArtifactRef, PolicyRef, StageContext
from mbpo_core.stages import EVALUATION, STAGES, TRAINING
from mbpo_core.store import Store
from tests.evaluation.rows import prediction
from tests.samples.helpers import commit_rows, encoded, picture, write_lines

EVIL = "<script>|`[x](y)`\n# no heading"


def imported(tmp_path: Path, store_name: str = "store") -> tuple[Store, ArtifactRef]:
    """Five samples in parts of two, and two rows that were dropped."""
    (folder := tmp_path / "secret-place").mkdir(exist_ok=True)
    (folder / "a.png").write_bytes(encoded(picture()))
    row = {"image": "a.png", "question": "Is it red?", "answer": "yes"}
    rows = [row | {"id": f"{number}"} for number in range(5)]
    rows[1:1] = [row | {"id": "gone", "image": str(folder / "gone.png")}, row | {"id": "0"}]
    path = write_lines(folder / "rows.jsonl", rows)
    config = SamplesConfig(
        source="jsonl",
        path=str(path),
        id_column="id",
        image_root=str(folder),
        name=EVIL,
        part_rows=2,
        max_dropped_share=1,
    )
    store = Store(tmp_path / store_name)
    ref = execute(store, plan(store, STAGES["samples"], config, {}), NullProgress())
    store.run("r").point("samples", ref)
    return store, ref


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def front_of(folder: Path) -> dict[str, Any]:
    front: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    return front


def test_datasets_opens_what_was_exported(tmp_path: Path) -> None:
    from datasets import load_dataset

    store, ref = imported(tmp_path)
    out = tmp_path / "out"
    assert export_tables(store, ref, out, dropped=True) == ["samples", "dropped"]
    cache = str(tmp_path / "cache")
    rows = load_dataset(str(out), split="train", cache_dir=cache)
    assert rows.column_names == list(STAGES["samples"].record.model_fields)  # type: ignore[union-attr]
    assert rows["sample_id"] == ["0", "1", "2", "3", "4"]
    assert rows[3]["images"][0].tobytes() == picture().tobytes()
    dropped = load_dataset(str(out), "dropped", split="train", cache_dir=cache)
    assert dropped["reason"] == ["unreadable_image", "duplicate_id"]
    assert sorted(file.name for file in (out / "samples").iterdir())[0].startswith("train-00000-of-0000")
    origin = json.loads((out / "mbpo.json").read_text())
    assert (origin["stage"], origin["digest"], origin["content"]) == ("samples", ref.digest, ref.content)


def test_the_card_tells_counts_settings_and_lineage(tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard

    store, ref = imported(tmp_path)
    export_tables(store, ref, tmp_path / "out")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.configs == [
        {"config_name": "samples", "data_files": [{"split": "train", "path": "samples/*.parquet"}], "default": True}
    ]
    assert card.data.license is None
    assert card.data.tags == ["mbpo", "samples"]
    for part in (
        "| samples | 5 |", "| unreadable\\_image | 1 |", "| duplicate\\_id | 1 |", "Of 7 input rows",
        "| samples.source | jsonl |", "| samples.offline\\_share | 0.5 |", "| seed | 0 |", "| kind | yes\\_no 5 |",
        "path: 1 files", "image\\_root: 1 files", f"samples {ref.digest[:12]}", "Add a `license`", "pyarrow",
    ):  # fmt: skip
        assert part in card.text, part
    assert "part\\_rows" not in card.text, "how it was done decides nothing"
    assert "are not part of this folder" in card.text
    assert not (tmp_path / "out" / "dropped").exists()


def test_no_path_name_or_markup_gets_out(tmp_path: Path) -> None:
    store, ref = imported(tmp_path)
    export_tables(store, ref, tmp_path / "out")
    for name in ("README.md", "mbpo.json"):
        text = (tmp_path / "out" / name).read_text()
        for secret in (
            str(tmp_path),
            "secret-place",
            str(Path.home()),
            store.reader(ref).manifest.by.split("@")[0] + "@",
        ):
            assert secret not in text, (name, secret)
        assert "<script>" not in text
        assert "\n# no heading" not in text
    assert "&lt;script&gt;\\|\\`\\[x\\](y)\\` \\# no heading" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/me/models/llava-7b", "llava-7b"),
        ("~/llava", "llava"),
        ("../data/x.jsonl", "x.jsonl"),
        (r"C:\Users\me\x", "x"),
        ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf"),
        ("https://me:key@host.example/v1?token=secret#x", "https://host.example/v1"),
        ("file:///home/me/x", "file://"),
        (["/a/b", 3, {"k": "/c/d"}], ["b", 3, {"k": "d"}]),
        (0.5, 0.5),
    ],
)
def test_public_values(value: Any, shown: Any) -> None:
    assert told.public(value) == shown


def test_equal_artifacts_give_equal_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        store, ref = imported(tmp_path, name)
        export_tables(store, ref, tmp_path / "out" / name, dropped=True)
    assert files_of(tmp_path / "out" / "one") == files_of(tmp_path / "out" / "two")


def test_a_folder_is_replaced_only_if_asked_and_only_if_it_is_ours(tmp_path: Path) -> None:
    store, ref = imported(tmp_path)
    out = tmp_path / "out"
    export_tables(store, ref, out, dropped=True)
    before = files_of(out)
    with pytest.raises(ConfigError, match="give --overwrite to replace it"):
        export_tables(store, ref, out)
    assert files_of(out) == before
    export_tables(store, ref, out, overwrite=True)
    assert not (out / "dropped").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="holds something else"):
        export_tables(store, ref, tmp_path / "mine", overwrite=True)
    (tmp_path / "empty").mkdir()
    export_tables(store, ref, tmp_path / "empty")
    assert (tmp_path / "empty" / "README.md").is_file()


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, ref = imported(tmp_path)
    out = tmp_path / "out"
    export_tables(store, ref, out)
    before = files_of(out)
    places = sorted(tmp_path.iterdir())
    first = next(iter(part.file.path for part in store.reader(ref).manifest.parts))
    damaged = Path(ref.uri) / first
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 255
    damaged.write_bytes(data)
    with pytest.raises(StoreError):
        export_tables(store, ref, out, overwrite=True)
    with pytest.raises(StoreError):
        export_tables(store, ref, tmp_path / "new")
    assert files_of(out) == before
    assert sorted(tmp_path.iterdir()) == places


def message(role: Any, text: str, images: int = 0) -> list[Message]:
    return [Message(role=role, content=[*[Part(type="image")] * images, Part(type="text", text=text)])]


def pair(number: int) -> PreferencePair:
    return PreferencePair(
        sample_id=f"{number}", images=[Image(bytes=encoded(picture()))], rejected_images=[],
        prompt=message("user", "What?", images=1), chosen=message("assistant", f"A plate, {number}."),
        rejected=message("assistant", "A cup."), question_kind="open", negative_kind="given", blind="mask",
        gain_chosen=0.5, gain_rejected=0.1, token_gains_chosen=[0.5], token_gains_rejected=[0.1], logprob_chosen=-0.1,
        logprob_rejected=-0.2, blind_logprob_chosen=-0.6, blind_logprob_rejected=-0.3,
    )  # fmt: skip


def group(number: int) -> RolloutGroup:
    answers = [
        Completion(
            text=text, token_ids=[1], logprobs=[-0.1], finish_reason="stop", extracted=text, verdict="correct",
            reason="says so", accuracy_reward=reward, format_reward=0.0, reward=reward,
        )
        for text, reward in (("yes", float(number)), ("no", 0.5))
    ]  # fmt: skip
    return RolloutGroup(
        sample_id=f"{number}", images=[Image(bytes=encoded(picture()))], prompt=message("user", "Is it?", images=1),
        answer="yes", question_kind="yes_no", answer_form="word", choices=[], policy_digest="a", round_index=0,
        temperature=1.0, verifier="yes_no@1", zero_variance=False, completions=answers,
    )  # fmt: skip


def test_pairs_and_rollouts_go_through_a_plain_pipeline(tmp_path: Path) -> None:
    """What `benchmarks/data_out.py` has TRL do, as far as `datasets` goes."""
    from datasets import load_dataset

    store = Store(tmp_path / "store")
    pairs = [pair(number) for number in range(3)]
    groups = [group(number) for number in range(3)]
    for stage, rows, name in (("pairs", pairs, "pairs"), ("rollouts", groups, "rollouts")):
        export_tables(store, commit_rows(store, stage, rows), tmp_path / name)
    opened = load_dataset(str(tmp_path / "pairs"), "pairs", split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["chosen"] for row in opened] == [[turn.model_dump() for turn in pair.chosen] for pair in pairs]
    assert all(picture.size for row in opened for picture in row["images"])
    opened = load_dataset(str(tmp_path / "rollouts"), split="train", cache_dir=str(tmp_path / "cache"))
    made = opened.map(lambda row: {"best": max(c["reward"] for c in row["completions"])}, load_from_cache_file=False)
    assert list(made["best"]) == [max(c.reward for c in group.completions) for group in groups]


# --- checkpoints

_GIVEN: dict[str, Any] = {}


def write_training(context: StageContext) -> None:
    context.output.add_folder("checkpoint", _GIVEN["model"])


def write_evaluation(context: StageContext) -> None:
    from mbpo_core.evaluation.summary import count_rows, summary_of

    rows = _GIVEN["rows"]
    for part in context.output.parts(len(rows), 100):
        part.finish(rows[part.start : part.stop])
    context.output.add_json("summary.json", summary_of(count_rows([rows]), bootstrap=50))


def trained(tmp_path: Path) -> tuple[Store, ArtifactRef, Path]:
    """A run whose checkpoint is a tiny model, with its evaluation."""
    from tests.models.tiny import save_tiny

    _GIVEN["model"] = save_tiny(tmp_path / "secret-place" / "tiny")
    store = Store(tmp_path / "store")
    config = PolicyConfig(model=str(_GIVEN["model"]))
    base = PolicyRef(folder=str(_GIVEN["model"]), digest="0" * 64)

    def made(spec: Any, policies: dict[str, PolicyRef]) -> ArtifactRef:
        record = None if spec is TRAINING else spec.record
        spec = dataclasses.replace(spec, entry=f"{__name__}:write_{spec.name}", record=record, inputs=())
        planned = plan(store, spec, spec.config(), {}, policies, policy_config=config, force=True)
        return execute(store, planned, NullProgress(), spec=spec)

    checkpoint = made(TRAINING, {"policy": base, "reference": base})
    rows = [prediction(n, "correct" if n < 6 else "wrong", policy="base", probe=EVIL) for n in range(10)]
    _GIVEN["rows"] = rows + [row | {"policy": "trained", "verdict": "correct"} for row in rows]
    evaluated = made(EVALUATION, {"base": base, "trained": checkpoint_policy(checkpoint, "trained")})
    run = store.run("r")
    run.save_config({"method": "mbpo"})
    run.point("training/0", checkpoint)
    run.point("evaluation", evaluated)
    return store, store.run("r").pointers()["training/0"], _GIVEN["model"]


def test_a_checkpoint_loads_and_its_card_has_the_evaluation(tmp_path: Path) -> None:
    import torch
    from huggingface_hub import ModelCard
    from transformers import AutoModelForImageTextToText, AutoProcessor

    store, ref, folder = trained(tmp_path)
    out = tmp_path / "out"
    export_checkpoint(store, ref, "r", out)
    old, new = (AutoModelForImageTextToText.from_pretrained(place).state_dict() for place in (folder, out))
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert AutoProcessor.from_pretrained(out).chat_template
    card = ModelCard.load(out / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "image-text-to-text")
    assert card.data.tags == ["mbpo"]
    assert card.data.base_model is None, "a folder of this machine is no model of the hub"
    for part in (
        "| base model | tiny |", "| base digest | 000000000000 |", "arXiv:2506.08022", "trained is this checkpoint",
        "60.0 \\[31.3, 83.2\\]", "100.0 \\[72.2, 100.0\\]", "Percent with 95 % intervals", "| training.beta | 0.04 |",
        f"training {ref.digest[:12]}", "## Limits", "No safety, bias or privacy evaluation",
    ):  # fmt: skip
        assert part in card.text, part
    text = (out / "README.md").read_text()
    for secret in (str(tmp_path), "secret-place", "<script>"):
        assert secret not in text, secret
    with pytest.raises(ConfigError, match="give --overwrite"):
        export_checkpoint(store, ref, "r", out)
    manifest = store.reader(ref).manifest
    cached = PolicyRef(folder="/x/hub/models--llava-hf--llava-1.5-7b-hf/snapshots/abc", digest="1" * 64)
    named: dict[str, Any] = {"policy_config": {"model": "llava-hf/llava-1.5-7b-hf"}}
    assert told.hub_model(manifest.model_copy(update=named)) == "", "a folder of this name need not be the hub's"
    named |= {"policies": {"policy": cached}}
    assert told.hub_model(manifest.model_copy(update=named)) == "llava-hf/llava-1.5-7b-hf"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, _ = imported(tmp_path)

    def said(*arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["export", *arguments, "--store", store.root])
        written = capsys.readouterr()
        assert ended.value.code == code, written.err
        return written.out if code == 0 else written.err

    assert "Wrote samples with a card" in said("samples", "--run", "r", "--output", str(tmp_path / "out"))
    assert "there is no artifact 'pairs'" in said("pairs", "--run", "r", "--output", str(tmp_path / "x"), code=1)
    assert "--overwrite" in said("samples", "--run", "r", "--output", str(tmp_path / "out"), code=1)
    said("samples", "--run", "r", "--output", str(tmp_path / "out"), "--overwrite", "--dropped")
    assert front_of(tmp_path / "out")["configs"][1]["config_name"] == "dropped"
