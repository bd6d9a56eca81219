"""training: GRPO on offline pairs and online groups together; and the baselines on the same pairs."""

from __future__ import annotations

from mbpo_core.execution import checkpoint_policy
from mbpo_core.stage import ArtifactRef, PolicyRef
from tasks.run import Run


def train_policy(
    run: Run,
    policy: PolicyRef,
    reference: PolicyRef,
    pairs: ArtifactRef,
    rollouts: ArtifactRef | None,
    round_index: int,
) -> PolicyRef:
    """One round: go on from `policy` (optimizer state included), held near `reference`."""
    inputs = {"pairs": pairs, "rollouts": rollouts, "previous": policy.artifact}
    made = run.stage(
        "training",
        key=f"training/{round_index}",
        inputs={name: ref for name, ref in inputs.items() if ref is not None},
        policies={"policy": policy, "reference": reference},
        round_index=round_index,
        rounds=run.config.rounds,
    )
    return checkpoint_policy(made, "trained")


def train_baseline(run: Run, objective: str, reference: PolicyRef, pairs: ArtifactRef) -> PolicyRef:
    """The same pairs and settings with another objective, in one round from the base model."""
    made = run.stage(
        "training",
        key=f"training/{objective}",
        settings=run.config.training.model_copy(update={"objective": objective}),
        inputs={"pairs": pairs},
        policies={"policy": reference, "reference": reference},
    )
    return checkpoint_policy(made, objective)
