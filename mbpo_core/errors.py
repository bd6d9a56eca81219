"""Errors that say what, where, expected and remedy."""

from __future__ import annotations


class MbpoError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        what: what is wrong, with the offending value.
        where: file, field, row or artifact where it was found.
        expected: what would have been right.
        remedy: what the reader can do now.
    """

    def __init__(self, what: str, *, where: str = "", expected: str = "", remedy: str = "") -> None:
        self.what, self.where, self.expected, self.remedy = what, where, expected, remedy
        super().__init__(self._prose())

    def _prose(self) -> str:
        text = self.what.rstrip(".")
        if self.where:
            text += f" ({self.where})"
        if self.expected:
            text += f"; expected {self.expected.rstrip('.')}"
        return f"{text}. {self.remedy}".strip() if self.remedy else f"{text}."


class ConfigError(MbpoError):
    """A setting is missing, unknown or out of bounds."""


class DataError(MbpoError):
    """Input data cannot be read or does not have the declared form."""


class UnusableImage(DataError):
    """A picture cannot be decoded, or not be brought into the model's form; its row is kept aside."""


class SchemaError(DataError):
    """A table's columns differ from the schema of its kind."""


class ShapeError(MbpoError, ValueError):
    """A tensor argument has the wrong shape."""


class ModelError(MbpoError):
    """A model folder cannot serve as a policy (no chat template, unknown family, ...)."""


class VerifierError(MbpoError):
    """A verifier is unknown or cannot read a reference answer."""


class StoreError(MbpoError):
    """The artifact store cannot do what was asked."""


class DamagedArtifact(StoreError):
    """A committed artifact no longer matches its manifest."""


class LeaseHeld(StoreError):
    """Another live worker is writing the same artifact."""


class GpuUnavailable(MbpoError):
    """An accelerator that is needed is not there, not free, or not to be seen; passes by itself, so it is retried."""


class StoreFull(StoreError):
    """No space left where the store writes."""


class EngineError(MbpoError):
    """What samples rollouts cannot be reached, refuses what it is asked, or answers something else."""


class TooManyDropped(DataError):
    """More rows were dropped than the stage allows; carries the top reasons."""


class TrainingDiverged(MbpoError):
    """A loss or gradient is not finite."""


class WorkerFailed(MbpoError):
    """A launched worker process ended with an error; carries the last log lines."""
