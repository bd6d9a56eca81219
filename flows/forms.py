"""What the forms of the deployments hold, and what somebody means who fills one in.

A form shows defaults, and Prefect's page posts every field whether it was touched or not. So a field counts only where
it differs from the default; it is laid over the settings that are there already, like `section.field=value`. A form
that was opened with a run's own values (the rerun link of a stage's note) says `fields: all`: then all of them count.
A form shows parameters in their order, so a flow takes its long section last.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from mbpo_core.config import DEFAULT_METHOD, RUN_NAME, PipelineConfig, Section
from mbpo_core.methods import METHODS
from tasks.run import Mode

LATEST = "latest"
UNNAMED = "default"  # the run that a form shows

StageWord = Literal["samples", "negatives", "pairs", "rollouts", "training", "evaluation", "report"]
Target = Literal["policy", "sft", "dpo"]
Fields = Literal["changed", "all"]
# Prefect's forms take bounds from the annotation and descriptions from the flow's docstring.
RunName = Annotated[str, Field(pattern=RUN_NAME)]
BaseName = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")]
RoundIndex = Annotated[int, Field(ge=0, lt=100)]
Upstream = Annotated[str, Field(max_length=4000)]
Changes = list[Annotated[str, Field(pattern=r"^\s*[a-z_]+(\.[a-z0-9_]+)?\s*=")]]


_MEANING = {
    "run": "Name of the run.",
    "upstream": "latest, or digest prefixes or manifest URIs with spaces between; each is read in place of the run's "
    "latest artifact of its kind.",
    "mode": "reuse what exists; resume, but begin nothing anew; or rerun, computing it even if it exists.",
    "dry_run": "Only show the plan.",
    "changes": "Settings to change, as section.field=value; they come after `settings`.",
    "fields": "changed, so that a field of `settings` left as shown keeps what the run has; or all, which takes every "
    "field as shown.",
    "settings": "Settings of the stage, laid over the run's own.",
}

F = TypeVar("F", bound=Callable[..., Any])


def explained(flow_function: F) -> F:
    """Say in a stage flow's docstring, which is where forms take it from, what the parameters that all have mean."""
    text = inspect.cleandoc(flow_function.__doc__ or "")
    lines = [text if "\nArgs:" in text else f"{text}\n\nArgs:"]
    shared = [name for name in inspect.signature(flow_function).parameters if name in _MEANING]
    flow_function.__doc__ = "\n".join(lines + [f"    {name}: {_MEANING[name]}" for name in shared])
    return flow_function


@dataclass(frozen=True)
class StageForm:
    """What is asked of one stage of a run.

    Attributes:
        upstream: "latest", or digest prefixes and manifest URIs of what to read in place of the run's latest.
        settings: the stage's section as the form shows it, filled in; None where there is no form.
        changes: settings to change, as section.field=value; they come after the section.
        fields: which fields of the section count: those that differ from its defaults, or all that were given.
        images: negatives: the images made for pairs, in place of the mining.
        round_index: rollouts and training: the round, from 0; None where rounds do not matter.
    """

    stage: str
    run: str
    upstream: str = LATEST
    settings: Section | None = None
    changes: Sequence[str] = ()
    mode: Mode = "reuse"
    fields: Fields = "changed"
    images: bool = False
    round_index: int | None = None

    def all_changes(self) -> list[str]:
        """The touched fields of the section, and the changes after them."""
        section = "images" if self.images else self.stage
        settings = self.settings
        counted = {} if settings is None else {section: _counted(settings, self.fields, type(settings)())}
        return [*as_changes(counted), *self.changes]


def pipeline_changes(config: PipelineConfig, fields: Fields = "changed") -> list[str]:
    """The fields of a filled-in pipeline form that count, as changes; what its method gives by itself does not."""
    counted = _counted(config, fields, shown_pipeline())
    if fields == "changed" or "method" not in config.model_fields_set:
        counted = _without(METHODS[config.method].settings, counted)
    return as_changes(counted)


def shown_pipeline() -> PipelineConfig:
    """What the pipeline's form shows before anything is touched: every field's own default, and the default method."""
    plain = PipelineConfig(method="mbpo").model_dump(mode="json")
    return PipelineConfig.model_validate(plain | {"method": DEFAULT_METHOD})


def _counted(section: Section, fields: Fields, shown: Section) -> dict[str, Any]:
    return (
        touched_fields(section, shown) if fields == "changed" else section.model_dump(mode="json", exclude_unset=True)
    )


def touched_fields(section: Section, shown: Section) -> dict[str, Any]:
    """The fields that differ from what the form shows, as JSON values; nested sections likewise."""
    return _without(shown.model_dump(mode="json"), section.model_dump(mode="json"))


def as_changes(fields: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Nested fields as `section.field=value` lines."""
    return list(_lines(fields, prefix))


def _lines(fields: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={json.dumps(value, ensure_ascii=False)}"  # JSON is YAML too


def _without(shown: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, less the values that are shown anyway."""
    left: dict[str, Any] = {}
    for name, value in given.items():
        other = shown.get(name)
        if isinstance(value, Mapping):
            if inner := _without(other if isinstance(other, Mapping) else {}, value):
                left[name] = inner
        elif name not in shown or value != other:
            left[name] = value
    return left
