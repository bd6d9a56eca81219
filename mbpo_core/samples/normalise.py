"""One raw row becomes one Sample, or one Dropped with its reason."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbpo_core.config import SamplesConfig
from mbpo_core.records import AnswerForm, Dropped, Sample
from mbpo_core.samples import cells, kinds, splits
from mbpo_core.samples.images import ImageLoader, Loaded
from mbpo_core.samples.paths import image_values, is_missing
from mbpo_core.samples.problems import Unusable
from mbpo_core.samples.urls import UrlFolder
from mbpo_core.verifiers.text import tokens

STAGE = "samples"
META = "meta"  # an input column of this name is carried along
_LONGEST_TEXT = 2000  # characters of a text kept in a dropped row


@dataclass(frozen=True)
class RawRow:
    """A row as it was read: its position in the input, its mapped cells, and what was wrong with reading it."""

    index: int
    cells: Mapping[str, Any]
    problem: str = ""


class Normaliser:
    """Applies the column mapping and the checks of `SamplesConfig` to rows."""

    def __init__(self, config: SamplesConfig, root: Path) -> None:
        self._config = config
        self._source = config.name or config.source
        self._images = ImageLoader(root, config.max_pixels, urls=UrlFolder(config) if config.url_folder else None)

    @property
    def came_as(self) -> Counter[str]:
        """Pictures read so far by format and mode."""
        return self._images.came_as

    def sample_id(self, raw: RawRow) -> str:
        """The id column's text; without one, a digest of question, answers, options and images (path or bytes).

        A row that has neither (its id is empty, or its question is missing) gets "row-<position>":
        it will be dropped for that.
        """
        try:
            if self._config.id_column:
                return cells.text_of(raw.cells.get(self._config.id_column), self._config.id_column)
            question, answer, _ = self._question_and_answer(raw)
        except Unusable:
            return f"row-{raw.index}"
        choices = raw.cells.get(self._config.choices_column) if self._config.choices_column else None
        images = [_image_key(value) for value in image_values(raw.cells.get(self._config.image_column))]
        rejected = [raw.cells.get(self._config.rejected_column)] if self._config.rejected_column else []
        content = json.dumps([question, answer, choices, images, *rejected], default=str, ensure_ascii=False)
        return f"{self._source}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def normalise(self, raw: RawRow) -> Sample | Dropped:
        """The checked sample, or why there is none."""
        sample_id = self.sample_id(raw)
        try:
            return self._sample(sample_id, raw)
        except Unusable as problem:
            return self.drop(sample_id, raw, problem.reason, problem.detail)

    def drop(self, sample_id: str, raw: RawRow, reason: str, detail: str) -> Dropped:
        """The dead letter of a row; image bytes are left out and long texts cut."""
        row = json.dumps(readable(dict(raw.cells)), ensure_ascii=False, default=str)
        return Dropped(sample_id=sample_id, stage=STAGE, reason=reason, detail=f"row {raw.index}: {detail}", row=row)

    def _sample(self, sample_id: str, raw: RawRow) -> Sample:
        config = self._config
        if raw.problem:
            raise Unusable("missing_value", raw.problem)
        if config.id_column:
            cells.text_of(raw.cells.get(config.id_column), config.id_column)
        question, answer, slots = self._question_and_answer(raw)
        choices = (
            cells.choices_of(raw.cells.get(config.choices_column), config.choices_column)
            if config.choices_column
            else []
        )
        named = raw.cells.get(config.kind_column) if config.kind_column else None
        kind = kinds.infer_kind(str(answer), choices) if is_missing(named) else kinds.declared_kind(named)
        form: AnswerForm | None = None if config.answer_form == "infer" else config.answer_form
        if kind == "multiple_choice":
            if not choices:
                raise Unusable("bad_choices", "a multiple_choice question without options; set samples.choices_column")
            letter = cells.letter_of(answer, choices, config.answer_column)
            if form in (None, "letter"):
                answer, form = letter, "letter"
            question = kinds.with_options(question, choices, form or "free")
        answer = cells.text_of(answer, config.answer_column)
        form = form or kinds.infer_form(kind, answer, choices)
        aliases = cells.aliases_of(raw.cells.get(config.aliases_column)) if config.aliases_column else []
        meta = kinds.with_rules(cells.meta_of(raw.cells.get(META)), kind, answer, aliases, config)
        kinds.check_answer(kind, form, answer, choices, meta)
        rejected = self._rejected(raw, answer, choices if form == "letter" else [])
        images = self._pictures(raw, slots)
        declared = raw.cells.get(config.split_column) if config.split_column else None
        digest = images[0].digest
        return Sample(
            sample_id=sample_id,
            images=[loaded.image for loaded in images],
            question=question,
            answer=answer,
            kind=kind,
            answer_form=form,
            choices=choices if kind == "multiple_choice" else [],
            split=splits.deal(digest, config) if is_missing(declared) else splits.declared(declared, digest, config),
            source=self._source,
            rejected=rejected,
            meta=meta,
        )

    def _rejected(self, raw: RawRow, answer: str, options: list[str]) -> str | None:
        """The rejected response that the row brings along; where a letter is asked for, an option becomes its letter.

        Raises:
            Unusable: same_answer where it has the words of the answer, capitals and punctuation aside.
        """
        column = self._config.rejected_column
        cell = cells.spoken_by("assistant", raw.cells.get(column), column) if column else None
        if is_missing(cell):
            return None
        rejected = cells.text_of(cell, column)
        if options:
            with suppress(Unusable):  # what names no option is a rejected response, too
                rejected = cells.letter_of(cell, options, column)
        if tokens(rejected, articles=True) == tokens(answer, articles=True):
            raise Unusable("same_answer", f"{column} {rejected!r:.80} says what {self._config.answer_column} says")
        return rejected

    def _pictures(self, raw: RawRow, slots: int) -> list[Loaded]:
        column = self._config.image_column
        cell = raw.cells.get(column)
        if is_missing(cell) or not image_values(cell):
            raise Unusable("missing_value", f"{column} is empty")
        values = image_values(cell)
        if slots not in (0, len(values)):
            raise Unusable(
                "image_count", f"the question has {slots} <image> placeholders, {column} {len(values)} pictures"
            )
        return [self._images.load(value) for value in values]

    def _question_and_answer(self, raw: RawRow) -> tuple[str, Any, int]:
        """The question, the answer, and how many pictures the question has a place for (0 if it does not say)."""
        config = self._config
        if config.conversation_column:
            return cells.conversation_of(raw.cells.get(config.conversation_column), config.conversation_column)
        given = cells.spoken_by("assistant", raw.cells.get(config.answer_column), config.answer_column)
        if config.kind_column and str(raw.cells.get(config.kind_column)).strip().lower() == "box":
            given = cells.box_of(given)
        answer = cells.answer_of(given, config.answer_column)
        cells.text_of(answer, config.answer_column)
        answer = answer if isinstance(answer, int) and not isinstance(answer, bool) else cells.text_of(answer, "")
        asked = cells.spoken_by("user", raw.cells.get(config.question_column), config.question_column)
        return cells.text_of(asked, config.question_column), answer, cells.slots_of(asked)


def _image_key(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if hasattr(value, "tobytes"):  # memoryview, PIL image
        value = value.tobytes()
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes | bytearray) else str(value)


def readable(value: Any) -> Any:
    """The value without bytes, and with long texts cut."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {str(key): readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [readable(item) for item in value]
    return value[:_LONGEST_TEXT] if isinstance(value, str) else value
