"""One run of the method: its settings, its store, and how a stage of it gets done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mbpo_core.config import BASELINES, PipelineConfig, Section
from mbpo_core.errors import ConfigError, StoreError
from mbpo_core.execution import StagePlan, checkpoint_policy, execute, plan
from mbpo_core.stage import ArtifactRef, PolicyRef
from mbpo_core.store import Store

Perform = Callable[[Store, StagePlan], ArtifactRef]
Mode = Literal["reuse", "resume", "rerun"]


def expect(store: Store, plan: StagePlan) -> ArtifactRef:
    """Make nothing: name the artifact there is, or will be."""
    return plan.expected()


@dataclass(frozen=True)
class Choice:
    """Which stages are done, and how.

    Attributes:
        only: stages to do; the others are taken as the run has them. None does all.
        force: stages to compute even if their artifacts exist.
        mode: reuse takes what exists and goes on from finished parts; resume refuses to begin anew; rerun computes
            everything that is done anew.
        upstream: artifacts to read in place of the run's latest, by stage.
    """

    only: frozenset[str] | None = None
    force: frozenset[str] = frozenset()
    mode: Mode = "reuse"
    upstream: Mapping[str, ArtifactRef] = field(default_factory=dict)

    def does(self, stage: str) -> bool:
        return self.only is None or stage in self.only

    def forces(self, stage: str) -> bool:
        return stage in self.force or self.mode == "rerun"


@dataclass
class Run:
    """What the task functions work on.

    A flow describes the method once, as calls on a Run; `perform` decides what a call does: make the artifact here,
    make it as a Prefect task, or only plan it (`expect`), in which case no pointer of the run moves.
    """

    config: PipelineConfig
    store: Store
    choice: Choice = field(default_factory=Choice)
    perform: Perform = execute
    plans: list[StagePlan] = field(default_factory=list)  # of every stage asked for so far, in order
    kept: dict[str, ArtifactRef] = field(default_factory=dict)  # by run pointer, of stages that were not to be done

    def stage(
        self,
        name: str,
        *,
        key: str = "",
        settings: Section | None = None,
        inputs: Mapping[str, ArtifactRef] | None = None,
        policies: Mapping[str, PolicyRef] | None = None,
        round_index: int = 0,
        rounds: int = 1,
    ) -> ArtifactRef:
        """Plan a stage, perform the plan, and point the run to what came out.

        Args:
            name: the stage.
            key: run pointer; the stage's name if empty.
            settings: its section; the config's if None.
        """
        pointers, key = self.store.run(self.config.run), key or name
        if not self.choice.does(name):
            self.kept[key] = self.latest(key)
            return self.kept[key]
        spec = self.store.stages[name]
        planned = plan(
            self.store,
            spec,
            settings or getattr(self.config, name),
            inputs or {},
            policies,
            self.config.policy if spec.uses_policy else None,
            self.config.seed,
            round_index,
            rounds,
            previous=pointers.get(key),
            force=self.choice.forces(name),
            key=key,
            launch=self.config.launch,
            run=self.config.run,
        )
        if self.choice.mode == "resume" and planned.status == "runs":
            raise ConfigError(
                f"{key} would begin anew: there is nothing of it to go on from",
                where=f"run {self.config.run}, digest {planned.digest[:12]}",
                expected="finished parts or a checkpoint of an attempt with these very settings and inputs",
                remedy="Choose mode reuse, or undo the change (mbpo explain names it).",
            )
        self.plans.append(planned)
        made = self.perform(self.store, planned)
        if self.perform is not expect:
            pointers.point(key, made)
        return made

    @property
    def last_mining(self) -> int:
        """The last round that mines: the first, or with `remine` the last of all."""
        return self.config.training_rounds - 1 if self.config.remine else 0

    def mined(self, key: str, round_index: int) -> str:
        """The pointer of what mining makes: one for the whole run, or one a round."""
        return f"{key}/{round_index}" if self.config.remine else key

    def base_policy(self) -> PolicyRef:
        """The configured model, checked and digested but not loaded.

        Raises:
            ModelError: it cannot serve as a policy.
        """
        from mbpo_core.models.digest import import_policy

        return import_policy(self.config.policy)

    def made(self) -> dict[str, ArtifactRef]:
        """What this run's stages made so far, by run pointer, or were taken to have made."""
        return {**self.kept, **{planned.key: self._ref(planned) for planned in self.plans}}

    def latest(self, key: str) -> ArtifactRef:
        """What the run's pointer names now, or what is to be read in its place.

        Raises:
            StoreError: the run has no such artifact yet.
        """
        if (other := self.choice.upstream.get(key.split("/")[0])) is not None and key.split("/")[-1] not in BASELINES:
            return other
        found = self.store.run(self.config.run).get(key)
        if found is None:
            raise StoreError(
                f"run {self.config.run!r} has no {key} yet",
                where=self.store.root,
                remedy=f"Make it first: mbpo {key.split('/')[0]} --run {self.config.run}, or mbpo run.",
            )
        return found

    def latest_policy(self, key: str, label: str) -> PolicyRef:
        """The checkpoint that a training pointer names now."""
        return checkpoint_policy(self.latest(key), label)

    def policy_before(self, round_index: int) -> PolicyRef:
        """The policy that a round starts from: the base model, then the checkpoint of the round before."""
        return (
            self.latest_policy(f"training/{round_index - 1}", self.config.label) if round_index else self.base_policy()
        )

    def _ref(self, planned: StagePlan) -> ArtifactRef:
        if planned.ref is None and self.perform is not expect:
            return self.latest(planned.key)
        return planned.expected()


def pointer_keys(config: PipelineConfig) -> Sequence[str]:
    """The run pointers that a run with these settings has, in the order the stages are done."""
    mined = ["negatives", "pairs", "negatives/images"] if config.wants_pairs else []
    if not config.makes_images:
        mined = [key for key in mined if key != "negatives/images"]
    keys = ["samples"] if config.remine else ["samples", *mined]
    for index in range(config.training_rounds):
        keys += [f"{key}/{index}" for key in mined] if config.remine else []
        keys += [f"rollouts/{index}"] if config.training.use_online else []
        keys.append(f"training/{index}")
    return [*keys, *(f"training/{name}" for name in config.baselines), "evaluation", "report"]
