"""Log-probs under a frozen reference, kept in Parquet from one training to the next.

A rerun after a kill, and a training that differs in nothing the reference sees (learning rate, objective of the same
passes, stop rule), read them instead of running the reference again. What is kept is one forward pass: its groups were
scored together, so that what is read is bit by bit what would be computed.

A pass is found by what its groups hold (`GroupSet.fingerprint`) and by what they were scored under. The latter names
the folder and stands in every file as well; a file that says otherwise, or cannot be read, is passed over, which costs
the time to score its groups and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mbpo_core.config import PolicyConfig

Logprobs = list[list[float]]
"""Of each group of a forward pass, all tokens of all passes in their order, nats."""

_UNDER = b"mbpo.scored_under"

_SCHEMA = pa.schema(
    [
        pa.field("forward_pass", pa.string(), nullable=False),  # digest of the groups that were scored together
        pa.field("groups", pa.list_(pa.string()), nullable=False),  # what each of them holds, as a digest
        pa.field("logprobs", pa.list_(pa.list_(pa.float32())), nullable=False),  # see Logprobs
    ]
)


def scored_under(policy_digest: str, config: PolicyConfig, device: str) -> dict[str, Any]:
    """Everything beside the groups that log-probs depend on, to the last bit.

    Args:
        policy_digest: of weights, processor, tokenizer and chat template.
        config: how the model is run.
        device: where.
    """
    settings = config.model_dump(mode="json", exclude={"model", "allow_download", "device"})
    libraries = {name: version(name) for name in ("torch", "transformers")}
    return {"policy": policy_digest, "device": device, **settings, **libraries}


class KeptLogprobs:
    """Forward passes that were made under equal conditions.

    Args:
        root: folder of all conditions.
        under: `scored_under`.
    """

    def __init__(self, root: Path, under: Mapping[str, Any]) -> None:
        self._under = json.dumps(under, sort_keys=True)
        self._folder = root / _digest([self._under])
        self._known: dict[str, Logprobs] = {}
        self._new: dict[str, tuple[Sequence[str], Logprobs]] = {}

    def find(self, passes: Sequence[Sequence[str]]) -> list[Logprobs | None]:
        """Log-probs of each forward pass's groups, told by their fingerprints; None where they are not kept."""
        names = [_digest(groups) for groups in passes]
        wanted = pa.array(names, pa.string())
        for path in sorted(self._folder.glob("*.parquet")):
            with contextlib.suppress(OSError, pa.ArrowException):
                self._read(path, wanted)
        return [self._known.get(name) for name in names]

    def put(self, groups: Sequence[str], logprobs: Logprobs) -> None:
        """Keep those of a forward pass."""
        if (name := _digest(groups)) not in self._known:
            self._new[name] = (groups, logprobs)

    def save(self) -> None:
        """Write what was put; a file appears whole or not at all."""
        if not self._new:
            return
        rows = [{"forward_pass": n, "groups": list(g), "logprobs": values} for n, (g, values) in self._new.items()]
        table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata({_UNDER: self._under.encode()}))
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{_digest(list(self._new))}.parquet"
        partial = path.with_suffix(f".partial-{os.getpid()}")
        pq.write_table(table, partial, compression="zstd")
        partial.replace(path)

    def _read(self, path: Path, wanted: Any) -> None:
        file = pq.ParquetFile(path)
        if (file.schema_arrow.metadata or {}).get(_UNDER) != self._under.encode():
            return
        table = file.read(columns=["forward_pass", "logprobs"])
        for row in table.filter(pc.is_in(table["forward_pass"], wanted)).to_pylist():
            self._known[row["forward_pass"]] = row["logprobs"]


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
