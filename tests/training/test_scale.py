"""What makes a model fit: partitioned weights, the host's memory, layers made anew, half precision. Same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mbpo_core.config import PolicyConfig, TrainingConfig
from mbpo_core.models.groups import PromptGroup
from mbpo_core.models.policy import Policy, load_policy
from mbpo_core.models.resolve import resolve_model
from mbpo_core.objectives.passes import CHOSEN, REJECTED
from mbpo_core.training.checkpoint import TrainState, _read, carry_over, restore, save_checkpoint
from mbpo_core.training.engine import TrainingEngine
from mbpo_core.training.job import JobRows
from mbpo_core.training.looks import Look
from mbpo_core.training.rows import ListTable
from mbpo_core.training.scorer import Scorer
from mbpo_core.training.world import join_world
from tests.models.tiny import TINY
from tests.training.conftest import Recorder, Trained, trained, weights
from tests.training.rows import POLICY, job
from tests.training.test_accumulation import UNCLIPPED, apart, moments
from tests.training.test_resume import assert_equal
from tests.training.test_worker import launch, node_folder

__all__ = ["node_folder"]  # used by every test here

QUICK = ("gemma3", "qwen2_5_vl")
"""Of `make test`: a vocabulary projection tied to the embeddings, and one of its own."""


@pytest.fixture(scope="module")
def partitioned(rows: JobRows, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A round under ZeRO-3."""
    return trained(job(tmp_path_factory.mktemp("zero3"), zero_stage=3), rows)


def engine_of(stage: int, **settings: Any) -> tuple[TrainingEngine, Policy]:
    policy = load_policy(resolve_model(POLICY), POLICY)
    config = job(Path(), zero_stage=stage, **settings).config
    return TrainingEngine(policy, config, join_world(policy.device)), policy


def loaded(folder: Path, config: PolicyConfig = POLICY) -> dict[str, torch.Tensor]:
    """A folder's weights under the names that modules have."""
    return {name: p.detach() for name, p in load_policy(folder, config).model.named_parameters()}


def test_partitioned_weights_are_those_of_the_file() -> None:
    """Three known bugs of other stacks train on random weights here, and say nothing."""
    engine, policy = engine_of(3, freeze="none")
    try:
        held = sum(p.numel() for p in policy.model.parameters())
        assert held < 0.1 * engine.count, "only small parameters are whole between the passes"
        file = loaded(resolve_model(POLICY))
        for name, value in engine.weights():
            assert torch.equal(value, file[name]), name
        with engine.whole():
            assert_equal({name: p.data for name, p in policy.model.named_parameters()}, file)
    finally:
        engine.close()


def test_partitioned_training_publishes_a_whole_checkpoint(partitioned: Trained, plain: Trained) -> None:
    assert {n: t.shape for n, t in partitioned.weights.items()} == {n: t.shape for n, t in plain.weights.items()}
    assert apart(moments(partitioned), moments(plain)) < 1e-3
    base = weights(Path(plain.job.policy))
    assert {n for n in base if torch.equal(base[n], partitioned.weights[n])} == {
        n for n in base if torch.equal(base[n], plain.weights[n])
    }
    published = loaded(partitioned.job.result / "checkpoint")
    trained_ones = dict(_read(partitioned.job.result / "state", "weights"))
    assert all(torch.equal(value, published[name]) for name, value in trained_ones.items())
    assert partitioned.summary["parameters"] == plain.summary["parameters"]


def test_what_deepspeed_replaces_is_put_back(partitioned: Trained) -> None:
    assert torch.nn.functional.linear.__module__ != "deepspeed.runtime.zero.linear"


