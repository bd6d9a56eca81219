"""Short text: a word or a few, or a sentence that says them ("The banana is green.")."""

from __future__ import annotations

from collections.abc import Sequence

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers.judgement import Judgement
from mbpo_core.verifiers.rules import PLAIN, Rules
from mbpo_core.verifiers.text import claims, tokens

NAME, VERSION = "short_text", 2  # 2: aliases
LONGEST_REFERENCE = 30  # tokens

# Words a subject may hold without naming another thing than the reference does.
_NEUTRAL = frozenset(
    {"it", "its", "this", "that", "these", "those", "they", "there", "here", "answer", "final", "correct", "color"}
    | {"shape", "object", "thing", "item", "one", "main", "of", "in", "on", "at", "image", "picture", "photo", "scene"}
    | {"shown", "i", "think", "believe", "say", "see", "would", "can", "and", "so", "thus", "therefore", "yes", "no"}
)


def extract(text: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> str | None:
    """The short answer a text gives, normalised (case, punctuation, articles); several are joined by "; ".

    A text that gives several answers therefore equals no single reference answer.
    """
    values = dict.fromkeys(" ".join(claim.value) for claim in claims(text))
    return "; ".join(values) or None


def judge(text: str, answer: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> Judgement:
    """Equal normalised texts, or the same single short answer, are correct; so they are to one of `rules.aliases`.

    A reference sentence with a subject ("The banana is green.") also asks that the text name no
    other subject: "The tomato is green." is wrong, "Green" and "It is green." are correct. A
    reference of one or a few words puts no condition on the subject.

    Raises:
        VerifierError: the reference or an alias is empty or longer than LONGEST_REFERENCE tokens.
    """
    judgement = _judge(text, answer)
    for alias in rules.aliases:
        other = _judge(text, alias)
        if judgement.verdict != "correct" and other.verdict == "correct":
            judgement = Judgement("correct", other.extracted, f"{other.reason}, by its alias {alias!r:.80}")
    return judgement


def _judge(text: str, answer: str) -> Judgement:
    gold_words = tokens(answer)
    if not gold_words or len(gold_words) > LONGEST_REFERENCE:
        raise VerifierError(
            f"short_text cannot verify the reference answer {answer!r:.120}",
            expected=f"1 to {LONGEST_REFERENCE} words",
            remedy="Declare the question open, or shorten its answer.",
        )
    if tokens(text) == gold_words:
        return Judgement("correct", extract(text) or " ".join(gold_words), "equals the reference answer")
    found = extract(text)
    if found is None:
        return Judgement("unparsed", None, "no short answer in the text")
    gold_claims = claims(answer)
    gold = extract(answer) if len(gold_claims) == 1 else None
    if found != gold:
        return Judgement("wrong", found, f"says {found!r}, but the reference answer is {gold or answer!r}")
    subject = set(gold_claims[0].subject)
    others = [word for claim in claims(text) for word in claim.subject if word not in subject | _NEUTRAL]
    if subject and others:
        return Judgement("wrong", found, f"says {found!r} of {' '.join(others)!r}, not of {' '.join(subject)!r}")
    return Judgement("correct", found, f"says {found!r}, as the reference answer")
