"""Scoring and choosing pairs with the demo checkpoint, through a real store."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from mbpo_core.config import PairsConfig, PolicyConfig
from mbpo_core.demo.objects import COLORS
from mbpo_core.errors import DataError
from mbpo_core.execution import execute, plan
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.models.resolve import resolve_model
from mbpo_core.pairs import scoring, stage
from mbpo_core.progress import LogProgress, NullProgress
from mbpo_core.records import Image, Negative, PreferencePair, Sample
from mbpo_core.stage import ArtifactRef, PolicyRef, Progress
from mbpo_core.stages import STAGES
from mbpo_core.store.core import Store
from mbpo_core.store.reader import ArtifactReader
from tests.samples.helpers import commit_rows

POLICY = PolicyConfig(model="demo:absolute", device="cpu")


def negative(sample: Sample, rejected: str | None, **changes: Any) -> Negative:
    """A negative as the miner would write it, with a made-up rejected response."""
    row = Negative(
        sample_id=sample.sample_id, images=sample.images, rejected_images=sample.images, question=sample.question,
        question_kind=sample.kind, answer_form=sample.answer_form, kind="adversarial", chosen=sample.answer,
        rejected=rejected, clean_answer=sample.answer, clean_correct=True, attacked_answer=rejected or "",
        blind_answer="", flipped=True, flipped_unrounded=True, logprob_clean=0.0, logprob_attacked=-1.0,
        logprob_rounded=-1.0, epsilon=0.03, perturbation_linf=0.03, attack="{}", decode="{}", meta=sample.meta,
    )  # fmt: skip
    return row.model_copy(update=changes)


def other(answer: str) -> str:
    """The answer with something else in it: another colour, number, letter or side."""
    swaps = dict(zip(COLORS, [*list(COLORS)[1:], next(iter(COLORS))], strict=True))
    swaps |= {"Yes": "No", "No": "Yes", "1": "2", "2": "3", "3": "1", "A": "B", "B": "C", "C": "D", "D": "A"}
    swaps |= {"left": "right", "right": "left", "top": "bottom", "bottom": "top", "4": "1"}
    words = [word.rstrip(".,") for word in answer.split()]
    word = next(word for word in words if word in swaps)
    return answer.replace(word, swaps[word], 1)


@pytest.fixture(scope="module")
def negatives(offline_samples: list[Sample]) -> list[Negative]:
    """22 usable rows, one without a rejected response, one whose picture is broken."""
    rows = [negative(sample, other(sample.answer)) for sample in offline_samples]
    rows[5] = rows[5].model_copy(update={"rejected": None, "rejected_images": []})
    rows[9] = rows[9].model_copy(update={"images": [Image(bytes=b"no picture")]})
    return rows


@pytest.fixture(scope="module")
def reference() -> PolicyRef:
    return PolicyRef(folder=str(resolve_model(POLICY)), digest="demo")


MIN_GAIN = 0.2  # nats; some of the rows gain less


def build(
    store: Store,
    given: ArtifactRef,
    reference: PolicyRef,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> ArtifactReader:
    config = PairsConfig(
        **{"min_gain": MIN_GAIN, "max_dropped_share": 0.5, "text_leaning": False, "plausible": False, **settings}
    )
    planned = plan(store, STAGES["pairs"], config, {"negatives": given}, {"policy": reference}, POLICY, seed=seed)
    return store.reader(execute(store, planned, progress or NullProgress()))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def given(store: Store, negatives: list[Negative]) -> ArtifactRef:
    return commit_rows(store, "negatives", negatives)


@pytest.fixture(scope="module")
def built(store: Store, given: ArtifactRef, reference: PolicyRef) -> ArtifactReader:
    return build(store, given, reference, batch_size=8)


def test_every_negative_ends_in_exactly_one_place(built: ArtifactReader, negatives: list[Negative]) -> None:
    kept = [row["sample_id"] for row in built.rows(columns=["sample_id"])]
    letters = list(built.rows("dropped"))
    assert sorted(kept + [letter["sample_id"] for letter in letters]) == sorted(n.sample_id for n in negatives)
    order = [n.sample_id for n in negatives]
    assert kept == [name for name in order if name in set(kept)]
    scored = [row["sample_id"] for row in built.rows("scored", ["sample_id"])]
    assert scored == [name for i, name in enumerate(order) if i not in (5, 9)]
    reasons = {letter["sample_id"]: letter["reason"] for letter in letters}
    assert (reasons[order[5]], reasons[order[9]]) == ("no_rejected", "unreadable_image")
    assert built.manifest.dropped == Counter(reasons.values())
    assert set(reasons.values()) == {"no_rejected", "unreadable_image", "low_gain", "outside_share"}
    for letter in letters:
        assert "images" not in json.loads(letter["row"])
        assert json.loads(letter["row"])["sample_id"] == letter["sample_id"]


def test_half_of_what_passes_is_kept_within_each_kind(built: ArtifactReader) -> None:
    rows = [PreferencePair.model_validate(row) for row in built.rows("scored")]
    kept = {row["sample_id"] for row in built.rows(columns=["sample_id"])}
    for kind in {row.question_kind for row in rows}:
        passed = sorted(
            (r for r in rows if r.question_kind == kind and r.gain_chosen > MIN_GAIN), key=lambda r: -r.gain_chosen
        )
        expected = {row.sample_id for row in passed[: (len(passed) + 1) // 2]}
        assert kept & {row.sample_id for row in rows if row.question_kind == kind} == expected


def scored(policy: Policy, rows: list[Negative], blind: Any) -> list[PreferencePair]:
    """All rows, opened and scored as one batch."""
    opened = scoring.open_batch(policy, rows)
    assert not opened.dropped
    return scoring.score(policy, opened, blind)


def plain_logprobs(policy: Policy, row: Negative, text: str, *, blind: bool) -> torch.Tensor:
    """Hugging Face's own forward pass of one row: no packing, no batching, none of our scoring code."""
    prompt = policy.prepare(row.question, [open_image(image) for image in row.images])
    completion = policy.encode_completion(text)
    pixels = torch.stack([image.pixel_values for image in prompt.images])
    with torch.no_grad():
        logits = (
            policy.model(
                input_ids=torch.tensor([prompt.token_ids + completion]),
                pixel_values=torch.zeros_like(pixels) if blind else pixels,
            )
            .logits[0]
            .double()
        )
    logits[:, policy.banned_token_ids] = float("-inf")
    predicted = logits.log_softmax(-1)[len(prompt.token_ids) - 1 : -1]
    return predicted[torch.arange(len(completion)), torch.tensor(completion)]


