"""What a generator works with: the model, its settings, and what is known of each sample beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mbpo_core.config import NegativesConfig
from mbpo_core.generation.generate import Generated
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.asking import Asker, Version, right
from mbpo_core.negatives.items import Item, Made, Unmade
from mbpo_core.negatives.tasks import STAGE, Task
from mbpo_core.seeds import derive_seed

if TYPE_CHECKING:
    from mbpo_core.negatives.gallery import Gallery
    from mbpo_core.negatives.palette import Tone
    from mbpo_core.stage import Reader


@dataclass(frozen=True)
class Known:
    """A sample with what the model says of it as it is.

    Attributes:
        blind: the answer without the images.
        clean: the answer to the clean images, and log p(chosen).
        seed: of this sample's random numbers; nothing else may be random.
    """

    task: Task
    blind: Generated
    clean: Version
    seed: int

    def item(self, settings: NegativesConfig) -> Item:
        """The sample as the attack takes it."""
        task = self.task
        # Where the blind model is right already, raising its answer would raise the chosen one: lower that instead.
        targeted = settings.target == "targeted" and not right(task.sample, self.blind)
        target = self.blind.token_ids if targeted else None
        return Item(task.prompt, task.images, task.chosen, target, self.seed, right(task.sample, self.clean.answer))


class Bench:
    """One policy, one set of settings, the run's seed, and the samples that are worked on.

    Every random number derives from (seed, sample_id), so a row does not depend on its neighbours except through
    float noise.

    Args:
        policy: frozen.
        settings: of the stage.
        seed: the run's.
        samples: all samples that the stage reads, for generators that look among them.
    """

    def __init__(self, policy: Policy, settings: NegativesConfig, seed: int, samples: Reader | None = None) -> None:
        self.policy, self.settings, self.seed = policy, settings, seed
        self.asker = Asker(policy, settings)
        self._samples = samples

    def know(self, tasks: Sequence[Task]) -> list[Known]:
        """Ask the model about each sample as it is."""
        blind = self.asker.blind(tasks)
        clean = self.asker.versions(tasks, [task.prompt for task in tasks])
        seeds = [derive_seed(self.seed, STAGE, task.sample.sample_id) for task in tasks]
        return [Known(*known) for known in zip(tasks, blind, clean, seeds, strict=True)]

    @cached_property
    def samples(self) -> Reader:
        """All samples of the stage; a view of its own, as another thread may be reading the next window."""
        assert self._samples is not None  # the stage gives them
        return self._samples.share(0, 1)

    @cached_property
    def gallery(self) -> Gallery:
        """All samples' questions, answers and pictures, to be looked up."""
        from mbpo_core.negatives.gallery import Gallery

        return Gallery(self.policy, self.samples, self.settings)

    @cached_property
    def palette(self) -> dict[str, Tone]:
        """What the colours that the answers tell look like."""
        from mbpo_core.negatives.palette import learn_palette

        return learn_palette(self)


Generator = Callable[[Bench, Sequence[Known]], Sequence[Made | Unmade]]
"""Makes a negative of each sample of a window, or says why it cannot."""
