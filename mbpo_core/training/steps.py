"""The steps of a round: forward and backward over micro-batches, one update, one row of metrics, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from torch import Tensor

from mbpo_core.prefetch import ahead
from mbpo_core.records import TrainingStep
from mbpo_core.stage import Progress
from mbpo_core.training.checkpoint import TrainState, latest_checkpoint, restore, save_checkpoint
from mbpo_core.training.data import GroupSet
from mbpo_core.training.engine import TrainingEngine
from mbpo_core.training.job import Job
from mbpo_core.training.losses import FIGURES, PEAKS, added, micro_loss
from mbpo_core.training.metrics import Clock, refuse_infinite, step_row
from mbpo_core.training.micro import MicroBatch, collate
from mbpo_core.training.monitoring import Watch
from mbpo_core.training.plan import Batch, GroupWeights, batch_weights, micro_batches
from mbpo_core.training.schedule import learning_rate
from mbpo_core.training.statistics import Statistics, reference_gains, reward_shift
from mbpo_core.training.stop import StopRule

Part = Sequence[tuple[int, bool]]  # see plan.micro_batches
Weights = Mapping[int, GroupWeights]  # see plan.batch_weights


class Steps:
    """Runs a round's batches from wherever `state` says it stands.

    Args:
        job: settings and folders.
        engine: trains the policy.
        groups: the round's groups with their reference log-probs.
        batches: the plan of the whole round.
        state: where training stands; kept up to date.
        progress: told every step.
        watch: monitors that every step is written to.
    """

    def __init__(
        self,
        job: Job,
        engine: TrainingEngine,
        groups: GroupSet,
        batches: list[Batch],
        state: TrainState,
        progress: Progress,
        watch: Watch,
    ) -> None:
        self.state, self._watch = state, watch
        self._job, self._config, self._engine = job, job.config, engine
        self._groups, self._batches, self._progress = groups, batches, progress
        self._stop = StopRule(job.config.stop_drop, job.config.stop_window)
        self._stop.replay(row.chosen_drift for row in state.rows)
        self._gains = reference_gains(groups, sorted({index for batch in batches for index in batch.offline}))

    def run(self) -> None:
        """All remaining batches, or those up to the stop rule.

        Afterwards the engine's weights and the newest checkpoint are what is to be published, and `state.rows` has a
        row for every step that was made, the last one marked where the rule fired.
        """
        state, saved = self.state, len(self.state.rows)
        if not state.batches_done and self._config.stop_rule:
            save_checkpoint(self._job.checkpoints, self._engine, state)
        # Pictures are read, decoded and processed by another thread while this one trains on those before.
        with ahead(self._shares(self._batches[state.batches_done :]), self._collate) as micros:
            while state.batches_done < len(self._batches):
                for row in self._updates(self._batches[state.batches_done], micros):
                    self._take(row)
                    if state.rows[-1].stopped:
                        return self._roll_back()
                state.batches_done += 1
                last = state.batches_done == len(self._batches)
                if last or len(state.rows) - saved >= self._config.checkpoint_every:
                    save_checkpoint(self._job.checkpoints, self._engine, state)
                    saved = len(state.rows)

    def _updates(self, batch: Batch, micros: Iterator[MicroBatch]) -> Iterator[TrainingStep]:
        """`inner_steps` updates on one batch; the ratio's denominator stays the policy before the first.

        A micro-batch and its log-probs are kept only where another update follows.
        """
        kept: list[tuple[MicroBatch, Tensor]] = []
        for inner in range(self._config.inner_steps):
            clock = Clock()
            statistics = Statistics(reward_shift(self.state.rows), *self._gains)
            figures = dict.fromkeys((*FIGURES, *PEAKS), 0.0)
            fresh = ((micro.to(self._engine.world.device), None) for micro in islice(micros, len(self._cut(batch))))
            for micro, recorded in kept if inner else fresh:
                scored = self._engine.score(micro.looks, micro.temperature)
                loss, sums = micro_loss(micro, scored, self._config, recorded, statistics)
                self._engine.backward(loss)
                figures = added(figures, sums)
                if not inner and self._config.inner_steps > 1:
                    kept.append((micro, scored[0].logprobs.detach()))
            yield self._update(batch, figures, clock)

    def _update(self, batch: Batch, figures: dict[str, float], clock: Clock) -> TrainingStep:
        """Sum the figures over all processes, update the weights, make the row."""
        state, world = self.state, self._engine.world
        where = f"training round {self._job.round_index}, step {state.next_step}"
        total = world.sum_figures({name: figures[name] for name in FIGURES})
        total |= world.largest_figures({name: figures[name] for name in PEAKS})
        refuse_infinite(total, where)
        if not state.rows and total["tokens_online"]:
            state.rollout_gap = total["gap_online"] / total["tokens_online"]
        done = len(state.rows) / (len(self._batches) * self._config.inner_steps)
        rate = learning_rate(self._config, state.optimizer_steps, (self._job.round_index + done) / self._job.rounds)
        norm = 0.0
        if batch.offline or batch.online:
            norm = self._engine.step(rate, where=where)
            state.optimizer_steps += 1
        seconds, cpu_seconds = clock.read()
        return step_row(
            total,
            batch,
            self._groups,
            step=state.next_step,
            round_index=self._job.round_index,
            learning_rate=rate,
            grad_norm=norm,
            seconds=seconds,
            cpu_seconds=world.sum_figures({"cpu": cpu_seconds})["cpu"],
            correction=self._config.rollout_correction > 0,
        )

    def _shares(self, batches: Sequence[Batch]) -> Iterator[tuple[Part, Weights]]:
        """This process's forward passes of all batches, offline ones first in each."""
        for batch in batches:
            if batch.offline or batch.online:
                weights = batch_weights(self._groups, batch, self._config)
                yield from ((part, weights) for part in self._cut(batch))

    def _cut(self, batch: Batch) -> list[Part]:
        size, world = self._config.micro_groups, self._engine.world
        sources = (batch.offline, batch.online)
        return [part for source in sources for part in micro_batches(source, size, world.rank, world.size)]

    def _collate(self, share: tuple[Part, Weights]) -> MicroBatch:
        part, weights = share
        return collate(part, self._groups, weights, self._config)

    def _take(self, row: TrainingStep) -> None:
        fired = self._stop.fires(row.chosen_drift)
        if fired and self.state.fired_step is None:
            self.state.fired_step = row.step
        self.state.rows.append(row.model_copy(update={"stopped": fired and self._config.stop_rule}))
        self.state.next_step += 1
        self._watch.write(self.state.rows[-1])
        figures = {
            "loss": row.loss,
            "kl": row.kl,
            "grad_norm": row.grad_norm,
            "chosen_drift": row.chosen_drift,
            "reward": row.reward,
        }
        self._progress.advance(1, **{name: value for name, value in figures.items() if value is not None})

    def _roll_back(self) -> None:
        """Return to the last checkpoint before the stop rule fired; the metrics go on to the firing."""
        place = latest_checkpoint(self._job.checkpoints, self.state.fingerprint)
        assert place is not None  # one is written before the first step
        published = restore(place, self._engine)
        fired = self.state.rows[-1].step
        self._progress.log(
            f"the stop rule fired at step {fired}: log p(chosen) fell by more than {self._config.stop_drop} nats a "
            f"token; the weights go back to those after step {published.next_step - 1}"
        )
        self.state.optimizer_steps, self.state.batches_done = published.optimizer_steps, published.batches_done