def test_gains_equal_plain_forward_passes(demo_policy: Policy, negatives: list[Negative]) -> None:
    """Equation (1) of recipe 1.3 by a loop, blind by a mean-colour image (zeros after normalisation)."""
    rows = negatives[:5]
    pairs = scored(demo_policy, rows, "mean")
    for row, pair in zip(rows, pairs, strict=True):
        assert row.rejected is not None
        for text, gain, tokens, logprob, blind_logprob in (
            (row.chosen, pair.gain_chosen, pair.token_gains_chosen, pair.logprob_chosen, pair.blind_logprob_chosen),
            (
                row.rejected,
                pair.gain_rejected,
                pair.token_gains_rejected,
                pair.logprob_rejected,
                pair.blind_logprob_rejected,
            ),
        ):
            seeing = plain_logprobs(demo_policy, row, text, blind=False)
            blind = plain_logprobs(demo_policy, row, text, blind=True)
            total = 0.0
            for t in range(len(seeing)):
                total += float(seeing[t] - blind[t])
                assert tokens[t] == pytest.approx(float(seeing[t] - blind[t]), abs=2e-4)
            assert len(tokens) == len(seeing) == len(demo_policy.encode_completion(text))  # EOS counts
            assert gain == pytest.approx(total / len(seeing), abs=1e-4)
            assert logprob == pytest.approx(float(seeing.mean()), abs=1e-4)
            assert blind_logprob == pytest.approx(float(blind.mean()), abs=1e-4)