@pytest.mark.parametrize(
    "settings",
    [
        {"zero_stage": 2, "offload": "optimizer"},
        {"zero_stage": 3, "offload": "all"},
        {"zero_stage": 2, "gradient_checkpointing": True},
        pytest.param({"zero_stage": 1, "offload": "optimizer"}, marks=pytest.mark.slow),
        pytest.param({"zero_stage": 3, "offload": "optimizer"}, marks=pytest.mark.slow),
        pytest.param({"zero_stage": 3, "gradient_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param({"zero_stage": 2, "gradient_checkpointing": True, "freeze": "none"}, marks=pytest.mark.slow),
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_how_it_is_held_changes_no_number(
    rows: JobRows, plain: Trained, partitioned: Trained, tmp_path: Path, settings: dict[str, Any]
) -> None:
    same = trained(job(tmp_path / "same", freeze="none"), rows) if "freeze" in settings else plain
    other = partitioned if settings["zero_stage"] == 3 else same
    result = trained(job(tmp_path / "work", **settings), rows)
    assert apart(moments(result), moments(other)) < 1e-4
    for ours, theirs in zip(result.state.rows, other.state.rows, strict=True):
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-5)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4, abs=1e-6)


@pytest.fixture
def look(demo_policy: Policy, demo_images: list[Any]) -> Look:
    answers = [demo_policy.encode_completion(text) for text in ("the cube is red", "it is blue")]
    group = PromptGroup(demo_policy.prepare("what color is the cube?", [demo_images[0]]), answers)
    return Look((CHOSEN, REJECTED), [group], None, True)


def test_checkpointed_layers_run_a_second_time_on_packed_rows(look: Look) -> None:
    """And give the gradients that layers give which keep everything."""
    gradients = []
    for checkpointed in (False, True):
        policy = load_policy(resolve_model(POLICY), POLICY.model_copy(update={"group_packing": "packed"}))
        config = job(Path(), gradient_checkpointing=checkpointed, max_grad_norm=UNCLIPPED).config
        engine = TrainingEngine(policy, config, join_world(policy.device))
        runs, layer = [0], policy.family.language_model(policy.model).layers[0]
        layer.self_attn.register_forward_hook(lambda *_, runs=runs: runs.__setitem__(0, runs[0] + 1))
        (scored,) = engine.score([look], 1.0)
        before = runs[0]
        engine.backward(scored.logprobs.sum())
        assert runs[0] - before == int(checkpointed)
        engine.step(1e-4)
        gradients.append(dict(engine.moments("exp_avg")))
        engine.close()
    assert apart(gradients[1], gradients[0]) < 1e-6


@pytest.mark.parametrize(
    "model_type", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(TINY)]
)
def test_every_family_trains_partitioned_and_checkpointed(
    model_type: str, tmp_path: Path, demo_images: list[Any]
) -> None:
    """Vocabulary projection tied to the embeddings or not, parameters that no module reads in its forward pass."""
    family_folder, gradients = TINY[model_type](tmp_path / "model"), []
    for settings in ({"zero_stage": 0}, {"zero_stage": 3, "gradient_checkpointing": True}):
        policy = load_policy(family_folder, PolicyConfig(device="cpu", logits_mib=0.001))
        config = job(Path(), freeze="none", max_grad_norm=UNCLIPPED, **settings).config
        answers = [policy.encode_completion(text) for text in ("red", "blue cube")]
        group = PromptGroup(policy.prepare("what color is the cube?", demo_images[:1]), answers)
        engine = TrainingEngine(policy, config, join_world(policy.device))
        for _ in range(2):  # the second step goes by what the first one saw
            (scored,) = engine.score([Look((CHOSEN, REJECTED), [group], None, True)], 1.0)
            engine.backward(scored.logprobs.mean())
            engine.step(1e-9)
        gradients.append(dict(engine.moments("exp_avg")))
        engine.close()
    assert apart(gradients[1], gradients[0]) < 1e-5


@pytest.mark.parametrize(
    ("stage", "settings"), [(2, {}), (3, {}), (3, {"offload": "all", "lora_rank": 2})], ids=["2", "3", "3-all-lora"]
)
def test_half_precision_keeps_float32_weights(
    rows: JobRows, tmp_path: Path, stage: int, settings: dict[str, Any]
) -> None:
    half = job(tmp_path, zero_stage=stage, learning_rate=1e-5, use_online=False, **settings)
    half = half.model_copy(update={"policy_config": POLICY.model_copy(update={"dtype": "bfloat16"})})
    result = trained(half, JobRows(ListTable(rows.pairs.slice(0, 2, columns=_PAIR))))
    assert {tensor.dtype for tensor in result.weights.values()} == {torch.bfloat16}
    masters = dict(_read(result.job.result / "state", "weights"))
    assert {tensor.dtype for tensor in masters.values()} == {torch.float32}
    assert any(not torch.equal(value.bfloat16().float(), value) for value in masters.values())
    if not settings:
        published = loaded(result.job.result / "checkpoint", half.policy_config)
        assert all(torch.equal(value.bfloat16(), published[name]) for name, value in masters.items())


_PAIR = ("sample_id", "images", "prompt", "chosen", "rejected")


@pytest.fixture(scope="module")
def saved(rows: JobRows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two steps under ZeRO-2."""
    work = job(tmp_path_factory.mktemp("saved"), rounds=2)
    trained(work, rows)
    return work.result


@pytest.mark.parametrize("stage", [0, 1, 3])
@pytest.mark.parametrize("how", [restore, carry_over])
def test_another_stage_reads_the_checkpoint(saved: Path, how: Any, stage: int, tmp_path: Path) -> None:
    """Bit by bit, so that no stage needs DeepSpeed's universal checkpoint."""
    policy = load_policy(saved / "checkpoint", POLICY)
    engine = TrainingEngine(policy, job(Path(), zero_stage=stage).config, join_world(policy.device))
    try:
        state = how(saved / "state", engine)
        assert state.optimizer_steps == 2
        again = save_checkpoint(tmp_path, engine, TrainState(batches_done=1))
        for key in ("weights", "exp_avg", "exp_avg_sq"):
            assert_equal(dict(_read(again, key)), dict(_read(saved / "state", key)))
        with engine.whole():
            file = loaded(saved / "checkpoint")
            assert_equal({name: p.data for name, p in policy.model.named_parameters()}, file)
    finally:
        engine.close()


@pytest.mark.slow
def test_a_round_goes_on_in_two_processes_and_then_in_one(rows: JobRows, tmp_path: Path) -> None:
    """Killed twice, under ZeRO-3; it ends where an uninterrupted one does, but for the order of sums."""
    settings = {"pairs_per_step": 2, "groups_per_step": 2, "epochs": 3, "zero_stage": 3, "warmup_steps": 10}
    whole = trained(job(tmp_path / "whole", **settings), rows)
    torn = job(tmp_path / "torn", **settings).model_copy(update={"kept": str(tmp_path / "kept")})
    with pytest.raises(KeyboardInterrupt):
        trained(torn, rows, Recorder(interrupt_at=2))
    with pytest.raises(KeyboardInterrupt):
        launch(torn, rows, Recorder(interrupt_at=2))
    progress = Recorder()
    again = trained(torn, rows, progress)
    assert 0 < len(progress.figures) <= 4, "neither attempt was in vain"
    # One of two processes has all pairs and the other all rollouts: the passes that the lone one made.
    assert len(list((tmp_path / "kept").rglob("*.parquet"))) == 1, "the reference was asked once"
    assert len(again.state.rows) == len(whole.state.rows) == 6
    assert apart(moments(again), moments(whole)) < 1e-3
    for ours, theirs in zip(again.state.rows, whole.state.rows, strict=True):
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-3)


@pytest.mark.parametrize(("offload", "stage"), [("optimizer", 0), ("all", 2)])
def test_offload_that_a_stage_cannot_do_is_refused(offload: Any, stage: Any) -> None:
    with pytest.raises(ValueError, match=rf"offload {offload} needs zero_stage [13] or more, and it is {stage}"):
        TrainingConfig(offload=offload, zero_stage=stage)


def test_a_blank_picture_stands_where_another_process_may_have_one(
    family_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every family: the tower runs, it gets a gradient of zero, and no number changes."""
    policy = load_policy(family_folder, PolicyConfig(device="cpu"))
    policy.unfreeze("none")
    answers = [policy.encode_completion(text) for text in ("red", "blue cube")]
    look = Look((CHOSEN, REJECTED), [PromptGroup(policy.prepare("what color?", []), answers)], None, True)
    (alone,), (shared,) = Scorer(policy)([look]), Scorer(policy, in_step=True)([look])
    assert torch.equal(alone.logprobs, shared.logprobs)
    shared.logprobs.sum().backward()
    parts = {policy.family.part_of(name): [] for name, _ in policy.model.named_parameters()}  # type: ignore[var-annotated]
    for name, parameter in policy.model.named_parameters():
        parts[policy.family.part_of(name)].append(parameter.grad)
    assert all(grad is not None and not grad.any() for grad in parts["projector"])
    assert any(grad is not None for grad in parts["vision"])
    assert any(grad is not None and grad.any() for grad in parts["language"])
