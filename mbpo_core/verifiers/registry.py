"""The verifiers by question kind, with the version that enters an artifact's identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers import multiple_choice, numeric, short_text, yes_no
from mbpo_core.verifiers.form import follows_form
from mbpo_core.verifiers.judgement import TEXT_LIMIT, Judgement

__all__ = [
    "VERIFIERS",
    "Judgement",
    "Verifier",
    "extract",
    "find",
    "follows_form",
    "require_answer",
    "verify",
    "versions",
]


@dataclass(frozen=True)
class Verifier:
    """How answers of one kind are read and judged; version grows when a verdict could change."""

    name: str
    version: int
    extract: Callable[[str, Sequence[str]], str | None]
    judge: Callable[[str, str, Sequence[str], str], Judgement]

    @property
    def label(self) -> str:
        """Name and version as records carry it, e.g. yes_no@1."""
        return f"{self.name}@{self.version}"


VERIFIERS: dict[str, Verifier] = {
    module.NAME: Verifier(module.NAME, module.VERSION, module.extract, module.judge)
    for module in (yes_no, multiple_choice, numeric, short_text)
}


def find(kind: str) -> Verifier:
    """The verifier of a question kind.

    Raises:
        VerifierError: there is none; the message names those there are.
    """
    if kind not in VERIFIERS:
        raise VerifierError(
            f"no verifier for question kind {kind!r}",
            expected=f"one of {', '.join(VERIFIERS)}",
            remedy="Ask closed-ended questions online, or correct the kind column.",
        )
    return VERIFIERS[kind]


def versions() -> dict[str, int]:
    """Name -> version of every verifier, for identities."""
    return {name: verifier.version for name, verifier in VERIFIERS.items()}


def extract(kind: str, text: str, choices: Sequence[str] = ()) -> str | None:
    """The answer that a text gives to a question of this kind, in the verifier's normal form, or None.

    Raises:
        VerifierError: no verifier for the kind.
    """
    verifier = find(kind)
    return verifier.extract(text, choices) if len(text) <= TEXT_LIMIT else None


def verify(kind: str, text: str, answer: str, choices: Sequence[str] = (), answer_form: str = "free") -> Judgement:
    """Judge text against the reference answer.

    Args:
        kind: yes_no, multiple_choice, numeric or short_text.
        text: what the model said, at most TEXT_LIMIT characters (a longer one is unparsed).
        answer: the reference answer, in any form the verifier reads.
        choices: options of a multiple-choice question, A first.
        answer_form: the declared form; the built-in verifiers judge truth whatever the form.

    Raises:
        VerifierError: no verifier for the kind, or it cannot read the reference answer.
    """
    judgement = find(kind).judge(text if len(text) <= TEXT_LIMIT else "", answer, choices, answer_form)
    if len(text) > TEXT_LIMIT:
        return Judgement("unparsed", None, f"longer than {TEXT_LIMIT} characters")
    return judgement


def require_answer(kind: str, answer: str, choices: Sequence[str] = ()) -> None:
    """Check that a reference answer can be verified, before anything is computed for it.

    Raises:
        VerifierError: no verifier for the kind, or it cannot read the reference answer.
    """
    judgement = verify(kind, answer, answer, choices)
    if judgement.verdict != "correct":
        raise VerifierError(
            f"{kind} does not accept its own reference answer {answer!r:.120}: {judgement.reason}",
            remedy="State one answer only.",
        )
