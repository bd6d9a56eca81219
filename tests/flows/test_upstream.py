"""What a stage reads in place of the run's latest, and how one stage of a run is asked for. No Prefect server."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from flows import evaluation, negatives, pairs, report, training
from flows.forms import StageForm
from flows.opening import open_stage, planned
from flows.pipeline import follow_method
from flows.upstream import READS, resolve_upstream
from mbpo_core.config import PipelineConfig
from mbpo_core.errors import ConfigError
from mbpo_core.execution import execute
from mbpo_core.stage import ArtifactRef
from mbpo_core.stages import STAGES
from mbpo_core.store import Store
from tasks.run import Run
from tests.flows import fakes


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two runs of fake stages that differ in what was mined, and so in everything after it."""
    fakes.install(monkeypatch)
    monkeypatch.setenv("MBPO_STORE", str(tmp_path / "runs"))
    store = Store(tmp_path / "runs")
    for name, steps in (("one", 3), ("two", 4)):
        config = PipelineConfig.model_validate(
            {"run": name, "method": "mbpo", "rounds": 2, "negatives": {"steps": steps}, "baselines": ["dpo"]}
        )
        run = Run(config, store, perform=execute)
        follow_method(run)
        store.run(name).save_config(config.model_dump(mode="json"))
    return store


def _of(store: Store, key: str, run: str = "two") -> ArtifactRef:
    return store.run(run).pointers()[key]


def test_reads_names_every_stage_and_only_what_stages_read() -> None:
    assert list(READS) == list(STAGES)
    for stage, families in READS.items():
        known = {*STAGES[stage].inputs, *(["training"] if STAGES[stage].uses_policy else [])}
        assert {family.split("/")[0] for family in families} <= known


def test_latest_replaces_nothing(store: Store) -> None:
    for words in ("latest", "", " latest "):
        assert resolve_upstream(store, "pairs", words, "one") == {}


def test_a_prefix_an_uri_and_a_manifest_name_the_same(store: Store) -> None:
    ref = _of(store, "negatives")
    for word in (ref.digest[:12], ref.digest, ref.uri, f"{ref.uri}/manifest.json", f"file://{ref.uri}"):
        assert resolve_upstream(store, "pairs", word, "one") == {"negatives": ref}, word


def test_several_each_replace_their_own_kind(store: Store) -> None:
    refs = [_of(store, "pairs"), _of(store, "training/0")]
    found = resolve_upstream(store, "training", " ".join(ref.digest for ref in refs), "one")
    assert found == {"pairs": refs[0], "training": refs[1]}


def test_everything_wrong_is_said_at_once_with_candidates(store: Store, tmp_path: Path) -> None:
    mine, other = _of(store, "samples", "one"), _of(store, "negatives", "one")
    words = ["ffffffffffff", f"{tmp_path}/elsewhere/manifest.json", mine.digest, "nonsense"]
    words += [f"{store.root}/../outside", other.digest, _of(store, "negatives").digest]
    with pytest.raises(ConfigError) as refused:
        resolve_upstream(store, "pairs", " ".join(words), "one")
    text = str(refused.value)
    assert "6 things are wrong" in text
    assert "no committed artifact 'ffffffffffff'" in text
    assert f"negatives {other.digest[:12]}" in text, "candidates of the run are named"
    assert "elsewhere/manifest.json' lies outside the store" in text
    assert "/../outside' lies outside the store" in text
    assert f"is samples {mine.digest[:12]}, which pairs does not read" in text
    assert "'nonsense' is no digest" in text
    assert "two artifacts of negatives" in text


def test_an_ambiguous_prefix_names_what_it_fits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = _of(store, "negatives", "one"), _of(store, "negatives", "two")
    monkeypatch.setattr("flows.upstream._by_prefix", lambda store, word: [(r.stage, r.digest) for r in (first, second)])
    with pytest.raises(ConfigError) as refused:
        resolve_upstream(store, "pairs", "abcdef", "one")
    listed = f"negatives {first.digest[:12]}, negatives {second.digest[:12]}"
    assert f"'abcdef' is the beginning of 2 digests: {listed}" in str(refused.value)


