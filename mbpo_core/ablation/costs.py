"""What a trial took: token positions, sampled tokens, attack steps, processor seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from mbpo_core.stage import ArtifactRef
from mbpo_core.stages import STAGES
from mbpo_core.store import Store


@dataclass(frozen=True)
class Cost:
    """What one trial took by itself; what it shares with others is counted in full.

    Attributes:
        steps: optimizer steps.
        train_tokens: token positions run forward and backward, prompts and images included.
        sampled_tokens: tokens of the rollouts.
        attack_passes: gradient steps on images, one forward and backward pass each.
        cpu_seconds: processor seconds by stage.
    """

    steps: float = 0
    train_tokens: float = 0
    sampled_tokens: float = 0
    attack_passes: float = 0
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def mean(cls, several: Sequence[Cost]) -> Cost:
        """The mean over seeds."""
        names = ("steps", "train_tokens", "sampled_tokens", "attack_passes")
        stages = dict.fromkeys(stage for one in several for stage in one.cpu_seconds)
        return cls(
            **{name: fmean(getattr(one, name) for one in several) for name in names},
            cpu_seconds={stage: fmean(one.cpu_seconds.get(stage, 0.0) for one in several) for stage in stages},
        )

    @property
    def total_cpu_seconds(self) -> float:
        """Over all stages."""
        return sum(self.cpu_seconds.values())


def cost_of(store: Store, made: Mapping[str, ArtifactRef]) -> Cost:
    """Read what a trial's artifacts say.

    Args:
        store: where they are.
        made: by run pointer, e.g. "negatives", "training/0".
    """
    steps, train_tokens, sampled, passes = 0, 0, 0, 0
    seconds: dict[str, float] = {}
    for ref in made.values():
        reader = store.reader(ref)
        seconds[ref.stage] = seconds.get(ref.stage, 0.0) + reader.manifest.cpu_seconds
        if ref.stage == "training":
            positions = [row["positions"] for row in reader.rows(columns=["positions"])]
            steps, train_tokens = steps + len(positions), train_tokens + sum(positions)
        elif ref.stage == "rollouts":
            groups = reader.rows(columns=["completions"])
            sampled += sum(len(one["token_ids"]) for group in groups for one in group["completions"])
        elif ref.stage == "negatives":
            passes += reader.json("mining.json")["all"]["steps"]
    ordered = {stage: seconds[stage] for stage in STAGES if stage in seconds}
    return Cost(steps, train_tokens, sampled, passes, ordered)
