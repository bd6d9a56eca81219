"""rollouts: answers sampled from the round's policy, with verified rewards."""

from __future__ import annotations

from mbpo_core.stage import ArtifactRef, PolicyRef
from tasks.run import Run


def collect_rollouts(
    run: Run, samples: ArtifactRef, policy: PolicyRef, before: ArtifactRef | None, round_index: int
) -> ArtifactRef | None:
    """G answers to each closed-ended question of this round; None when training uses no online groups.

    What was learned of the prompts' difficulty goes on from the round `before`, where prompts are picked by it.
    """
    if not run.config.training.use_online:
        return None
    inputs = {"samples": samples}
    if before is not None and run.config.rollouts.select == "mopps":
        inputs["rollouts"] = before
    return run.stage(
        "rollouts",
        key=f"rollouts/{round_index}",
        inputs=inputs,
        policies={"policy": policy},
        round_index=round_index,
        rounds=run.config.training_rounds,
    )
