"""What words mean, as vectors: the policy's own input embeddings, or a table of static word vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from mbpo_core.errors import DataError
from mbpo_core.models.policy import Policy
from mbpo_core.negatives.words import Topic


def embeddings(policy: Policy, tokens: Sequence[Sequence[int]]) -> Tensor:
    """(n, D) float32: the mean input embedding of each word's token ids.

    Args:
        policy: its language model's input embeddings.
        tokens: n lists of token ids, of the words as they stand in the sentence, white space before them included.
    """
    weight = policy.family.language_model(policy.model).get_input_embeddings().weight
    means = [weight[torch.tensor(ids, device=weight.device)].float().mean(0).cpu() for ids in tokens]
    return torch.stack(means) if means else torch.zeros(0, weight.shape[1])


def from_table(path: str, topics: Sequence[Topic]) -> Tensor:
    """(n, D) float32: the table's vectors; zeros for words that it does not have.

    Raises:
        DataError: there is no such table, or it is none.
    """
    return _table(path).vectors([topic.text for topic in topics])


class WordVectors:
    """A text file of word vectors, one word a line: word2vec's form (counts in the first line) or GloVe's.

    Reading it for the first time notes where each word's line is; a vector is read when it is asked for, so that a
    table of some gigabytes takes some megabytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def vectors(self, words: Sequence[str]) -> Tensor:
        """(n, D) float32; zeros for unknown words."""
        with self._open() as file:
            rows = []
            for word in words:
                values = torch.zeros(self.width)
                if word in self._lines:
                    file.seek(self._lines[word])
                    values = self._values(file.readline(), word)
                rows.append(values)
        return torch.stack(rows) if rows else torch.zeros(0, self.width)

    @cached_property
    def width(self) -> int:
        """Numbers a word, D."""
        with self._open() as file:
            file.seek(next(iter(self._lines.values())))
            return len(file.readline().split()) - 1

    @cached_property
    def _lines(self) -> dict[str, int]:
        """Where each word's line begins, in bytes; of equal words the first counts."""
        places: dict[str, int] = {}
        start = 0
        with self._open() as file:
            for number, line in enumerate(file):
                # word2vec's first line is "words width"; no vector has one number.
                if len(line.split(maxsplit=2)) > 2:
                    places.setdefault(line.split(b" ", 1)[0].decode("utf-8", "replace"), start)
                elif number > 0 and line.strip():
                    raise self._unfit(f"line {number + 1} holds no vector: {line[:40]!r}")
                start += len(line)
        if not places:
            raise self._unfit("there is no vector in it")
        return places

    def _values(self, line: bytes, word: str) -> Tensor:
        try:
            values = torch.tensor([float(value) for value in line.split()[1:]])
        except ValueError as error:
            raise self._unfit(f"the vector of {word!r} is not made of numbers") from error
        if len(values) != self.width:
            raise self._unfit(f"the vector of {word!r} has {len(values)} numbers, the first one {self.width}")
        return values

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise self._unfit(f"it cannot be read: {error.strerror}") from error

    def _unfit(self, what: str) -> DataError:
        return DataError(
            f"the table of word vectors is no such table: {what}",
            where=str(self.path),
            expected="a text file with lines of a word and its numbers",
            remedy="Set negatives.word_vectors to a word2vec or GloVe text file, or leave it empty.",
        )


@lru_cache(maxsize=2)
def _table(path: str) -> WordVectors:
    return WordVectors(Path(path).expanduser())