@pytest.mark.parametrize("blind", ["mask", "mean", "black", "drop"])
def test_columns_agree_with_each_other(demo_policy: Policy, negatives: list[Negative], blind: Any) -> None:
    pairs = scored(demo_policy, negatives[:4], blind)
    for pair in pairs:
        assert pair.blind == blind
        for side in ("chosen", "rejected"):
            gain, tokens = getattr(pair, f"gain_{side}"), getattr(pair, f"token_gains_{side}")
            assert gain == pytest.approx(sum(tokens) / len(tokens), abs=1e-9)
            difference = getattr(pair, f"logprob_{side}") - getattr(pair, f"blind_logprob_{side}")
            assert gain == pytest.approx(difference, abs=1e-9)


def test_a_neutral_objects_color_gains_more_than_a_prior_ones(demo_policy: Policy) -> None:
    """The base reads neutral colours off the image and answers prior objects' canonical colours blind."""
    from mbpo_core.demo.pools import DemoCounts, demo_samples

    none = dict.fromkeys(("eval_probe", "eval_small_probe", "dev_small_probe", "online", "offline"), 0)
    dev = [s for s in demo_samples("uniform", 5, DemoCounts(dev_probe=8, **none)) if s.split == "dev"]
    gains: dict[str, list[float]] = {"neutral": [], "prior_consistent": []}
    chosen = [s for s in dev if json.loads(s.meta)["probe"] in gains]
    pairs = scored(demo_policy, [negative(s, other(s.answer)) for s in chosen], "mask")
    for sample, pair in zip(chosen, pairs, strict=True):
        gains[json.loads(sample.meta)["probe"]].append(pair.gain_chosen)
    assert min(map(len, gains.values())) == 8
    assert sum(gains["neutral"]) > 3 * sum(gains["prior_consistent"])


def test_part_size_and_batch_size_are_execution_knobs(
    store: Store,
    given: ArtifactRef,
    reference: PolicyRef,
    built: ArtifactReader,
    tmp_path: Path,
    negatives: list[Negative],
) -> None:
    fresh = Store(tmp_path)
    again = build(fresh, commit_rows(fresh, "negatives", negatives), reference, batch_size=8, part_rows=8)
    assert again.ref.content == built.ref.content  # bit for bit, in another store and with another part size
    other_store = Store(tmp_path / "other")
    single = build(other_store, commit_rows(other_store, "negatives", negatives), reference, batch_size=3)
    assert [row["sample_id"] for row in single.rows()] == [row["sample_id"] for row in built.rows()]
    for ours, theirs in zip(single.rows("scored"), built.rows("scored"), strict=True):
        assert ours["gain_chosen"] == pytest.approx(theirs["gain_chosen"], abs=1e-4)
        assert ours["token_gains_rejected"] == pytest.approx(theirs["token_gains_rejected"], abs=1e-3)


def test_settings_choose_other_pairs_from_the_same_scores(
    store: Store, given: ArtifactRef, reference: PolicyRef, built: ArtifactReader
) -> None:
    everything = build(store, given, reference, select="all", batch_size=8)
    names = {row["sample_id"] for row in everything.rows()}
    top, bottom = (
        {row["sample_id"] for row in r.rows()}
        for r in (built, build(store, given, reference, select="bottom", batch_size=8))
    )
    assert top | bottom <= names
    assert top != bottom
    strict = build(store, given, reference, min_gain=0.3, select="all", batch_size=8)
    assert {row["sample_id"] for row in strict.rows()} == {
        r["sample_id"] for r in everything.rows() if r["gain_chosen"] > 0.3
    }
    leaning = build(store, given, reference, select="all", batch_size=8, text_leaning=True)
    assert "not_text_leaning" in leaning.manifest.dropped
    plausible = build(store, given, reference, select="all", batch_size=8, plausible=True)
    assert "implausible" in plausible.manifest.dropped
    assert {row["sample_id"] for row in plausible.rows()} == {
        r["sample_id"] for r in everything.rows() if r["logprob_rejected"] > -3
    }


