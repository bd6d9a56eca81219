"""Yes or no, by the first word of a sentence or after "the answer is"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers.judgement import Judgement, Reading, compare
from mbpo_core.verifiers.rules import PLAIN, Rules
from mbpo_core.verifiers.text import clean, sentences, tokens

NAME, VERSION = "yes_no", 2  # 2: "no-one" is no answer

_WORDS = {"yes": "yes", "yeah": "yes", "yep": "yes", "no": "no", "nope": "no"}
_ANNOUNCED = re.compile(
    r"\b(?:answer\s?(?:is|:|would be)|would say|i'd say|i say|i think)[ :,\"'(]{0,3}(\w+)", re.IGNORECASE
)
# "No idea" answers nothing; after a comma it would ("No, image ...").
_NO_ANSWER = frozenset(
    {"idea", "clue", "doubt", "problem", "one", "comment", "answer", "information", "image", "picture"}
)
_JOINERS = frozenset({"and", "or", "but"})


def extract(text: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> str | None:
    """ "yes", "no", or None; "know", "none" and "not" are no answers."""
    return read(text).value


def judge(text: str, answer: str, choices: Sequence[str] = (), rules: Rules = PLAIN) -> Judgement:
    """Compare yes with no; whatever follows ("No, the banana is green.") is not looked at.

    Raises:
        VerifierError: the reference answer says neither, or both.
    """
    gold = read(answer)
    if gold.value is None:
        raise VerifierError(
            f"yes_no cannot read the reference answer {answer!r:.120}: {gold.reason}",
            expected="an answer that starts with yes or no",
            remedy="Correct the answer or the question's kind.",
        )
    return compare(read(text), gold.value)


def read(text: str) -> Reading:
    """Announced answers ("the answer is no") decide, else the first words of sentences; they must agree."""
    plain = clean(text)
    announced = {_WORDS[word] for word in map(str.casefold, _ANNOUNCED.findall(plain)) if word in _WORDS}
    found = announced or {said for sentence in sentences(plain) for said in _opening(sentence)}
    if len(found) == 2:
        return Reading(None, "says both yes and no")
    if not found:
        return Reading(None, "says neither yes nor no")
    value = found.pop()
    return Reading(value, f"{'announces' if announced else 'opens with'} {value!r}")


def _opening(sentence: str) -> set[str]:
    """The answers a sentence opens with: none, one, or both ("Yes and no", "Yes, no")."""
    words = tokens(sentence)
    first = _WORDS.get(words[0]) if words else None
    if first is None:
        return set()
    bare = re.match(r"\W{0,3}no[\s-](?=\w)", sentence, re.IGNORECASE) is not None
    if bare and len(words) > 1 and words[1] in _NO_ANSWER:
        return set()
    found = {first}
    for clause in re.split(r"[,:/]", sentence)[1:]:
        word = clause.strip(" \"'.)-").casefold()
        if word in _WORDS:
            found.add(_WORDS[word])
    rest = words[1:]
    while rest and rest[0] in _JOINERS:
        rest = rest[1:]
    if len(rest) < len(words) - 1 and rest and rest[0] in _WORDS:
        found.add(_WORDS[rest[0]])
    return found
