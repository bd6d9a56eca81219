"""What a stage reads in place of the run's latest: digest prefixes and manifest URIs, resolved and checked."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from flows.forms import LATEST
from flows.refusing import Problems
from mbpo_core.errors import ConfigError
from mbpo_core.planning import StagePlan
from mbpo_core.stage import ArtifactRef
from mbpo_core.store import Store
from mbpo_core.store.lineage import readable_manifest
from mbpo_core.store.search import LEAST_DIGITS, by_digest

# What a rerun reads, by stage: run keys without their rounds. A policy is read as the training that made it.
READS: dict[str, tuple[str, ...]] = {
    "samples": (),
    "negatives": ("samples", "pairs", "training"),
    "pairs": ("negatives", "training"),
    "rollouts": ("samples", "rollouts", "training"),
    "training": ("pairs", "negatives/images", "rollouts", "training"),
    "evaluation": ("samples", "training"),
    "report": ("samples", "negatives", "negatives/images", "pairs", "rollouts", "training", "evaluation"),
}
_SHOWN = 8
_PREFIX = re.compile(f"[0-9a-f]{{{LEAST_DIGITS},64}}")
_PLACE = re.compile(r"artifacts/([a-z]+)/([0-9a-f]{2})/(\2[0-9a-f]{62})(/manifest\.json)?")


def resolve_upstream(store: Store, stage: str, upstream: str, run: str) -> dict[str, ArtifactRef]:
    """The artifacts to read in place of the run's latest, by stage.

    Args:
        stage: that reads them.
        upstream: "latest", or digest prefixes and artifact or manifest URIs inside the store, with spaces between.
        run: whose artifacts are named as candidates where something is wrong.

    Raises:
        ConfigError: something is unknown, ambiguous, outside the store, not read by the stage, or one of two of a
            kind; lists every such word.
    """
    words = [word for word in upstream.split() if word != LATEST]
    problems, found = Problems(), dict[str, ArtifactRef]()
    for word in words:
        with problems.noting():
            ref = _resolve(store, stage, word, run)
            if ref.stage in found:
                raise ConfigError(
                    f"upstream names two artifacts of {ref.stage}: {found[ref.stage].digest[:12]} and {word}",
                    remedy="Name one of each kind.",
                )
            found[ref.stage] = ref
    problems.refuse(f"upstream of {stage}")
    return found


def check_read(upstream: dict[str, ArtifactRef], plans: Sequence[StagePlan]) -> None:
    """Refuse an artifact that none of the plans reads, e.g. a checkpoint for the first round.

    Raises:
        ConfigError: names it.
    """
    read = {ref.digest for plan in plans for ref in plan.request.inputs.values()}
    read |= {policy.artifact.digest for plan in plans for policy in plan.request.policies.values() if policy.artifact}
    idle = [ref for ref in upstream.values() if ref.digest not in read]
    if idle:
        raise ConfigError(
            f"{plans[-1].key} would not read {', '.join(f'{ref.key} {ref.digest[:12]}' for ref in idle)}",
            where="upstream",
            expected="artifacts that this stage reads with these settings",
            remedy="Leave it out, or rerun the stage or round that reads it.",
        )


def _resolve(store: Store, stage: str, word: str, run: str) -> ArtifactRef:
    found = _by_place(store, word) if "/" in word else _by_prefix(store, word)
    refs = [ref for address in found if (ref := _ref(store, *address)) is not None]
    fitting = [ref for ref in refs if _family(ref.key) in READS[stage]]
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 1:
        what = f"{word!r} is the beginning of {len(fitting)} digests: {_listed(fitting)}"
    elif refs:
        what = f"{word!r} is {_listed(refs)}, which {stage} does not read"
    else:
        what = f"there is no committed artifact {word!r}"
    raise ConfigError(what, where="upstream", expected=_candidates(store, stage, run), remedy="Name one of them.")


def _by_place(store: Store, word: str) -> list[tuple[str, str]]:
    root, place = _normal(store.root), _normal(word.removeprefix("file://"))
    inside = place.removeprefix(f"{root}/")
    if inside == place:
        raise ConfigError(
            f"{word!r} lies outside the store",
            where="upstream",
            expected=f"an artifact below {store.root}",
            remedy="Name an artifact of this store, by its digest or its manifest.",
        )
    match = _PLACE.fullmatch(inside)
    return [(match[1], match[3])] if match else []


def _by_prefix(store: Store, word: str) -> list[tuple[str, str]]:
    if not _PREFIX.fullmatch(word):
        raise ConfigError(
            f"{word!r} is no digest",
            where="upstream",
            expected=f"{LATEST}, {LEAST_DIGITS} or more of a digest's first characters (0-9, a-f), or a manifest's URI",
            remedy="mbpo show lists the artifacts of a run.",
        )
    return [(found.stage, found.digest) for found in by_digest(store, word)]


def _ref(store: Store, stage: str, digest: str) -> ArtifactRef | None:
    manifest = readable_manifest(store, stage, digest)
    return manifest.ref(store.uri(stage, digest)) if manifest else None


def _normal(place: str) -> str:
    """Without `.`, `..` and doubled slashes; of a URL, all but its protocol."""
    protocol, separator, path = place.rpartition("://")
    return protocol + separator + posixpath.normpath(path)


def _family(key: str) -> str:
    """A run key without its round or baseline: "training" of "training/1"."""
    stage, *rest = key.split("/")
    return f"{stage}/images" if "images" in rest else stage


def _candidates(store: Store, stage: str, run: str) -> str:
    fitting = [ref for key, ref in store.run(run).pointers().items() if _family(key) in READS[stage]]
    if not READS[stage]:
        return f"{LATEST}: {stage} reads nothing of the store"
    return f"{LATEST}, or an artifact like {_listed(fitting)}" if fitting else f"{LATEST}: run {run} has none yet"


def _listed(refs: Sequence[ArtifactRef]) -> str:
    shown = [f"{ref.key} {ref.digest[:12]}" for ref in refs[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(refs) - _SHOWN} more" if len(refs) > _SHOWN else "")
