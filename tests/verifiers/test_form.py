"""The declared answer forms."""

from __future__ import annotations

import pytest

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers.form import LONGEST, follows_form

CHOICES = ["cat", "dog", "bird", "fish"]

FOLLOWS = [
    ("sentence", "short_text", "The banana is green."),
    ("sentence", "short_text", "The banana is purple."),  # form, not truth
    ("sentence", "yes_no", "No, there is no dog."),
    ("sentence", "numeric", "There are 3.5 litres."),
    ("sentence", "numeric", "3 objects are there."),
    ("word", "short_text", "green"),
    ("word", "short_text", "Green."),
    ("word", "short_text", "T-shirt"),
    ("word", "yes_no", "Yes"),
    ("word", "yes_no", "no."),
    ("letter", "multiple_choice", "B"),
    ("letter", "multiple_choice", "(B)"),
    ("letter", "multiple_choice", "D."),
    ("number", "numeric", "3"),
    ("number", "numeric", "-1,234.5"),
    ("number", "numeric", "50%"),
    ("corners", "box", "[10, 20, 30, 40]"),
    ("corners", "box", "(10,20),(30,40)"),
    ("boxed", "math", "\\boxed{\\frac{1}{2}}"),
    ("boxed", "math", "It is long: " + "x" * LONGEST + " \\boxed{3}"),
    ("free", "open", "anything at all"),
]

DOES_NOT = [
    ("sentence", "short_text", "green"),
    ("sentence", "short_text", "Green."),
    ("sentence", "short_text", "The banana is green"),
    ("sentence", "short_text", "the banana is green."),
    ("sentence", "short_text", "The banana is green. It is green."),
    ("sentence", "short_text", ""),
    ("word", "short_text", "light green"),
    ("word", "short_text", "The banana is green."),
    ("word", "short_text", "green!"),
    ("word", "yes_no", "green"),
    ("word", "yes_no", "know"),
    ("word", "yes_no", "Yes, it is"),
    ("letter", "multiple_choice", "E"),
    ("letter", "multiple_choice", "b"),
    ("letter", "multiple_choice", "B) dog"),
    ("letter", "multiple_choice", "dog"),
    ("letter", "multiple_choice", "AB"),
    ("number", "numeric", "three"),
    ("number", "numeric", "3 objects"),
    ("number", "numeric", "3 4"),
    ("number", "numeric", "1,23"),
    ("corners", "box", "10, 20, 30, 40"),
    ("corners", "box", "The dog is at [10, 20, 30, 40]."),
    ("corners", "box", "[10, 20, 30]"),
    ("corners", "box", "[10, 20, 30, 40], [1, 2, 3, 4]"),
    ("boxed", "math", "3"),
    ("boxed", "math", "\\boxed{}"),
    ("boxed", "math", "\\boxed{3"),
    ("boxed", "math", "\\boxed{3} \\boxed{4}"),
    ("boxed", "math", "x" * 20_001 + "\\boxed{3}"),
    ("free", "open", "   "),
    ("free", "open", "x" * (LONGEST + 1)),
    ("sentence", "short_text", "The banana is " + "very " * LONGEST + "green."),
]


@pytest.mark.parametrize(("form", "kind", "text"), FOLLOWS)
def test_follows(form: str, kind: str, text: str) -> None:
    assert follows_form(form, kind, text, CHOICES)


@pytest.mark.parametrize(("form", "kind", "text"), DOES_NOT)
def test_does_not_follow(form: str, kind: str, text: str) -> None:
    assert not follows_form(form, kind, text, CHOICES)


def test_an_unknown_form_is_named_with_the_known_ones() -> None:
    with pytest.raises(VerifierError, match="unknown answer form 'haiku'; expected one of sentence, word, letter"):
        follows_form("haiku", "open", "x")
