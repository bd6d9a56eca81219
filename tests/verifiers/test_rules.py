"""What a question declares in its meta."""

from __future__ import annotations

import pytest

from mbpo_core.errors import VerifierError
from mbpo_core.verifiers.registry import PLAIN, Rules, rules_of
from mbpo_core.verifiers.rules import without_aliases


def test_rules_are_read_and_other_keys_left() -> None:
    meta = '{"aliases": ["couch"], "tolerance": 0.05, "box_scale": "unit", "box_iou": 0.7, "probe": "x"}'
    assert rules_of(meta) == Rules(("couch",), 0.05, "unit", 0.7)
    assert rules_of(meta).without_aliases() == Rules((), 0.05, "unit", 0.7)


@pytest.mark.parametrize("meta", ["{}", '{"probe": "x"}', "no JSON", "[1]", "3"])
def test_nothing_is_declared(meta: str) -> None:
    assert rules_of(meta) is PLAIN


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ('{"aliases": "couch"}', "meta.aliases is 'couch'; expected a list of texts"),
        ('{"aliases": [1]}', "expected a list of texts"),
        ('{"tolerance": 1}', "meta.tolerance is 1; expected a share in"),
        ('{"tolerance": "5%"}', "expected a share in"),
        ('{"tolerance": true}', "expected a share in"),
        ('{"tolerance": NaN}', "expected a share in"),
        ('{"box_iou": 0}', "expected a share in"),
        ('{"box_scale": ["unit"]}', "expected one of pixels, unit, thousand"),
    ],
)
def test_a_rule_that_cannot_be_is_an_error(meta: str, message: str) -> None:
    with pytest.raises(VerifierError) as error:
        rules_of(meta)
    assert message in str(error.value)


def test_a_new_answer_has_no_aliases_of_the_old() -> None:
    assert without_aliases('{"aliases": ["couch"], "probe": "x"}') == '{"probe": "x"}'
    assert without_aliases('{"probe":"x"}') == '{"probe":"x"}'
