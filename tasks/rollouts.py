"""rollouts: answers sampled from the round's policy, with verified rewards."""

from __future__ import annotations

from mbpo_core.stage import ArtifactRef, PolicyRef
from tasks.run import Run


def collect_rollouts(run: Run, samples: ArtifactRef, policy: PolicyRef, round_index: int) -> ArtifactRef | None:
    """G answers to each closed-ended question of this round; None when training uses no online groups."""
    if not run.config.training.use_online:
        return None
    return run.stage(
        "rollouts",
        key=f"rollouts/{round_index}",
        inputs={"samples": samples},
        policies={"policy": policy},
        round_index=round_index,
        rounds=run.config.rounds,
    )
