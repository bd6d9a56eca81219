"""What artifacts were made from: traces, what runs need, and what a rerun has made stale."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from mbpo_core.errors import DamagedArtifact
from mbpo_core.stage import ArtifactRef
from mbpo_core.store.core import Store
from mbpo_core.store.manifest import Manifest

Address = tuple[str, str]  # stage and digest

PROMOTED = "promoted"
"""First word of the pointers that say what a run publishes. No stage makes them: they name what another key named."""


class Step(BaseModel):
    """One artifact on the way back from another."""

    model_config = ConfigDict(frozen=True)

    depth: int
    name: str = Field(description="Under which the artifact above read it.")
    ref: ArtifactRef
    there: bool = Field(description="False if the artifact has been deleted since.")
    again: bool = Field(default=False, description="Met before; with `once`, its inputs are listed there only.")


class Stale(BaseModel):
    """A run's pointer whose artifact was made from something that the run has replaced since."""

    model_config = ConfigDict(frozen=True)

    key: str
    because: list[str] = Field(description="Keys that were replaced, or are stale themselves.")


def readable_manifest(store: Store, stage: str, digest: str) -> Manifest | None:
    """The manifest, or None where it is missing or damaged."""
    try:
        return store.manifest(stage, digest)
    except DamagedArtifact:
        return None


def made_from(manifest: Manifest) -> dict[str, ArtifactRef]:
    """The artifacts that an artifact read, by name: inputs, and the checkpoints its policies come from."""
    checkpoints = {name: policy.artifact for name, policy in manifest.policies.items() if policy.artifact}
    return {**checkpoints, **manifest.inputs}


def published(key: str) -> bool:
    """The pointer names what a run publishes, not what a stage of it made."""
    return key.split("/")[0] == PROMOTED


def trace(store: Store, ref: ArtifactRef, *, once: bool = False) -> list[Step]:
    """Where an artifact comes from: itself, then each of its inputs followed by theirs.

    Args:
        once: list the inputs of an artifact only where it is met first. Without it the steps of a run of many rounds
            grow exponentially, because each round reads the one before by several names.
    """
    steps: list[Step] = []
    known: dict[Address, Manifest | None] = {}

    def follow(depth: int, name: str, at: ArtifactRef) -> None:
        address = at.stage, at.digest
        again = address in known
        if not again:
            known[address] = readable_manifest(store, *address)
        manifest = known[address]
        steps.append(Step(depth=depth, name=name, ref=at, there=manifest is not None, again=again))
        for inner, source in made_from(manifest).items() if manifest and not (again and once) else ():
            follow(depth + 1, inner, source)

    follow(0, ref.key or ref.stage, ref)
    return steps


def reachable(store: Store, runs: Iterable[str] | None = None) -> set[Address]:
    """Every artifact that a run's pointer names now, and everything those were made from.

    Args:
        runs: whose pointers count; all runs' if None.
    """
    waiting = [ref for run in (store.runs() if runs is None else runs) for ref in store.run(run).pointers().values()]
    found: set[Address] = set()
    while waiting:
        ref = waiting.pop()
        if (ref.stage, ref.digest) not in found:
            found.add((ref.stage, ref.digest))
            manifest = readable_manifest(store, ref.stage, ref.digest)
            waiting += made_from(manifest).values() if manifest else []
    return found


def stale(store: Store, run: str) -> list[Stale]:
    """Pointers of a run that a rerun of the whole pipeline would move, because of what they were made from.

    Contents are compared: a rerun that came out the same makes nothing stale. What depends on
    something stale is stale too. What the run publishes is never stale: it stays until something better is promoted.
    """
    pointers = {key: ref for key, ref in store.run(run).pointers().items() if not published(key)}
    made = {key: readable_manifest(store, ref.stage, ref.digest) for key, ref in pointers.items()}
    sources = {key: _sources(manifest) for key, manifest in made.items() if manifest}
    because = {
        key: [name for name, content in read.items() if name in pointers and pointers[name].content != content]
        for key, read in sources.items()
    }
    spreading = True
    while spreading:  # a rerun upstream reaches the end of the chain in at most as many turns as there are keys
        spreading = False
        for key, read in sources.items():
            through = [name for name in read if because.get(name) and name not in because[key]]
            because[key] += through
            spreading = spreading or bool(through)
    return [Stale(key=key, because=names) for key, names in because.items() if names]


def _sources(manifest: Manifest) -> dict[str, str]:
    """Run key to the content that was read."""
    return {ref.key or name: ref.content for name, ref in made_from(manifest).items()}
