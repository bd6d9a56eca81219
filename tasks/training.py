"""training: GRPO on offline pairs and online groups together, or another objective; and baselines on the same pairs."""

from __future__ import annotations

from mbpo_core.config import PolicyConfig, TrainingConfig
from mbpo_core.execution import checkpoint_policy
from mbpo_core.methods import METHODS
from mbpo_core.models.optional import require_peft
from mbpo_core.stage import ArtifactRef, PolicyRef
from mbpo_core.training.monitoring import monitors_of
from tasks.run import Run


def train_policy(
    run: Run,
    policy: PolicyRef,
    reference: PolicyRef,
    pairs: ArtifactRef | None,
    images: ArtifactRef | None,
    rollouts: ArtifactRef | None,
    round_index: int,
) -> PolicyRef:
    """One round: go on from `policy` (optimizer state included), held near `reference`."""
    mined = run.mined("pairs", round_index)
    inputs = {mined: pairs, "negatives": images, "rollouts": rollouts, "previous": policy.artifact}
    if run.config.training.objective == "none":
        inputs[mined] = None  # there for baselines alone
    made = run.stage(
        "training",
        key=f"training/{round_index}",
        inputs={name: ref for name, ref in inputs.items() if ref is not None},
        policies=_policies(run, policy, reference, run.config.training),
        round_index=round_index,
        rounds=run.config.training_rounds,
    )
    return checkpoint_policy(made, run.config.label)


def train_baseline(run: Run, name: str, reference: PolicyRef, pairs: ArtifactRef | None) -> PolicyRef:
    """The same pairs and settings under another method's objective, in one round from the base model."""
    assert pairs is not None  # a config with baselines wants pairs
    settings = TrainingConfig.model_validate(run.config.training.model_dump() | METHODS[name].settings["training"])
    made = run.stage(
        "training",
        key=f"training/{name}",
        settings=settings,
        inputs={"pairs": pairs},
        policies=_policies(run, reference, reference, settings),
    )
    return checkpoint_policy(made, name)


def _policies(run: Run, policy: PolicyRef, reference: PolicyRef, settings: TrainingConfig) -> dict[str, PolicyRef]:
    """The models that a round looks at, by name; a second reference is checked and digested, but not loaded.

    Raises:
        ConfigError: a monitor or the adapters' package cannot be had here; said when the run is planned, before
            anything is made.
    """
    from mbpo_core.models.digest import import_policy

    monitors_of(settings)
    if settings.lora_rank:
        require_peft()
    found = {"policy": policy, "reference": reference}
    if settings.objective == "mrpo":
        other = import_policy(PolicyConfig(**run.config.policy.model_dump() | {"model": settings.second_reference}))
        found["second_reference"] = other.model_copy(update={"label": "second_reference"})
    return found
