"""The stage on a real store with real checkpoints: order, resume, part size, bad rows."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from mbpo_core.config import EvaluationConfig, PolicyConfig, SamplesConfig
from mbpo_core.demo.probes import probe_names
from mbpo_core.errors import DataError
from mbpo_core.evaluation.balance import Balance, choose_balance
from mbpo_core.evaluation.questions import probe_of
from mbpo_core.evaluation.seeing import gain_curves
from mbpo_core.evaluation.summary import summarize, summary_for
from mbpo_core.execution import execute, plan
from mbpo_core.models.digest import import_policy
from mbpo_core.stages import STAGES
from mbpo_core.store.core import Store
from mbpo_core.store.reader import ArtifactReader

SAMPLES = SamplesConfig(demo_offline=1, demo_online=1, demo_dev=1, demo_eval=4)
SETTINGS = EvaluationConfig(max_new_tokens=24, bootstrap=100, batch_size=8, part_rows=8, per_probe=1)
POLICY = PolicyConfig(device="cpu")


class Log:
    """A Progress that counts, and may kill the stage."""

    def __init__(self, die_after: int = 1_000_000) -> None:
        self.done, self.die_after = 0, die_after

    def start(self, description: str, total: int, done: int = 0) -> None:
        self.total, self.older = total, done

    def advance(self, count: int = 1, **figures: float) -> None:
        self.done += count
        if self.done >= self.die_after:
            raise KeyboardInterrupt

    def log(self, message: str) -> None:
        pass


def new_store() -> Store:
    return Store(f"memory://{uuid.uuid4().hex}")


def evaluate(store: Store, log: Log, settings: EvaluationConfig = SETTINGS) -> ArtifactReader:
    samples = execute(store, plan(store, STAGES["samples"], SAMPLES, {}), Log())
    policies = {
        "base": import_policy(POLICY),
        "trained": import_policy(PolicyConfig(model="demo:soft", device="cpu")).model_copy(update={"label": "trained"}),
    }
    planned = plan(store, STAGES["evaluation"], settings, {"samples": samples}, policies, POLICY)
    return store.reader(execute(store, planned, log))


@pytest.fixture(scope="module")
def whole() -> ArtifactReader:
    return evaluate(new_store(), Log())


def test_every_policy_answers_every_question_in_order(whole: ArtifactReader) -> None:
    rows = list(whole.rows())
    half = len(rows) // 2
    assert half == len(list(probe_names()))
    assert [row["policy"] for row in rows] == ["base"] * half + ["trained"] * half
    assert [row["sample_id"] for row in rows[:half]] == [row["sample_id"] for row in rows[half:]]
    assert len({row["probe"] for row in rows}) == half
    assert all(row["images"] for row in rows[:half])
    assert not any(row["images"] for row in rows[half:])
    assert all(row["token_gains_gold"] and row["token_gains_answer"] for row in rows)
    assert all((row["noised_text"] is None) == (row["question_kind"] == "open") for row in rows)


def test_only_the_probes_that_are_named_are_asked() -> None:
    settings = EvaluationConfig.model_validate(
        SETTINGS.model_dump() | {"probes": ["caption", "neutral"], "per_probe": 0}
    )
    asked = evaluate(new_store(), Log(), settings)
    assert {row["probe"] for row in asked.rows()} == {"caption", "neutral"}
    assert asked.count() == 2 * 2 * 4, "two policies, all four questions of both"
    with pytest.raises(DataError, match=r"belongs to nowhere.*evaluation.probes.*caption"):
        evaluate(new_store(), Log(), settings.model_copy(update={"probes": ["neutral", "nowhere"]}))
    assert "probes" not in SETTINGS.identity()


def test_summary_is_that_of_the_rows(whole: ArtifactReader) -> None:
    summary: dict[str, Any] = whole.json("summary.json")
    again = summarize(whole.rows(), bootstrap=100)
    assert {key: summary[key] for key in ("policies", "differences", "metrics")} == {
        key: again[key] for key in ("policies", "differences", "metrics")
    }
    assert summary["about"] | again["about"] == summary["about"]
    assert (summary["about"]["split"], summary["about"]["blind"]) == ("eval", "mask")
    promised = {
        "prior_conflict_accuracy", "prior_conflict_seen_accuracy", "prior_consistent_accuracy", "neutral_accuracy",
        "existence_accuracy", "chair_i", "caption_recall", "blind_gap",
    }  # fmt: skip
    assert all(promised <= set(entries) for entries in summary_for(summary).values())


def test_gains_by_position_are_of_all_policies(whole: ArtifactReader) -> None:
    curves = whole.json("gains.json")
    assert curves == gain_curves(whole.rows())
    assert curves["trained"]["gold"][0]["n"] == len(list(probe_names()))


def test_killed_stage_resumes_to_the_same_content_with_another_part_size(whole: ArtifactReader) -> None:
    store, log = new_store(), Log()
    other = SETTINGS.model_copy(update={"part_rows": 24})
    with pytest.raises(KeyboardInterrupt):
        evaluate(store, Log(die_after=16))
    resumed = evaluate(store, log)
    assert resumed.manifest.content == whole.manifest.content
    # The base's two parts were done when the stage was killed in the third.
    assert log.done == log.older == len(list(probe_names()))
    assert evaluate(new_store(), Log(), other).manifest.content == whole.manifest.content


def test_few_questions_are_looked_at_and_their_partners_images_come_along() -> None:
    store = new_store()
    config = SAMPLES.model_copy(update={"demo_eval": 8})
    questions = store.reader(execute(store, plan(store, STAGES["samples"], config, {}), Log())).where("split", ["eval"])
    balance = choose_balance(questions, SETTINGS.model_copy(update={"balance": 3}))
    chosen = [row for row in questions.rows() if row["sample_id"] in balance.partners]
    assert {probe_of(row) for row in questions.rows()} == {probe_of(row) for row in chosen}
    assert all(sum(probe_of(row) == probe for row in chosen) <= 3 for probe in map(probe_of, chosen))
    partners = {partner for partner in balance.partners.values() if partner}
    assert partners == set(balance.images) <= set(balance.partners)
    assert all(balance.images[row["sample_id"]] == row["images"] for row in chosen if row["sample_id"] in partners)
    assert choose_balance(questions, SETTINGS.model_copy(update={"balance": 0})) == Balance()


def test_empty_split_is_refused_before_a_model_is_loaded() -> None:
    store = new_store()
    config = SAMPLES.model_copy(update={"demo_dev": 0})
    samples = execute(store, plan(store, STAGES["samples"], config, {}), Log())
    settings = SETTINGS.model_copy(update={"split": "dev"})
    planned = plan(store, STAGES["evaluation"], settings, {"samples": samples}, {"base": import_policy(POLICY)}, POLICY)
    with pytest.raises(DataError, match="no sample is in the dev split"):
        execute(store, planned, Log())
