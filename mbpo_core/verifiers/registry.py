"""The verifiers by question kind, with the version that enters an artifact's identity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers import box, counting, mathematics, multiple_choice, numeric, short_text, yes_no
from mbpo_core.verifiers.form import follows_form
from mbpo_core.verifiers.judgement import TEXT_LIMIT, Judgement
from mbpo_core.verifiers.rules import PLAIN, Rules, rules_of

__all__ = [
    "PLAIN",
    "VERIFIERS",
    "Judgement",
    "Rules",
    "Verifier",
    "extract",
    "find",
    "follows_form",
    "require",
    "require_answer",
    "rules_of",
    "verify",
    "versions",
]


@dataclass(frozen=True)
class Verifier:
    """How answers of one kind are read and judged; version grows when a verdict could change."""

    name: str
    version: int
    extract: Callable[[str, Sequence[str], Rules], str | None]
    judge: Callable[[str, str, Sequence[str], Rules], Judgement]

    @property
    def label(self) -> str:
        """Name and version as records carry it, e.g. yes_no@1."""
        return f"{self.name}@{self.version}"


VERIFIERS: dict[str, Verifier] = {
    module.NAME: Verifier(module.NAME, module.VERSION, module.extract, module.judge)
    for module in (yes_no, multiple_choice, numeric, short_text, counting, box, mathematics)
}
_FIRST = ("yes_no", "multiple_choice", "numeric", "short_text")


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
    """Name -> version of the verifiers, for identities.

    A verifier that came later than the first four stands there once its version is above 1: no artifact of the time
    before it was judged by it, so that its coming changes no identity.
    """
    return {name: verifier.version for name, verifier in VERIFIERS.items() if name in _FIRST or verifier.version > 1}


def require(kinds: Iterable[str]) -> None:
    """Check that what verifiers of these kinds need is installed; for stages to call before they load a model.

    Raises:
        ConfigError: it is not.
    """
    if mathematics.NAME in kinds:
        mathematics.require()


def extract(kind: str, text: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> str | None:
    """The answer that a text gives to a question of this kind, in the verifier's normal form, or None.

    Raises:
        VerifierError: no verifier for the kind.
    """
    verifier = find(kind)
    return verifier.extract(text, choices, rules) if len(text) <= TEXT_LIMIT else None


def verify(kind: str, text: str, answer: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> Judgement:
    """Judge text against the reference answer. Truth only: `follows_form` judges form.

    Args:
        kind: one of VERIFIERS.
        text: what the model said, at most TEXT_LIMIT characters (a longer one is unparsed).
        answer: the reference answer, in any form the verifier reads.
        choices: options of a multiple-choice question, A first.
        rules: what the question declares, `rules_of` its meta.

    Raises:
        VerifierError: no verifier for the kind, or it cannot read the reference answer.
    """
    judgement = find(kind).judge(text if len(text) <= TEXT_LIMIT else "", answer, choices, rules)
    if len(text) > TEXT_LIMIT:
        return Judgement("unparsed", None, f"longer than {TEXT_LIMIT} characters")
    return judgement


def require_answer(kind: str, answer: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> None:
    """Check that a reference answer can be verified, before anything is computed for it.

    Raises:
        VerifierError: no verifier for the kind, or it cannot read the reference answer.
    """
    judgement = verify(kind, answer, answer, choices, rules)
    if judgement.verdict != "correct":
        raise VerifierError(
            f"{kind} does not accept its own reference answer {answer!r:.120}: {judgement.reason}",
            remedy="State one answer only.",
        )
    verify(kind, "0", answer, choices, rules)  # equal to itself at a glance, and yet too much to compare: 9^9^9^9
