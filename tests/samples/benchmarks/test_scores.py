"""From published files to the benchmark's own numbers: what the readers say of a question is what the metrics read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mbpo_core.errors import DataError
from mbpo_core.evaluation.judging import judge
from mbpo_core.evaluation.summary import summarize
from mbpo_core.records import Prediction
from mbpo_core.samples.benchmarks.responses import read_judgements, responses_of
from mbpo_core.store.reader import ArtifactReader
from tests.samples.benchmarks import layouts
from tests.samples.helpers import import_samples


def predictions(samples: ArtifactReader, texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """Prediction rows of one policy that says these texts, by sample_id."""
    empty = dict.fromkeys(Prediction.model_fields)
    rows = []
    for sample in samples.rows():
        text = texts[sample["sample_id"]]
        verdict, extracted = judge(sample, text)
        meta = json.loads(sample["meta"])
        told = {"policy": "base", "question_kind": sample["kind"], "probe": meta["probe"], "images": []}
        told |= {"text": text, "verdict": verdict, "extracted": extracted}
        rows.append(empty | {key: sample[key] for key in ("sample_id", "question", "answer", "meta")} | told)
    return rows


def values(rows: list[dict[str, Any]], prefix: str) -> dict[str, float]:
    entries = summarize(rows, bootstrap=100)["policies"]["base"]
    return {name: entry["value"] for name, entry in entries.items() if name.startswith(prefix)}


AMBER_TEXTS = {
    "amber-1": "A man under the sky, with clouds.",
    "amber-2": "A dog.",
    "amber-1005": "Yes, it is.",
    "amber-1006": "No.",
    "amber-1007": "Yes.",
    "amber-1008": "No.",
}


def test_amber(tmp_path: Path) -> None:
    samples = import_samples(tmp_path / "store", source="amber", path=str(layouts.make_amber(tmp_path)))
    found = values(predictions(samples, AMBER_TEXTS), "amber_")
    assert found["amber_chair"] == pytest.approx(1 / 4)  # man, sky, dog are there; clouds are not
    assert found["amber_cover"] == pytest.approx(3 / 4)  # sky and person of three, dog of one
    assert found["amber_hal"] == pytest.approx(1 / 2)
    assert found["amber_cog"] == pytest.approx(1 / 3)  # cloud, of cloud, dog and tree
    assert found["amber_accuracy"] == pytest.approx(3 / 4)
    assert found["amber_precision"] == pytest.approx(1)  # said no twice, rightly
    assert found["amber_recall"] == pytest.approx(2 / 3)  # no was right three times
    assert found["amber_f1"] == pytest.approx(4 / 5)
    assert found["amber_score"] == pytest.approx((1 - 1 / 4 + 4 / 5) / 2)
    assert found["amber_attribute_accuracy"] == pytest.approx(1 / 2)


def test_vilp(tmp_path: Path) -> None:
    samples = import_samples(tmp_path / "store", source="vilp", path=str(layouts.make_vilp(tmp_path / "vilp")))
    with_fact = {"0-1": "Four.", "0-2": "2", "0-3": "four", "1-1": "sphere", "1-2": "Cubes", "1-3": "cube"}
    texts = {f"vilp-f-{name}": text for name, text in with_fact.items()}
    texts |= {f"vilp-p-{name}": "2" for name in with_fact}
    found = values(predictions(samples, texts), "vilp_")
    assert {name: found[name] for name in found if not name.endswith("accuracy")} == {
        "vilp_f_score": 2 / 4,  # second answers right, third ones wrong
        "vilp_f_prior": 2 / 2,
        "vilp_p_score": 1 / 4,
        "vilp_p_prior": 0 / 2,
    }


def test_vlind(tmp_path: Path) -> None:
    samples = import_samples(tmp_path / "store", source="vlind", path=str(layouts.make_vlind(tmp_path)))
    texts = {row["sample_id"]: f"{row['answer']}." for row in samples.rows()}
    texts["vlind-0-LP-7-false"] = "True"  # follows the picture in one statement only
    rows = predictions(samples, texts)
    assert [row["sample_id"] for row in rows if row["verdict"] != "correct"] == ["vlind-0-LP-7-false"]
    found = values(rows, "vlind_")
    assert {name: found[name] for name in found if not name.endswith("accuracy")} == {
        "vlind_ck": 1, "vlind_vp": 1, "vlind_cb": 1, "vlind_lp": 1 / 2, "vlind_cb_all": 1, "vlind_lp_all": 1 / 2,
    }  # fmt: skip
    texts["vlind-0-CK-true"] = "False"  # does not know better: nothing follows for the other two
    found = values(predictions(samples, texts), "vlind_")
    assert (found["vlind_ck"], found["vlind_cb"], found["vlind_lp"]) == (0, None, None)
    assert (found["vlind_cb_all"], found["vlind_lp_all"]) == (1, 1 / 2)


def test_pope(tmp_path: Path) -> None:
    data, images = layouts.make_pope(tmp_path)
    samples = import_samples(tmp_path / "store", source="pope", path=str(data), image_root=str(images))
    texts = {row["sample_id"]: "Yes, there is." for row in samples.rows()}
    texts |= {"coco_pope_random-2": "No.", "coco_pope_popular-2": "It is a car."}
    rows = predictions(samples, texts)
    official, strict = values(rows, "pope_"), values(rows, "existence_")
    assert (official["pope_random_accuracy"], official["pope_random_yes_ratio"]) == (1, 1 / 2)
    assert (official["pope_adversarial_precision"], official["pope_adversarial_recall"]) == (1 / 2, 1)
    assert official["pope_adversarial_f1"] == pytest.approx(2 / 3)
    assert official["pope_popular_yes_ratio"] == 1  # the official parser takes it for a yes
    assert strict["existence_popular_unparsed"] == 1 / 2


def test_response_files_are_what_the_published_scripts_read(tmp_path: Path) -> None:
    root = layouts.make_amber(tmp_path)
    samples = import_samples(tmp_path / "store", source="amber", path=str(root))
    assert responses_of("amber", root, reversed(predictions(samples, AMBER_TEXTS))) == [
        {"id": 1, "response": "A man under the sky, with clouds."},
        {"id": 2, "response": "A dog."},
        {"id": 1005, "response": "Yes"},
        {"id": 1006, "response": "No"},
        {"id": 1007, "response": "Yes"},
        {"id": 1008, "response": "No"},
    ]
    folder = layouts.make_mmhal(tmp_path)
    asked = import_samples(tmp_path / "store", source="mmhal", path=str(folder))
    rows = predictions(asked, {"mmhal-0": "yellow", "mmhal-1": "red", "mmhal-2": "blue"})
    template = json.loads((folder / "response_template.json").read_text())
    answers = [item["model_answer"] for item in responses_of("mmhal", folder, [rows[2], rows[0]])]
    assert answers == ["yellow", "", "blue"]  # the template's order, and an empty answer where there is none
    filled = responses_of("mmhal", folder, rows)
    assert [item | {"model_answer": ""} for item in filled] == template


def test_a_judges_file_is_read_with_the_types_of_the_template(tmp_path: Path) -> None:
    folder = layouts.make_mmhal(tmp_path)
    answer = {"choices": [{"message": {"content": "Rating: 2"}}]}  # as the API gives it
    file = layouts.put_json(tmp_path / "judged.json", ["Fine. Rating: 6", answer, "Rating: 4"])
    assert read_judgements(file, folder) == [
        {"question_type": "attribute", "judgement": "Fine. Rating: 6"},
        {"question_type": "adversarial", "judgement": "Rating: 2"},
        {"question_type": "attribute", "judgement": "Rating: 4"},
    ]
    with pytest.raises(DataError, match="2 judgements for 3 questions"):
        read_judgements(layouts.put_json(tmp_path / "short.json", ["a", "b"]), folder)
    with pytest.raises(DataError, match="judgement 1 is no text"):
        read_judgements(layouts.put_json(tmp_path / "odd.json", ["a", {"choices": []}, "b"]), folder)