@pytest.mark.parametrize("phase", ["scoring", "selecting"])
def test_a_stage_that_breaks_off_goes_on_where_it_was(
    phase: str,
    reference: PolicyRef,
    built: ArtifactReader,
    tmp_path: Path,
    negatives: list[Negative],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh = Store(tmp_path)
    given = commit_rows(fresh, "negatives", negatives)
    calls = 0
    real = {"scoring": stage.score, "selecting": stage.drop}[phase]

    def breaks(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "score" if phase == "scoring" else "drop", breaks)
        with pytest.raises(KeyboardInterrupt):
            build(fresh, given, reference, batch_size=8, part_rows=8)
    scored = 0
    score = stage.score

    def counts(*arguments: Any) -> Any:
        nonlocal scored
        scored += 1
        return score(*arguments)

    monkeypatch.setattr(stage, "score", counts)
    resumed = build(fresh, given, reference, batch_size=8, part_rows=8)
    assert scored == (1 if phase == "scoring" else 0)
    assert resumed.ref.content == built.ref.content
    assert list(resumed.rows("dropped")) == list(built.rows("dropped"))


def test_progress_tells_the_share_that_is_kept_of_all_parts(
    reference: PolicyRef, tmp_path: Path, negatives: list[Negative]
) -> None:
    lines: list[str] = []
    fresh = Store(tmp_path)
    given = commit_rows(fresh, "negatives", negatives)
    made = build(fresh, given, reference, batch_size=8, part_rows=8, progress=LogProgress(lines.append))
    assert 0 < made.count() < made.count("scored")
    assert lines[-1].endswith(f"kept {made.count() / made.count('scored'):.4g}")


def test_rows_open_in_datasets_as_conversations(
    built: ArtifactReader, negatives: list[Negative], tmp_path: Path
) -> None:
    from datasets import load_dataset

    files = sorted(str(path) for path in Path(built.ref.uri).rglob("part-*.parquet"))
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    row, source = rows[0], next(n for n in negatives if n.sample_id == rows[0]["sample_id"])
    assert row["images"][0].size == (48, 48)
    assert row["prompt"] == [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": source.question}]}
    ]
    assert row["chosen"] == [{"role": "assistant", "content": [{"type": "text", "text": source.chosen}]}]
    assert row["rejected"][0]["content"][0]["text"] == source.rejected


def test_a_text_that_the_model_cannot_take_names_the_sample(demo_policy: Policy, offline_samples: list[Sample]) -> None:
    sample = offline_samples[0]
    with pytest.raises(DataError, match=rf"special token '<image>'.*sample {sample.sample_id}"):
        scoring.open_batch(demo_policy, [negative(sample, "green", question="What is <image>?")])
    with pytest.raises(
        DataError, match=rf"tokens, the model takes \d+ \(sample {sample.sample_id}\). Mine the negatives"
    ):
        scoring.open_batch(demo_policy, [negative(sample, "green " * 3000)])


def test_nothing_left_is_an_error_with_the_reasons(
    store: Store, given: ArtifactRef, reference: PolicyRef, offline_samples: list[Sample]
) -> None:
    with pytest.raises(DataError, match=r"no row is left of 24: low_gain \d+"):
        build(store, given, reference, min_gain=100.0, batch_size=8)
    mute = commit_rows(store, "negatives", [negative(offline_samples[0], None, rejected_images=[])], seed=1)
    with pytest.raises(DataError, match="no row is left of 1: no_rejected 1"):
        build(store, mute, reference, max_dropped_share=1.0)


def test_no_more_than_a_part_is_read_at_once(
    reference: PolicyRef, built: ArtifactReader, tmp_path: Path, negatives: list[Negative], monkeypatch: Any
) -> None:
    asked: list[tuple[str, int, tuple[str, ...] | None]] = []
    real = ArtifactReader.slice

    def watched(self: ArtifactReader, start: int, stop: int, table: str = "part", columns: Any = None) -> Any:
        asked.append((self.ref.stage + "/" + table, stop - start, columns))
        return real(self, start, stop, table, columns)

    fresh = Store(tmp_path)
    given = commit_rows(fresh, "negatives", negatives)
    monkeypatch.setattr(ArtifactReader, "slice", watched)
    again = build(fresh, given, reference, batch_size=8, part_rows=8)
    assert again.ref.content == built.ref.content
    # Scoring reads batches, and selecting parts; ranking in between streams columns without pictures.
    assert [entry[:2] for entry in asked] == [("negatives/part", 8)] * 3 + [("pairs/scored", 8)] * 2 + [
        ("pairs/scored", 6)
    ]


def test_an_error_ahead_leaves_what_was_done(
    reference: PolicyRef, built: ArtifactReader, tmp_path: Path, negatives: list[Negative], monkeypatch: Any
) -> None:
    """The third batch cannot be opened: the first two parts are finished and adopted by the next attempt."""
    fresh = Store(tmp_path)
    given = commit_rows(fresh, "negatives", negatives)
    opened: list[int] = []
    real = stage.open_batch

    def breaks(policy: Policy, rows: list[Negative]) -> Any:
        opened.append(len(rows))
        if len(opened) == 3:
            raise DataError("the third batch is broken")
        return real(policy, rows)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "open_batch", breaks)
        with pytest.raises(DataError, match="third batch"):
            build(fresh, given, reference, batch_size=8, part_rows=8)
    assert opened == [8, 8, 8]
    monkeypatch.setattr(stage, "open_batch", lambda policy, rows: (opened.append(len(rows)), real(policy, rows))[1])
    assert build(fresh, given, reference, batch_size=8, part_rows=8).ref.content == built.ref.content
    assert opened == [8, 8, 8, 8]


