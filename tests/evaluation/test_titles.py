"""What policies are called, and that tables call them so."""

from __future__ import annotations

import pytest

from mbpo_core.evaluation.summary import summarize
from mbpo_core.evaluation.table import summary_markdown
from mbpo_core.methods import METHODS, TITLES, title_of
from tests.evaluation.rows import prediction


def test_every_method_has_a_title_of_its_own() -> None:
    assert set(METHODS) <= set(TITLES)
    titles = [title_of(method) for method in METHODS]
    assert len(set(titles)) == len(titles)
    assert "base" not in titles


def test_the_methods_own_policy_is_called_as_the_method_is() -> None:
    assert title_of("trained") == title_of("mbpo") == "MBPO"
    assert title_of("base") == "base"
    assert title_of("of nobody") == "of nobody"


@pytest.mark.parametrize(("method", "title"), [("mbpo", "MBPO"), ("mfpo", "MFPO"), ("dr_grpo", "Dr. GRPO")])
def test_table_has_the_titles(method: str, title: str) -> None:
    label = "trained" if method == "mbpo" else method
    rows = [prediction(number, policy=policy) for policy in ("base", "sft", label) for number in range(3)]
    text = summary_markdown(summarize(rows, bootstrap=20))
    assert text.splitlines()[0] == f"| metric | base | SFT | {title} | {title} − base |"
