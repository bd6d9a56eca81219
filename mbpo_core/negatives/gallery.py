"""All samples of the stage to look among: by question, by kind of question, by what their pictures look like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from PIL.Image import fromarray
from torch import Tensor

from mbpo_core.config import NegativesConfig
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.embedding import Index, build_index, embed, keys_of, read_pictures
from mbpo_core.negatives.filters import normalize
from mbpo_core.negatives.items import Unmade
from mbpo_core.negatives.swaps import Kin
from mbpo_core.negatives.tasks import Task
from mbpo_core.stage import Reader


@dataclass(frozen=True)
class Entry:
    """A sample of the gallery without its pictures; `place` is its row, `asked` its question in plain words."""

    place: int
    sample_id: str
    kind: str
    asked: str
    answer: str


Ranked = Iterator[tuple[Entry, float]]
"""Samples with the cosine of their pictures to those asked about, the most similar first."""


class Gallery:
    """The samples, read as they are needed; no picture stays in memory.

    Args:
        policy: its vision tower and projector say which pictures are alike.
        samples: read row by row, and a place at a time for the pictures of a sample.
        settings: batch_size samples are encoded together.
    """

    def __init__(self, policy: Policy, samples: Reader, settings: NegativesConfig) -> None:
        self._policy, self._settings = policy, settings
        # A view of its own: another thread may be reading the next window.
        self._samples = samples.share(0, 1)
        self._kin: dict[str, Kin] = {}

    @cached_property
    def entries(self) -> list[Entry]:
        """All samples, by sample_id."""
        rows = self._samples.rows(columns=["sample_id", "kind", "question", "answer"])
        entries = (
            Entry(place, row["sample_id"], row["kind"], normalize(row["question"]), row["answer"])
            for place, row in enumerate(rows)
        )
        return sorted(entries, key=lambda entry: entry.sample_id)

    @cached_property
    def index(self) -> Index:
        """What their pictures look like: 4 D bytes for each different one."""
        order = {entry.place: number for number, entry in enumerate(self.entries)}
        rows = (row["images"] for row in self._samples.rows(columns=["images"]))
        return build_index(self._policy, rows, [order[place] for place in range(len(order))], self._settings.batch_size)

    def same_question(self, task: Task) -> list[Entry]:
        """Other samples that ask the same, up to case, punctuation and articles, by sample_id."""
        sample = task.sample
        asked = self._by_question.get(normalize(sample.question), [])
        return [entry for entry in asked if entry.kind == sample.kind and entry.sample_id != sample.sample_id]

    def kin(self, kind: str) -> Kin:
        """Words that stand in one another's place in the answers to a kind of question."""
        if kind not in self._kin:
            self._kin[kind] = Kin(sorted({entry.answer for entry in self.entries if entry.kind == kind}))
        return self._kin[kind]

    def nearest(self, tasks: Sequence[Task]) -> list[Ranked]:
        """Samples by the cosine of their pictures to each task's, the largest first; ties by sample_id."""
        if not tasks or not len(self.index.vectors):
            return [iter(()) for _ in tasks]
        rows = [self.index.rows.get(keys_of(task.prompt.images)) for task in tasks]
        queries = [
            # Encoded alone, so that it does not depend on the window.
            embed(self._policy, [task.prompt.images])[0] if row is None else self.index.vectors[row]
            for task, row in zip(tasks, rows, strict=True)
        ]
        return [self._ranked(cosines) for cosines in self.index.cosines(queries)]

    def instead(self, task: Task, entry: Entry) -> list[Tensor] | None:
        """Pictures of another sample, (3, H, W) uint8 at native size, to show in place of the task's own.

        None where it is the same sample, or shows the same pixels, or another number of pictures, or cannot be read.
        """
        if entry.sample_id == task.sample.sample_id:
            return None
        (row,) = self._samples.slice(entry.place, entry.place + 1, columns=["images"])
        read = read_pictures(self._policy, row["images"])
        if len(read) != len(task.images) or keys_of(one for one, _ in read) == keys_of(task.prompt.images):
            return None
        return [self._policy.family.native(picture) for _, picture in read]

    def too_long(self, task: Task, pictures: Sequence[Tensor], question: str = "") -> Unmade | None:
        """Why the policy cannot be asked about these pictures, (3, H, W) uint8, in place of the task's own."""
        shown = [fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in pictures]
        prompt = self._policy.prepare(question or task.sample.question, shown)
        needed = len(prompt.token_ids) + max(len(task.chosen), self._settings.max_new_tokens)
        if needed <= self._policy.max_positions:
            return None
        return Unmade("prompt_too_long", f"{needed} tokens are needed, the model takes {self._policy.max_positions}")

    @cached_property
    def _by_question(self) -> dict[str, list[Entry]]:
        asked: dict[str, list[Entry]] = {}
        for entry in self.entries:
            asked.setdefault(entry.asked, []).append(entry)
        return asked

    def _ranked(self, cosines: Tensor) -> Ranked:
        # Rows are in the order of sample_id, and a stable sort leaves ties in it.
        values, order = cosines.sort(descending=True, stable=True)
        for cosine, row in zip(values.tolist(), order.tolist(), strict=True):
            for number in self.index.shown[row]:
                yield self.entries[number], cosine