def test_a_stage_reads_what_was_named_and_only_its_pointer_moves(store: Store) -> None:
    other, before = _of(store, "negatives"), store.run("one").pointers()
    run = open_stage(StageForm("pairs", "one", upstream=other.digest[:10]))
    run.perform = execute
    made = pairs.rerun(run)
    assert store.reader(made).manifest.inputs == {"negatives": other}
    after = store.run("one").pointers()
    assert [key for key in after if after[key] != before[key]] == ["pairs"]


def test_evaluation_asks_the_named_checkpoint_and_the_same_baselines(store: Store) -> None:
    other = _of(store, "training/0")
    run = open_stage(StageForm("evaluation", "one", upstream=other.digest))
    (plan,) = planned(run, evaluation.rerun)
    assert plan.request.policies["trained"].artifact == other
    assert plan.request.policies["dpo"].artifact == _of(store, "training/dpo", "one")


def test_a_report_takes_it_in_place_of_the_pointer_it_was_made_for(store: Store) -> None:
    other = _of(store, "training/1")
    (plan,) = planned(open_stage(StageForm("report", "one", upstream=other.digest)), report.rerun)
    assert plan.request.inputs["training/1"] == other
    assert plan.request.inputs["training/0"] == _of(store, "training/0", "one")


def test_what_nothing_would_read_is_refused(store: Store) -> None:
    """The first round starts from the base model, whatever checkpoint is named."""
    run = open_stage(StageForm("training", "one", upstream=_of(store, "training/0").digest))
    with pytest.raises(ConfigError, match=r"training/0 would not read training/0 [0-9a-f]{12} \(upstream\)"):
        planned(run, partial(training.rerun, round_index=0))


def test_a_stage_form_says_everything_that_is_wrong_at_once(store: Store) -> None:
    form = StageForm(
        "training", "nobody", upstream="ffffffff", changes=["training.bta=1", "pairs.share=0.3", "beta"], round_index=0
    )
    with pytest.raises(ConfigError) as refused:
        open_stage(form)
    text = str(refused.value)
    for words in ("run 'nobody' is not known", "one, two", "training.bta", "pairs.share=0.3", "'beta'", "ffffffff"):
        assert words in text
    with pytest.raises(ConfigError, match=r"there is no round 2 .*expected 0 to 1"):
        open_stage(StageForm("training", "one", round_index=2))


def test_the_form_is_laid_over_what_the_run_has(store: Store) -> None:
    from mbpo_core.config import NegativesConfig

    run = open_stage(StageForm("negatives", "one", settings=NegativesConfig(epsilon=0.05)))
    assert (run.config.negatives.epsilon, run.config.negatives.steps) == (0.05, 3)
    shown_again = StageForm("negatives", "one", settings=NegativesConfig(steps=10), changes=["negatives.steps=10"])
    assert open_stage(shown_again).config.negatives.steps == 10


def test_modes(store: Store) -> None:
    def status(mode: str, *changes: str) -> str:
        form = StageForm("negatives", "one", mode=mode, changes=changes)  # type: ignore[arg-type]
        return planned(open_stage(form), negatives.rerun)[0].status

    assert status("reuse") == status("resume") == "cached"
    assert status("rerun") == "runs"
    assert status("reuse", "negatives.steps=7") == "runs"
    with pytest.raises(ConfigError, match="negatives would begin anew"):
        status("resume", "negatives.steps=7")


def test_a_baseline_without_pairs_is_refused(store: Store) -> None:
    form = StageForm("training", "one", changes=["training.objective=none"])
    run = open_stage(form)
    run.config = run.config.model_copy(update={"baselines": []})
    with pytest.raises(ConfigError, match="no pairs, so it has no baseline dpo"):
        planned(run, partial(training.rerun, round_index=0, target="dpo"))
