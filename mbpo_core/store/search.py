"""Finding artifacts by what people call them: a run's key, a stage of it, or the beginning of a digest."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import NamedTuple

from mbpo_core.errors import StoreError
from mbpo_core.store.core import Store

LEAST_DIGITS = 6
_DIGEST = re.compile(rf"^[0-9a-f]{{{LEAST_DIGITS},64}}$")
_SHOWN = 5  # candidates that a message names


class Found(NamedTuple):
    """An artifact, and what it was found under: a run's key, or its stage where a digest was given."""

    key: str
    stage: str
    digest: str


def find(store: Store, what: str, run: str | None = None) -> list[Found]:
    """The artifacts that a word means, whether they are intact or not.

    Args:
        what: a key of the run (pairs, training/1), a stage of it (all its keys), or six or more digits of a digest of
            any artifact in the store.
        run: whose keys are meant; None looks for digests only.

    Returns:
        Empty if the word means nothing.

    Raises:
        StoreError: several digests begin so; names them.
    """
    pointers = store.run(run).pointers() if run else {}
    keys = [key for key in pointers if what in (key, key.split("/")[0])]
    return [Found(key, pointers[key].stage, pointers[key].digest) for key in keys] or _only_one(
        store, what, by_digest(store, what)
    )


def find_some(store: Store, what: str, run: str | None = None) -> list[Found]:
    """The same, where there must be something.

    Raises:
        StoreError: the word means nothing, or several digests; names what is like it.
    """
    found = find(store, what, run)
    if found:
        return found
    keys = list(store.run(run).pointers()) if run else []
    near = get_close_matches(what, keys, n=_SHOWN, cutoff=0.4) or keys
    known = f"run {run!r} has {', '.join(near)}" if keys else f"known runs: {runs_like(store, run)}"
    raise StoreError(
        f"there is no artifact {what!r}",
        where=f"{store.root}" + (f", run {run}" if run else ""),
        expected=f"a key of the run or {LEAST_DIGITS} or more digits of a digest; {known}",
        remedy="mbpo runs lists the runs, and mbpo show --run NAME what one has.",
    )


def runs_like(store: Store, run: str | None) -> str:
    """The store's runs for a message, those whose names are like it first; a store may hold thousands."""
    runs = store.runs()
    near = get_close_matches(run or "", runs, n=_SHOWN, cutoff=0.4)
    shown = [*near, *(other for other in runs if other not in near)][:_SHOWN]
    more = f" and {len(runs) - len(shown):,} more" if len(runs) > len(shown) else ""
    return f"{', '.join(shown)}{more}" if runs else "none yet"


def by_digest(store: Store, what: str) -> list[Found]:
    """Every committed artifact whose digest begins so; none where the word is too short or no digest."""
    if not _DIGEST.fullmatch(what):
        return []
    return [
        Found(stage, stage, digest)
        for stage in store.files.names("artifacts")
        for digest in store.files.names(f"artifacts/{stage}/{what[:2]}")
        if digest.startswith(what) and store.is_committed(stage, digest)
    ]


def _only_one(store: Store, what: str, found: list[Found]) -> list[Found]:
    if len(found) > 1:
        named = [f"{entry.stage} {entry.digest[: len(what) + 6]}" for entry in found]
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        raise StoreError(
            f"{len(found)} digests begin with {what}",
            where=store.root,
            expected=f"one of {', '.join(named[:_SHOWN])}{more}",
            remedy="Give more digits.",
        )
    return found