def test_working_ahead_changes_no_bit(
    reference: PolicyRef, built: ArtifactReader, tmp_path: Path, negatives: list[Negative], monkeypatch: Any
) -> None:
    monkeypatch.setattr(stage, "ahead", lambda items, load: nullcontext(map(load, items)))
    fresh = Store(tmp_path)
    alone = build(fresh, commit_rows(fresh, "negatives", negatives), reference, batch_size=8)
    assert alone.ref.content == built.ref.content


def test_where_only_the_image_is_dispreferred_the_filters_on_the_response_say_nothing(
    tmp_path: Path, reference: PolicyRef, negatives: list[Negative]
) -> None:
    both = negatives[0]
    alone = both.model_copy(update={"sample_id": "alone", "rejected": None})
    store = Store(tmp_path)
    given = commit_rows(store, "negatives", [both, alone])
    built = build(store, given, reference, min_gain=0.0, select="all", text_leaning=True, plausible=True)
    rows = {row["sample_id"]: row for row in built.rows("scored")}
    pair, single = rows[both.sample_id], rows["alone"]
    assert single["rejected"] == []
    assert single["token_gains_rejected"] == []
    assert single["gain_rejected"] is single["logprob_rejected"] is single["blind_logprob_rejected"] is None
    assert single["gain_chosen"] == pytest.approx(pair["gain_chosen"], abs=1e-4)
    assert single["rejected_images"] == pair["rejected_images"]
    assert "alone" in {row["sample_id"] for row in built.rows()}
