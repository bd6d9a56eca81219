"""Refusing a request once, with everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mbpo_core.errors import ConfigError, MbpoError


class Problems:
    """What is wrong with a request, gathered so that all of it can be said at once."""

    def __init__(self) -> None:
        self.found: list[MbpoError] = []

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note an error of ours that is raised inside, and go on after the block."""
        try:
            yield
        except MbpoError as error:
            self.found.append(error)

    def refuse(self, request: str) -> None:
        """Refuse the request if anything was noted.

        Args:
            request: what was asked, e.g. "rerun pairs of run demo".

        Raises:
            MbpoError: the one problem, as it was raised.
            ConfigError: all of them, each with its remedy.
        """
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            listed = "\n".join(f"  {number}. {error}" for number, error in enumerate(self.found, start=1))
            raise ConfigError(f"{len(self.found)} things are wrong with this request, {request}:\n{listed}")
