"""`mbpo runs | show | trace | verify | explain | gc`: what they print, their JSON, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows import cli, inspecting
from mbpo_core.config import PipelineConfig
from mbpo_core.store import Store
from mbpo_core.store.promotions import publish, record
from mbpo_core.store.rows import Followed, Sighting
from tasks.run import Run, pointer_keys
from tests.execution.conftest import make
from tests.execution.fakes import DRAWING
from tests.flows import fakes
from tests.promotion.making import answers, checkpoint, config, evaluate
from tests.samples.helpers import encoded, picture, write_lines

EVIL = "[bold]x[/] \x1b[2J"
SETTINGS = {"run": "r", "method": "mbpo", "rounds": 1}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A run of real samples, one of them dropped, and of fake stages after them."""
    from mbpo_core.stages import SAMPLES, STAGES

    fakes.install(monkeypatch)
    monkeypatch.setitem(STAGES, "samples", SAMPLES)
    monkeypatch.setenv("MBPO_STORE", str(tmp_path / "runs"))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded(picture()))
    row = {"image": "a.png", "question": "Is it red?", "answer": "yes"}
    write_lines(folder / "rows.jsonl", [row | {"id": EVIL}, row | {"id": "bad", "image": "gone.png"}])
    samples = {"source": "jsonl", "path": str(folder / "rows.jsonl"), "id_column": "id", "max_dropped_share": 1}
    settings = PipelineConfig.model_validate(SETTINGS | {"samples": samples})

    from flows.pipeline import follow_method

    made = Store(tmp_path / "runs")
    made.run("r").save_config(settings.model_dump(mode="json"))
    follow_method(Run(settings, made))
    return made


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    told = capsys.readouterr()
    assert ended.value.code == code, told.err
    assert "\x1b" not in told.out
    return told.out if code == 0 or told.out else told.err


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    """The one JSON object on standard output."""
    value = json.loads(said(capsys, *arguments, "--json", code=code))
    assert isinstance(value, dict)
    return value


def test_runs(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    keys = pointer_keys(PipelineConfig.model_validate(SETTINGS))
    (line,) = told(capsys, "runs")["runs"]
    sizes = [
        file.size for ref in store.run("r").pointers().values() for file in store.reader(ref).manifest.stored_files()
    ]
    assert (line["run"], line["done"], line["expected"], line["stale"]) == ("r", len(keys), len(keys), [])
    assert (line["promoted"], line["problem"], line["bytes"]) == (None, None, sum(sizes))
    table = said(capsys, "runs")
    assert f"{len(keys)} of {len(keys)}" in table
    assert "none" in table


def test_runs_says_what_is_stale_gone_promoted_or_broken(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    policy = checkpoint(store, "other")
    assert policy.artifact
    store.run("r").point("training/0", policy.artifact)
    store.run("r").point("promoted", policy.artifact)
    shutil.rmtree(Path(store.run("r").pointers()["pairs"].uri))
    store.files.write("runs/broken.json", b"{")
    lines = {line["run"]: line for line in told(capsys, "runs")["runs"]}
    assert lines["r"]["stale"] == ["evaluation", "report"]
    assert lines["r"]["problem"] == "gone from the store: pairs"
    assert lines["r"]["done"] == lines["r"]["expected"] - 1
    assert lines["r"]["promoted"] == policy.artifact.digest
    assert "not what was written" in lines["broken"]["problem"]


def test_an_empty_store_has_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "runs", "--store", str(tmp_path / "none"))["runs"] == []
    assert "no run" in said(capsys, "runs", "--store", str(tmp_path / "none"))


def test_show_everything(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(told(capsys, "show", "--run", "r")) == list(store.run("r").pointers())
    table = said(capsys, "show", "--run", "r")
    for key, ref in store.run("r").pointers().items():
        assert f"{key}: {ref.uri}" in table
    assert "1 unreadable_image" in table


def test_show_one_by_key_and_by_digest(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    ref = store.run("r").pointers()["samples"]
    by_key, by_digest = told(capsys, "show", "samples", "--run", "r"), told(capsys, "show", ref.digest[:8])
    assert by_key["samples"] == by_digest["samples"]
    one = by_key["samples"]
    assert (one["rows"], one["dropped"], one["digest"]) == ({"part": 1}, {"unreadable_image": 1}, ref.digest)
    assert set(one["settings"]) == {
        "samples.source", "samples.path", "samples.id_column", "samples.max_dropped_share",
    }  # fmt: skip
    training = told(capsys, "show", "training", "--run", "r")["training/0"]
    assert training["policies"]["reference"]["model"].endswith("absolute")
    assert training["inputs"]["pairs"]["digest"] == store.run("r").pointers()["pairs"].digest
    page = said(capsys, "show", "training/0", "--run", "r")
    for words in (
        "all defaults",
        "reference: ",
        f"pairs: pairs {training['inputs']['pairs']['digest'][:12]}",
        "on cpu",
    ):
        assert words in page


def test_show_promoted_says_why(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    from mbpo_core.promotion import decide

    for name, right in (("good", 90), ("bad", 50)):
        policy = checkpoint(store, name)
        decision = decide(store, config(), evaluate(store, policy, answers(right, 100 - right), seed=right), policy)
        assert decision
        record(store, "r", decision)
        publish(store, "r")
    shown = told(capsys, "show", "promoted", "--run", "r")
    assert list(shown) == ["promoted", "promoted/evaluation", "decision"]
    assert (shown["decision"]["promotes"], shown["decision"]["comparisons"][0]["verdict"]) == (False, "worse")
    (line,) = told(capsys, "runs")["runs"]
    assert (line["promoted"], line["refused"]) == (shown["promoted"]["digest"], "significantly worse in accuracy")
    assert "newest refused: significantly worse" in said(capsys, "runs")
    page = said(capsys, "show", "promoted", "--run", "r")
    assert "not promoted" in page
    assert "significantly worse in accuracy" in page


def test_trace_of_a_checkpoint_leads_to_input_and_model(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, "trace", "training/0", "--run", "r")
    steps = shown["traces"]["training/0"]
    assert steps[0]["outside"]["reference"]["path"].endswith("absolute")
    first = next(step for step in steps if step["stage"] == "samples")
    assert first["outside"]["path"]["files"] == 1
    assert first["outside"]["image_root"]["files"] == 1
    assert sum(step["stage"] == "samples" and not step["again"] for step in steps) == 1
    tree = said(capsys, "trace", "training/0", "--run", "r")
    for words in ("── pairs ", "── samples ", "rows.jsonl: 1 files", "model reference ", "(see above)"):
        assert words in tree


def test_trace_of_a_row(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, "trace", EVIL, "--run", "r")
    assert [(seen["key"], seen["row"]["question"]) for seen in shown["sightings"]] == [("samples", "Is it red?")]
    tree = said(capsys, "trace", EVIL, "--run", "r")
    assert r"[bold]x[/] \x1b[2J in run r" in tree, "neither markup nor an escape sequence"
    assert "reason: unreadable_image" in said(capsys, "trace", "bad", "--run", "r")


def test_each_completion_of_a_row_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    completions = [{"text": text, "verdict": "wrong", "reward": 0.2} for text in ("[i]D", "B")]
    seen = Sighting(key="rollouts/0", digest="f" * 64, table="part", row={"answer": "B", "completions": completions})
    inspecting._print_row(Followed(run="r", sample_id="q", sightings=[seen], looked={}, unread={"pairs": "[b]gone"}))
    tree = capsys.readouterr().out
    for words in (
        "rollouts/0 (ffffffffffff)",
        "── [i]D (wrong, reward 0.2)",
        "── B (wrong",
        "pairs cannot be read: [b]gone",
    ):
        assert words in tree


def test_what_is_unknown_is_told_where_it_was_looked_for(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    message = said(capsys, "trace", "nobody", "--run", "r", code=1)
    assert "samples (2 rows)" in message
    assert "sample_id" in message
    assert "known runs: r" in said(capsys, "show", "pairs", "--run", "x", code=1)
    assert "'x' is not known" in said(capsys, "trace", "nobody", "--run", "x", code=1)
    assert "'x' is not known" in said(capsys, "verify", "--run", "x", code=1)


def test_verify(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "verify")["intact"] is True
    assert "no problems" in said(capsys, "verify", "samples", "--run", "r")
    manifest = store.reader(store.run("r").pointers()["samples"]).manifest
    path = Path(store.uri("samples", manifest.digest)) / manifest.parts[0].file.path
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    for arguments in (["verify"], ["verify", "--run", "r"], ["verify", manifest.digest[:6]]):
        shown = told(capsys, *arguments, code=1)
        assert [(problem["kind"], problem["where"]) for problem in shown["problems"]] == [("damaged", str(path))]
    assert f"damaged: {path}" in said(capsys, "verify", code=1)
    assert told(capsys, "verify", "report", "--run", "r")["intact"] is True


def test_explain_and_gc_as_json(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    explained = told(capsys, "explain", "--run", "r")
    assert [plan["key"] for plan in explained["plans"]] == list(store.run("r").pointers())
    assert {plan["status"] for plan in explained["plans"]} == {"cached"}
    changed = told(capsys, "explain", "--run", "r", "--set", "report.title=x")
    assert [plan["key"] for plan in changed["plans"] if plan["status"] != "cached"] == ["report"]
    assert changed["plans"][-1]["causes"][0]["field"] == "report.title"
    assert told(capsys, "gc") == {"found": [], "bytes": 0}
    store.run("r").point("report", make(store, DRAWING))
    scratch = store.scratch("drawing", "0" * 64, "code")
    scratch.mkdir(parents=True)
    (scratch / "state").write_bytes(b"12345")
    shown = told(capsys, "gc")
    assert [(entry["path"], entry["deleted"]) for entry in shown["found"]] == [
        (f"scratch/drawing/{'0' * 64}-code", False)
    ]
    assert shown["bytes"] == 5
    assert "1 unneeded, 5 B" in said(capsys, "gc")
