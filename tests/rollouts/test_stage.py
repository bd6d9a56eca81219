"""Sampling groups from the demo checkpoint, through a real store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mbpo_core.config import PolicyConfig, RolloutsConfig
from mbpo_core.demo.pools import DemoCounts, demo_samples
from mbpo_core.errors import ConfigError, DataError
from mbpo_core.execution import execute, plan
from mbpo_core.generation.generate import Generated
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.images import open_image
from mbpo_core.models.policy import Policy
from mbpo_core.models.resolve import resolve_model
from mbpo_core.models.scoring import group_logprobs
from mbpo_core.progress import NullProgress
from mbpo_core.records import CLOSED_KINDS, Image, RolloutGroup, Sample
from mbpo_core.rollouts.collecting import Collector, Opened
from mbpo_core.rollouts.engines import opening
from mbpo_core.rollouts.rewarding import reward
from mbpo_core.stage import ArtifactRef, PolicyRef
from mbpo_core.stages import STAGES
from mbpo_core.store.core import Store
from mbpo_core.store.reader import ArtifactReader
from mbpo_core.verifiers import mathematics
from mbpo_core.verifiers.registry import find, verify
from tests.samples.helpers import commit_rows

POLICY = PolicyConfig(model="demo:absolute", device="cpu")
REFERENCE = PolicyRef(folder=str(resolve_model(POLICY)), digest="digest-of-the-demo")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """30 online questions (one of each sort of trouble among them) and 10 rows that are not to be asked."""
    none = {"eval_probe": 0, "eval_small_probe": 0, "dev_probe": 0, "dev_small_probe": 0}
    rows = list(demo_samples("uniform", 1, DemoCounts(offline=10, online=30, **none)))
    open_ones = [i for i, row in enumerate(rows) if row.kind == "open"]
    assert open_ones
    rows[open_ones[0]] = rows[open_ones[0]].model_copy(update={"split": "online"})  # open: not asked either
    rows[12] = rows[12].model_copy(update={"images": [Image(bytes=b"no picture")]})
    rows[17] = rows[17].model_copy(update={"kind": "numeric", "answer": "many"})
    rows[25] = rows[25].model_copy(update={"question": "word " * 3000})
    return rows


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("rollouts"))


@pytest.fixture(scope="module")
def given(store: Store, samples: list[Sample]) -> ArtifactRef:
    return commit_rows(store, "samples", samples)


WARM = 1.5  # the base is too sure of itself at 1.0 for its completions to differ


def collect(
    store: Store, given: ArtifactRef, *, seed: int = 0, round_index: int = 0, **settings: Any
) -> ArtifactReader:
    config = RolloutsConfig(
        **{"temperature": WARM, "prompts": 12, "group_size": 4, "batch_size": 6, "max_dropped_share": 0.5, **settings}
    )
    planned = plan(
        store, STAGES["rollouts"], config, {"samples": given}, {"policy": REFERENCE}, POLICY,
        seed=seed, round_index=round_index, rounds=3,
    )  # fmt: skip
    return store.reader(execute(store, planned, NullProgress()))


@pytest.fixture(scope="module")
def rounds(store: Store, given: ArtifactRef) -> list[ArtifactReader]:
    return [collect(store, given, round_index=r) for r in range(3)]


def groups(reader: ArtifactReader) -> list[RolloutGroup]:
    return [RolloutGroup.model_validate(row) for row in reader.rows()]


def asked(reader: ArtifactReader) -> list[str]:
    return [row["sample_id"] for row in reader.rows()] + [row["sample_id"] for row in reader.rows("dropped")]


def test_rounds_ask_every_online_question_once_and_go_on(rounds: list[ArtifactReader], samples: list[Sample]) -> None:
    online = {s.sample_id for s in samples if s.split == "online" and s.kind in CLOSED_KINDS}
    assert len(online) == 30
    first, second, third = (set(asked(reader)) for reader in rounds)
    assert [len(asked(reader)) for reader in rounds] == [12, 12, 12]
    assert not first & second
    assert first | second | third == online
    assert len(third - first - second) == 6  # the rest of the pass, then again from the start
    reasons = {row["sample_id"]: row["reason"] for reader in rounds for row in reader.rows("dropped")}
    assert reasons == {
        samples[12].sample_id: "unreadable_image",
        samples[17].sample_id: "unverifiable",
        samples[25].sample_id: "prompt_too_long",
    }


def test_a_group_carries_its_prompt_and_all_that_training_needs(
    rounds: list[ArtifactReader], samples: list[Sample]
) -> None:
    by_id = {sample.sample_id: sample for sample in samples}
    for r, reader in enumerate(rounds):
        for group in groups(reader):
            sample = by_id[group.sample_id]
            assert (group.question_kind, group.answer_form, group.choices) == (
                sample.kind,
                sample.answer_form,
                sample.choices,
            )
            assert [part.type for part in group.prompt[0].content] == ["image", "text"]
            assert group.prompt[0].content[1].text == sample.question
            assert group.images == sample.images
            assert (group.policy_digest, group.round_index, group.temperature) == ("digest-of-the-demo", r, WARM)
            assert (group.answer, group.verifier, group.meta) == (sample.answer, find(sample.kind).label, sample.meta)
            assert len(group.completions) == 4
            for one in group.completions:
                assert len(one.token_ids) == len(one.logprobs) <= 24
                assert max(one.logprobs) <= 0
                judgement = verify(sample.kind, one.text, sample.answer, sample.choices)
                assert (one.verdict, one.extracted) == (judgement.verdict, judgement.extracted)
                assert one.accuracy_reward == float(judgement.verdict == "correct")
                assert one.format_reward in (0.0, 0.2)
                assert one.reward == one.accuracy_reward + one.format_reward
            assert group.zero_variance == (len({one.reward for one in group.completions}) == 1)
    everything = [group for reader in rounds for group in groups(reader)]
    assert {group.zero_variance for group in everything} == {True, False}


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_log_probs_are_those_of_the_sampling_distribution(
    demo_policy: Policy, samples: list[Sample], temperature: float
) -> None:
    """Teacher forcing at the sampling temperature gives back what was recorded: the ratio starts at 1."""
    config = RolloutsConfig(group_size=3, temperature=temperature, max_new_tokens=12)
    chosen = samples[30:34]
    collector = Collector(demo_policy, "d", config, 0, 0)
    opened = collector.open_batch(chosen)
    collected = collector.collect(opened)
    assert not opened.dropped
    scored = group_logprobs(
        demo_policy,
        [
            PromptGroup(
                demo_policy.prepare(g.prompt, [open_image(i) for i in g.images]), [c.token_ids for c in g.completions]
            )
            for g in collected
        ],
        temperature=temperature,
    )
    for group, logprobs in zip(collected, scored, strict=True):
        for one, again in zip(group.completions, logprobs, strict=True):
            assert torch.allclose(torch.tensor(one.logprobs), again, atol=1e-4)


def test_seeds_belong_to_prompt_and_round(demo_policy: Policy, samples: list[Sample]) -> None:
    config = RolloutsConfig(group_size=6, temperature=2.0)
    chosen = samples[30:36]

    def texts(batch: list[Sample], seed: int = 0, round_index: int = 0) -> dict[str, list[list[int]]]:
        collector = Collector(demo_policy, "d", config, seed, round_index)
        collected = collector.collect(collector.open_batch(batch))
        return {group.sample_id: [one.token_ids for one in group.completions] for group in collected}

    first = texts(chosen)
    assert texts(chosen[::-1]) == first  # neither order nor batch matter
    assert texts(chosen[:2]) == {s.sample_id: first[s.sample_id] for s in chosen[:2]}
    assert texts(chosen, seed=1) != first
    assert texts(chosen, round_index=1) != first
    assert len({str(group) for group in first.values()}) > 1
    assert any(len({str(one) for one in group}) > 1 for group in first.values())


def test_part_size_is_an_execution_knob_and_a_broken_stage_goes_on(
    rounds: list[ArtifactReader], samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    given = commit_rows(store, "samples", samples)
    calls: list[int] = []
    real = Collector.collect

    def breaks(self: Collector, batch: Opened) -> Any:
        calls.append(len(batch.samples) + len(batch.dropped))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(Collector, "collect", breaks)
    with pytest.raises(KeyboardInterrupt):
        collect(store, given, part_rows=6)
    resumed = collect(store, given, part_rows=6)
    assert calls == [6, 6, 6]  # the first part was not made again
    assert resumed.ref.content == rounds[0].ref.content


def test_more_prompts_than_there_are_asks_all_once(store: Store, given: ArtifactRef) -> None:
    reader = collect(store, given, prompts=1000, group_size=2, max_new_tokens=4)
    assert len(asked(reader)) == len(set(asked(reader))) == 30
    cut = [one for group in groups(reader) for one in group.completions if one.finish_reason == "length"]
    assert cut
    assert all(one.format_reward == 0.0 for one in cut)


def test_nothing_to_ask_is_said_before_a_model_is_loaded(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    rows = [s for s in samples if s.split == "offline" or s.kind == "open"]
    monkeypatch.setattr(opening, "load_policy", lambda *arguments: pytest.fail("a model was loaded"))
    with pytest.raises(
        DataError, match=r"no question to ask online.*yes_no, multiple_choice.*Raise samples.online_share"
    ):
        collect(store, commit_rows(store, "samples", rows))


def test_a_missing_extra_is_said_before_a_model_is_loaded(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    asked = samples[30].model_copy(update={"kind": "math", "answer": "$\\frac{1}{2}$", "answer_form": "free"})
    monkeypatch.setattr(mathematics, "find_spec", lambda name: None)
    monkeypatch.setattr(opening, "load_policy", lambda *arguments: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match=r"math-verify.*mbpo\[math\]"):
        collect(store, commit_rows(store, "samples", [asked]))


@pytest.mark.parametrize(
    ("columns", "text", "accuracy", "form"),
    [
        ({"kind": "box", "answer": "[0, 0, 4, 4]", "answer_form": "corners"}, "[0, 0, 4, 3]", 1.0, 0.2),
        ({"kind": "box", "answer": "[0, 0, 4, 4]", "answer_form": "corners"}, "At [0, 0, 4, 3].", 1.0, 0.0),
        ({"kind": "box", "answer": "[0, 0, 4, 4]", "meta": '{"box_iou": 0.8}'}, "[0, 0, 4, 3]", 0.0, 0.2),
        ({"kind": "math", "answer": "\\boxed{0.5}", "answer_form": "boxed"}, "So \\boxed{\\frac12}", 1.0, 0.2),
        ({"kind": "math", "answer": "\\boxed{0.5}", "answer_form": "boxed"}, "So $\\frac12$", 1.0, 0.0),
        ({"kind": "counting", "answer": "2", "answer_form": "number"}, "two dogs", 1.0, 0.0),
        ({"kind": "numeric", "answer": "100", "meta": '{"tolerance": 0.05}'}, "104", 1.0, 0.2),
        ({"kind": "short_text", "answer": "sofa", "meta": '{"aliases": ["couch"]}'}, "couch", 1.0, 0.2),
    ],
)
def test_rewards_of_every_kind(columns: dict[str, Any], text: str, accuracy: float, form: float) -> None:
    plain = {"sample_id": "s", "images": [], "question": "?", "split": "online", "source": "test"}
    completion = reward(Generated([1], [-0.1], "stop", text), Sample(**(plain | columns)), RolloutsConfig())
    assert (completion.accuracy_reward, completion.format_reward) == (accuracy, form)
    assert completion.extracted
    assert completion.reason
