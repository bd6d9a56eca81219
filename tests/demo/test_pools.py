"""Pools and probes: splits by object, disjoint pictures, declared forms, conflict shares, answers that are true."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import Any

import pytest
from pydantic import ValidationError

from mbpo_core.demo.objects import (
    CANONICAL,
    DEV_OBJECTS,
    EVAL_OBJECTS,
    NEUTRAL,
    OBJECTS,
    PARTNERS,
    POOL_OBJECTS,
    UNSEEN_PAIRS,
    object_synonyms,
)  # fmt: skip
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.demo.probes import LARGE_PROBES, SHIFTED_PROBES, SMALL_PROBES
from mbpo_core.records import Sample

COUNTS = DemoCounts(offline=800, online=800, eval_probe=100, eval_small_probe=50, dev_probe=60, dev_small_probe=30)
SYNONYMS = object_synonyms()
Row = tuple[Sample, dict[str, Any]]


@pytest.fixture(scope="module")
def uniform() -> list[Row]:
    return [(sample, json.loads(sample.meta)) for sample in demo_samples("uniform", 0, COUNTS)]


@pytest.fixture(scope="module")
def natural() -> list[Row]:
    return [(sample, json.loads(sample.meta)) for sample in demo_samples("natural", 0, COUNTS)]


def words_of(text: str) -> set[str]:
    return {SYNONYMS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in SYNONYMS}


def test_object_splits_partition_the_prior_objects() -> None:
    assert sorted([*POOL_OBJECTS, *DEV_OBJECTS, *EVAL_OBJECTS]) == sorted(CANONICAL)
    assert (len(POOL_OBJECTS), len(DEV_OBJECTS), len(EVAL_OBJECTS)) == (6, 2, 4)
    assert {CANONICAL[name] for name in POOL_OBJECTS} == set(CANONICAL.values())


@pytest.mark.parametrize("setting", ["uniform", "natural"])
def test_no_question_names_an_object_of_another_split(setting: str, request: pytest.FixtureRequest) -> None:
    for sample, meta in request.getfixturevalue(setting):
        allowed = {*NEUTRAL, *{"dev": DEV_OBJECTS, "eval": EVAL_OBJECTS}.get(sample.split, POOL_OBJECTS)}
        if meta["probe"] == "prior_conflict_seen":
            allowed = {*NEUTRAL, *POOL_OBJECTS}
        assert words_of(f"{sample.question} {sample.answer} {meta['subject']}") <= allowed, sample.sample_id


@pytest.mark.parametrize("setting", ["uniform", "natural"])
def test_held_out_objects_wear_their_canonical_color_elsewhere(setting: str, request: pytest.FixtureRequest) -> None:
    for sample, meta in request.getfixturevalue(setting):
        for item in meta["scene"]:
            name = item["object"]
            asked = name == meta["subject"] or meta["topic"] in ("caption", "count")
            own = {"dev": DEV_OBJECTS, "eval": EVAL_OBJECTS}.get(sample.split, POOL_OBJECTS)
            if name in {*DEV_OBJECTS, *EVAL_OBJECTS} and not (asked and name in own):
                assert item["color"] == CANONICAL[name], sample.sample_id


def test_no_picture_is_shared_between_splits_settings_or_seeds(uniform: list[Row], natural: list[Row]) -> None:
    where: dict[bytes, set[str]] = defaultdict(set)
    for label, rows in (("uniform", uniform), ("natural", natural)):
        for sample, _ in rows:
            held_out = sample.split in ("dev", "eval")  # probes do not depend on the setting
            where[sample.images[0].bytes or b""].add(sample.split if held_out else f"{label}/{sample.split}")
    for sample in demo_samples("uniform", 1, COUNTS):
        where[sample.images[0].bytes or b""].add(f"seed 1/{sample.split}")
    pools = COUNTS.offline + COUNTS.online
    assert all(len(places) == 1 for places in where.values())
    assert len(where) == 2 * pools + (len(uniform) - pools) + len(uniform)


def test_samples_are_reproducible_and_do_not_depend_on_counts(uniform: list[Row]) -> None:
    few = DemoCounts(offline=5, online=5, eval_probe=3, eval_small_probe=3, dev_probe=3, dev_small_probe=3)
    by_id = {sample.sample_id: sample for sample, _ in uniform}
    assert len(by_id) == len(uniform)
    assert all(by_id[sample.sample_id] == sample for sample in demo_samples("uniform", 0, few))


def test_answers_have_the_declared_form(uniform: list[Row]) -> None:
    patterns = {
        "sentence": r"[A-Z].* .*\.",
        "word": r"[A-Za-z]+",
        "letter": r"[A-D]",
        "number": r"[1-4]",
        "free": r"The image shows .*\.",
    }
    requests = {
        "word": r"Answer with one word\.$|Answer yes or no\.$",
        "letter": r"Answer with the letter\.$",
        "number": r"Answer with a number\.$",
    }
    for sample, meta in uniform:
        for answer in filter(None, (sample.answer, meta["prior_answer"])):
            assert re.fullmatch(patterns[sample.answer_form], answer), (sample.sample_id, answer)
        assert re.search(requests.get(sample.answer_form, r"(\?|Describe the image\.)$"), sample.question)


def test_answers_are_true(uniform: list[Row]) -> None:
    for sample, meta in uniform:
        scene = {item["object"]: item for item in meta["scene"]}
        item = scene.get(meta["subject"])
        if meta["topic"] == "color":
            assert item["color"] in sample.answer
        elif meta["topic"] == "verification":
            assert sample.answer.startswith("Yes" if f" {item['color']}?" in sample.question else "No")
        elif meta["topic"] == "existence":
            assert sample.answer.startswith("Yes" if item else "No")
        elif meta["topic"] == "count":
            assert str(len(scene)) in sample.answer
        elif meta["topic"] == "multiple_choice":
            picked = sample.choices["ABCD".index(sample.answer)]
            assert picked == (item["color"] if "color" in sample.question else meta["subject"])
            assert f"\n{sample.answer}. {picked}\n" in sample.question
            assert len(set(sample.choices)) == 4
        elif meta["topic"] == "caption":
            assert all(f"{thing['color']} {name}" in sample.answer for name, thing in scene.items())
        else:
            assert set(sample.answer.strip(".").split()) & set(item["cell"].split())


def test_pools_hold_what_they_say(uniform: list[Row]) -> None:
    online = {sample.kind for sample, _ in uniform if sample.split == "online"}
    offline = {sample.kind for sample, _ in uniform if sample.split == "offline"}
    assert online == {"yes_no", "multiple_choice", "numeric", "short_text"}
    assert offline == {*online, "open"}
    colors = [meta["subject"] for sample, meta in uniform if sample.split == "offline" and meta["topic"] == "color"]
    assert sum(name in NEUTRAL for name in colors) / len(colors) == pytest.approx(0.4, abs=0.1)
    assert set(colors) == {*NEUTRAL, *POOL_OBJECTS}


@pytest.mark.parametrize(("setting", "share", "tolerance"), [("uniform", 5 / 6, 0.05), ("natural", 0.03, 0.02)])
def test_conflict_share_of_the_pools(
    setting: str, share: float, tolerance: float, request: pytest.FixtureRequest
) -> None:
    rows = [meta for sample, meta in request.getfixturevalue(setting) if sample.split in ("offline", "online")]
    prior = [
        meta for meta in rows
        if meta["prior_answer"] is not None and meta["topic"] in ("color", "verification", "multiple_choice")
    ]  # fmt: skip
    assert len(prior) > 400
    assert sum(meta["conflict"] for meta in prior) / len(prior) == pytest.approx(share, abs=tolerance)
    assert all(meta["setting"] == setting for meta in rows)


def test_probes_ask_what_their_name_says(uniform: list[Row]) -> None:
    probes = defaultdict(list)
    for sample, meta in uniform:
        if sample.split == "eval":
            probes[meta["probe"]].append((sample, meta))
    assert set(probes) == {*LARGE_PROBES, *SMALL_PROBES}
    for name, conflict in (("prior_conflict", True), ("prior_conflict_seen", True), ("prior_consistent", False)):
        assert all(meta["conflict"] is conflict and meta["prior_answer"] for _, meta in probes[name])
    assert all(meta["prior_answer"] is None for _, meta in probes["neutral"])
    assert {meta["subject"] for _, meta in probes["prior_conflict"]} == set(EVAL_OBJECTS)
    assert {meta["subject"] for _, meta in probes["prior_conflict_seen"]} == set(POOL_OBJECTS)
    for name in ("existence_random", "existence_popular", "existence_adversarial"):
        yes = sum(sample.answer.startswith("Yes") for sample, _ in probes[name]) / len(probes[name])
        assert yes == pytest.approx(0.5, abs=0.15)
    for sample, meta in probes["existence_adversarial"]:
        assert meta["prior_answer"].startswith("Yes")
        assert meta["conflict"] is sample.answer.startswith("No")
        assert any(PARTNERS.get(name) == meta["subject"] for name in meta["objects"])
    captions = [meta["conflict"] for _, meta in probes["caption"]]
    assert sum(captions) / len(captions) == pytest.approx(0.5, abs=0.15)


def test_shifted_probes_show_what_the_pools_never_do(uniform: list[Row], natural: list[Row]) -> None:
    apart = [set(pair) for pair in UNSEEN_PAIRS]
    pools = [meta for sample, meta in (*uniform, *natural) if sample.split in ("offline", "online")]
    shifted = [meta for sample, meta in uniform if meta["probe"] in SHIFTED_PROBES and sample.split == "eval"]
    assert not any(pair <= set(meta["objects"]) for meta in pools for pair in apart)
    assert any(len(meta["objects"]) > 2 for meta in pools)
    assert any(pair <= set(meta["objects"]) for meta in shifted for pair in apart)
    sizes = {name: {x1 - x0 for meta in metas for x0, _, x1, _ in (box["box"] for box in meta["boxes"])}
             for name, metas in (("pools", pools), ("shifted", shifted))}  # fmt: skip
    assert sizes["shifted"]
    assert not sizes["pools"] & sizes["shifted"]
    for meta in shifted:
        assert meta["conflict"] is (meta["probe"] == "shifted_conflict")
        assert meta["topic"] == "color"
        assert meta["subject"] in {*EVAL_OBJECTS, *NEUTRAL}
    assert all(meta["prior_answer"] is None for meta in shifted if meta["probe"] == "shifted_neutral")


def test_a_pool_may_hold_no_conflicts_at_all() -> None:
    counts = DemoCounts(offline=300, online=0, eval_probe=0, eval_small_probe=0, dev_probe=0, dev_small_probe=0,
                        conflict_share=0.0)  # fmt: skip
    metas = [json.loads(sample.meta) for sample in demo_samples("natural", 0, counts)]
    assert not any(meta["conflict"] for meta in metas if meta["topic"] != "existence")


def test_counts_refuse_unknown_fields_and_bad_values() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        DemoCounts.model_validate({"offlin": 3})
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        DemoCounts(conflict_share=1.5)


def test_synonyms_name_every_object() -> None:
    synonyms = object_synonyms()
    assert set(synonyms.values()) == set(OBJECTS)
    assert [synonyms[word] for word in ("strawberries", "grape", "dogs")] == ["strawberry", "grapes", "dog"]
