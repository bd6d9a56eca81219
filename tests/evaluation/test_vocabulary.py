"""Reading objects and colours out of captions."""

from __future__ import annotations

import pytest

from mbpo_core.evaluation.vocabulary import Mention, Vocabulary, split_words, vocabulary_of

WORDS = Vocabulary(
    {"dog": "dog", "hot dog": "hot dog", "cherry": "cherry", "box": "box", "man": "person", "men": "person"},
    frozenset({"red", "green"}),
)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog and two dogs.", [("dog", None), ("dog", None)]),
        ("A red hot dog, beside green cherries", [("hot dog", "red"), ("cherry", "green")]),
        ("The hot dog is green; the dog is not red.", [("hot dog", "green"), ("dog", None)]),
        ("Hot dogs in boxes", [("hot dog", None), ("box", None)]),
        ("Men and a MAN", [("person", None), ("person", None)]),
        ("A dogma; a red and green thing", []),
        ("red dog-house", []),
        ("", []),
    ],
)
def test_mentions(caption: str, expected: list[tuple[str, str | None]]) -> None:
    assert WORDS.mentions(caption) == [Mention(*pair) for pair in expected]


def test_words_leave_out_punctuation() -> None:
    assert split_words("A dog's bone, twenty-one_ bones!") == ["a", "dog's", "bone", "twenty-one", "bones"]


def test_vocabulary_comes_from_meta_or_from_the_demo() -> None:
    assert vocabulary_of({}) is None
    assert vocabulary_of({"objects": ["dog"]}) is None
    mapped = vocabulary_of({"vocabulary": {"Puppy": "dog"}, "colors": ["Red"]})
    assert mapped is not None
    assert mapped.mentions("a red puppy") == [Mention("dog", "red")]
    listed = vocabulary_of({"vocabulary": ["Fire truck"], "scene": []})
    assert listed is not None
    assert listed.mentions("two fire trucks") == [Mention("Fire truck", None)]
    demo = vocabulary_of({"scene": []})
    assert demo is not None
    assert demo.mentions("two purple aubergines and a chick") == [Mention("eggplant", "purple"), Mention("chick", None)]
