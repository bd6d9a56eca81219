"""Why a row cannot be used."""

from __future__ import annotations


class Unusable(Exception):
    """A row is kept aside: `reason` from the stage's closed set, `detail` in prose."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail
