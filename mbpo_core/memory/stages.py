"""What one process of each stage needs, phase by phase, under the settings of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mbpo_core.config import PipelineConfig, TrainingConfig
from mbpo_core.memory.activations import (
    ADAPTERS,
    ALL,
    NOTHING,
    Batch,
    Learns,
    logits,
    mask,
    saved_after_layers,
    saved_by_layer,
    scores_by_layer,
    working_by_layer,
)
from mbpo_core.memory.architecture import Architecture, Tower
from mbpo_core.memory.states import States, states_of
from mbpo_core.memory.terms import Phase, StageEstimate, Term, amount
from mbpo_core.memory.workload import Prompts, batch_of, packing_of
from mbpo_core.models.families import FROZEN_PARTS
from mbpo_core.models.packing import Packing
from mbpo_core.objectives.passes import MASKED, SAMPLED, Pass, by_view
from mbpo_core.objectives.table import DIVERGENCES

RUNTIME = 1.5 * 2**30
"""Bytes of an accelerator that are nobody's tensor: its context, NCCL, kernels' workspaces, rounding of the allocator.
Not measured by us; what remains of a device beside it is compared with the estimate."""

_PAIRS = 32  # that are scored together at most, `models.scoring.group_logprobs`
_REFERENCE_GROUPS = 16  # that a reference scores together, `training.reference`
_GREEDY, _DRAWN = 12, 33  # bytes an id at a decoding step: three in float32; drawing goes through float64
_ROOM = 1.5  # by which the buffers of keys and values grow, `generation.cache`


@dataclass(frozen=True)
class Estimator:
    """Estimates of one model under one config; pure.

    Attributes:
        architecture: the model.
        config: the run.
        prompts: how long prompts are.
        on_cpu: AdamW works as it does there.
        runtime: bytes of a device that are nobody's tensor.
    """

    architecture: Architecture
    config: PipelineConfig
    prompts: Prompts
    on_cpu: bool = False
    runtime: float = RUNTIME

    def stages(self) -> list[StageEstimate]:
        """Of every stage of the run that runs the model, in its order."""
        config, found = self.config, []
        if config.wants_pairs:
            found += [self.negatives(), self.pairs()]
        if config.training.use_online:
            found.append(self.rollouts())
        return [*found, self.training(), self.evaluation()]

    def negatives(self) -> StageEstimate:
        """The attack with its gradient through both towers, and the answers to what it made."""
        settings = self.config.negatives
        answering = self._answering(settings.batch_size, 1, settings.max_new_tokens)
        if settings.method != "adversarial":
            return StageEstimate("negatives", [Phase("answering", answering)])
        batch = Batch(
            [(self.prompts.tokens, settings.max_new_tokens)] * settings.batch_size,
            scored=settings.batch_size * settings.max_new_tokens,
            patches=settings.batch_size * self.prompts.patches,
        )
        attack = [self._weights(), *self._pass([batch], NOTHING, NOTHING, vision_graph=True), *self._runtime()]
        return StageEstimate("negatives", [Phase("attack", attack), Phase("answering", answering)])

    def pairs(self) -> StageEstimate:
        """Both responses scored, with the pictures and without."""
        settings = self.config.pairs
        lengths = [self.config.negatives.max_new_tokens] * 2
        return StageEstimate("pairs", [Phase("scoring", self._scoring(min(settings.batch_size, _PAIRS), lengths))])

    def rollouts(self) -> StageEstimate:
        """Groups of answers with the keys and values of all their tokens."""
        settings = self.config.rollouts
        terms = self._answering(settings.batch_size, settings.group_size, settings.max_new_tokens)
        return StageEstimate("rollouts", [Phase("decoding", terms)])

    def evaluation(self) -> StageEstimate:
        """One greedy answer a question."""
        settings = self.config.evaluation
        terms = self._answering(settings.batch_size, 1, settings.max_new_tokens)
        return StageEstimate("evaluation", [Phase("decoding", terms)])

    def training(self) -> StageEstimate:
        """The reference's log-probs, then forward and backward over micro-batches, then the update."""
        config, states = self.config.training, self._states()
        held = [*states.weights(), *self._live_reference(), states.optimizer()]
        both = [*held, states.gradients(), states.bucket()]
        passes = [
            Phase("forward and backward", [*both, *self._micro(looks), *self._runtime()]) for looks in self._looks()
        ]
        updating = Phase("update", [*held, *states.update(on_cpu=self.on_cpu), *self._runtime()])
        phases = [max(passes, key=lambda phase: phase.size), updating]
        if config.objective != "none" or config.beta > 0 or config.max_drop > 0:
            phases.insert(0, Phase("reference", self._reference()))
        return StageEstimate("training", phases, host=states.host())

    def _states(self) -> States:
        training = self.config.training
        return states_of(self.architecture, training, width=self._width, processes=self.config.launch.processes)

    def _micro(self, looks: Sequence[Batch]) -> list[Term]:
        config = self.config.training
        learns = ADAPTERS if config.lora_rank else ALL
        frozen = FROZEN_PARTS[config.freeze]
        language = NOTHING if "language" in frozen and not config.lora_rank else learns
        vision = "vision" not in frozen and not config.lora_rank
        return self._pass(looks, language, ALL, vision_graph=vision, checkpointed=config.gradient_checkpointing)

    def _looks(self) -> list[list[Batch]]:
        """What goes through the model in a micro-batch of pairs, and in one of rollouts."""
        config, found = self.config.training, []
        if config.pair_passes is not None:
            lengths = [self.config.negatives.max_new_tokens]
            found.append(self._views(config.pair_passes.passes, lengths, config))
        if config.use_online:
            passes = (SAMPLED, MASKED) if config.perception_weight > 0 else (SAMPLED,)
            lengths = [self.config.rollouts.max_new_tokens] * self.config.rollouts.group_size
            found.append(self._views(passes, lengths, config))
        return found

    def _views(self, passes: Sequence[Pass], lengths: list[int], config: TrainingConfig) -> list[Batch]:
        seen = {view: view != "blind" or config.blind not in ("mask", "drop") for view in by_view(passes)}
        return [
            batch_of(self._packing, self.prompts, config.micro_groups, lengths * len(several), seen=seen[view])
            for view, several in by_view(passes).items()
        ]

    def _reference(self) -> list[Term]:
        """Before the engine is made: the policy whole, from the second round on the frozen model, a second reference.

        With adapters the frozen model is the policy without them.
        """
        config, rollouts = self.config.training, self.config.rollouts
        models = int(self.config.training_rounds > 1 and not config.lora_rank) + (config.objective == "mrpo")
        lengths = [self.config.negatives.max_new_tokens] * 2
        if config.use_online and rollouts.group_size * rollouts.max_new_tokens > sum(lengths):
            lengths = [rollouts.max_new_tokens] * rollouts.group_size
        whole = self._width * self.architecture.total
        return [*self._scoring(_REFERENCE_GROUPS, lengths), Term("reference", models * whole, f"{models} more models")]

    def _live_reference(self) -> list[Term]:
        if self.config.training.objective not in DIVERGENCES:
            return []
        return [Term("reference", self._width * self.architecture.total, "asked in every step")]

    def _scoring(self, groups: int, lengths: list[int]) -> list[Term]:
        batch = batch_of(self._packing, self.prompts, groups, lengths)
        return [self._weights(), *self._forward(batch), *self._runtime()]

    def _answering(self, prompts: int, completions: int, tokens: int) -> list[Term]:
        """Reading the prompts, then a token a step: P prompts of length L, G completions of T tokens each.

        Keys and values: 2 w k d layers P (L + G T), in buffers that have half as much room again. A step's mask of G
        queries over all keys, P G (L + G T) (w + 2); one layer's keys and values repeated for all heads; what is made
        of P G V logits until an id is chosen.
        """
        tower, width = self.architecture.language, self._width
        length = self.prompts.tokens
        keys = prompts * (length + (completions * tokens if completions > 1 else tokens))
        cache = 2.0 * width * tower.key_heads * tower.head_width * tower.layers * keys * _ROOM
        reading = Batch([(length, 0)] * prompts, patches=prompts * self.prompts.patches)
        step = 2.0 * width * tower.heads * tower.head_width * keys * (tower.heads > tower.key_heads)
        step += completions * keys * (width + 2) if completions > 1 else 0
        step += (_DRAWN if completions > 1 else _GREEDY) * prompts * completions * self.architecture.vocabulary
        return [
            self._weights(),
            Term("keys and values", cache, f"{prompts} prompts of {length} tokens, and {completions} x {tokens} each"),
            self._pictures(reading),
            Term("working memory", max(step, self._working(reading)), "a layer reading prompts, or a decoding step"),
            *self._runtime(),
        ]

    def _forward(self, batch: Batch) -> list[Term]:
        """A pass that keeps no graph."""
        kept = logits(
            self.architecture, batch.scored, self._width, self.config.policy.logits_mib, grad=False, trained=False
        )
        return [
            self._pictures(batch),
            Term("masks", mask(batch, self._width), "of packed rows"),
            Term("logits", kept, f"{batch.scored} places x {self.architecture.vocabulary} ids"),
            self._beyond(self._working(batch), kept, f"one layer, {batch.tokens} tokens"),
        ]

    def _pass(
        self,
        looks: Sequence[Batch],
        language: Learns,
        vision: Learns,
        *,
        vision_graph: bool,
        checkpointed: bool = False,
    ) -> list[Term]:
        """Forward with a graph, and backward; every look's graph is alive at once, its logits one after the other."""
        width, towers = self._width, self.architecture
        spoken = sum(self._kept(towers.language, look.tokens, language, checkpointed, look) for look in looks)
        spoken += sum(saved_after_layers(towers.language, look.tokens, width, language) for look in looks)
        patches = sum(look.patches for look in looks) * vision_graph
        shown = self._kept(towers.vision, patches, vision, checkpointed)
        places = max(look.scored for look in looks)
        head = language.norms  # the head learns with the weights around it
        kept = logits(towers, places, width, self.config.policy.logits_mib, grad=True, trained=head)
        working = max(self._working(look) for look in looks)
        tokens = sum(look.tokens for look in looks)
        return [
            Term("activations, language", spoken, f"{tokens} tokens, {towers.language.layers} layers"),
            Term("activations, vision", shown, f"{patches} patches, {towers.vision.layers} layers"),
            self._pictures(*looks),
            Term("masks", sum(mask(look, width) for look in looks), "of packed rows"),
            Term("logits", kept, f"{places} places x {towers.vocabulary} ids"),
            self._beyond(working, kept, "one layer forward or backward"),
        ]

    def _pictures(self, *batches: Batch) -> Term:
        """Pixel values as the tower takes them, w each."""
        values = sum(batch.patches for batch in batches) * self.prompts.values / max(1, self.prompts.patches)
        return Term("pictures", self._width * values, f"{amount(values)} pixel values")

    def _beyond(self, working: float, logits: float, why: str) -> Term:
        """What a layer works with; never at the same time as the logits, so only what is more."""
        return Term("working memory", max(0.0, working - logits), f"{why}, beyond the logits")

    def _kept(self, tower: Tower, tokens: int, learns: Learns, checkpointed: bool, batch: Batch | None = None) -> float:
        """Of all layers; with checkpointing each layer's input, w L h, and all of one layer."""
        layer = saved_by_layer(tower, tokens, self._width, learns, batch)
        if batch is not None and self.config.policy.attention == "eager":
            layer += scores_by_layer(tower, batch, self._width)
        if not checkpointed:
            return tower.layers * layer
        return tower.layers * self._width * tokens * tower.width + layer

    def _working(self, batch: Batch) -> float:
        """The larger of what a layer of either tower works with."""
        towers = self.architecture
        return max(
            working_by_layer(towers.language, batch.tokens, self._width),
            working_by_layer(towers.vision, batch.patches, self._width),
        )

    def _weights(self) -> Term:
        """Of a stage that does not train: all of them on every process."""
        total = self.architecture.total
        return Term("weights", self._width * total, f"{amount(total)} parameters of {self._width} bytes")

    def _runtime(self) -> list[Term]:
        why = "context, communication and rounding; a guess"
        return [Term("runtime", self.runtime, why)] if self.runtime else []

    @property
    def _width(self) -> int:
        return 2 if self.config.policy.dtype == "bfloat16" else 4

    @property
    def _packing(self) -> Packing:
        return packing_of(self.architecture, self.config.policy)
