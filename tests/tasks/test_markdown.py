"""Whatever data holds, a page shows it as text."""

from __future__ import annotations

import re

import pytest

from mbpo_core.markdown import escaped, fenced, table
from mbpo_core.reports import page
from mbpo_core.stages import STAGES
from tasks.markdown import page_key


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a | b", r"a \| b"),
        ("`code`", r"\`code\`"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[x](javascript:y)", r"\[x\](javascript:y)"),
        ("two\nlines\r\n# no heading", r"two lines \# no heading"),
        ("a\\|b", r"a\\\|b"),
        ("&lt;", "&amp;lt;"),
        (3.5, "3.5"),
    ],
)
def test_signs_lose_their_meaning(text: object, shown: str) -> None:
    assert escaped(text) == shown


def test_a_cell_cannot_leave_its_cell() -> None:
    lines = table(("stage", "because"), [(["pairs"], ["x | y", "second\nline"])]).splitlines()
    assert lines == ["| stage | because |", "|---|---|", r"| pairs | x \| y<br>second line |"]


def test_a_fence_is_longer_than_any_in_the_text() -> None:
    assert fenced("a\n````\nb").splitlines()[0] == "`````text"
    assert fenced("plain").splitlines() == ["```text", "plain", "```"]


def test_keys_are_what_prefect_allows() -> None:
    assert page_key("training/1", "rows") == "mbpo-training-1-rows"
    assert page_key("Negatives/images/0_x") == "mbpo-negatives-images-0-x"


def test_links_lead_to_sections_that_the_report_has() -> None:
    from tasks.notes import SECTIONS

    template = (page._TEMPLATES / "report.html.j2").read_text(encoding="utf-8")
    assert set(SECTIONS.values()) <= set(re.findall(r'<section id="([a-z]+)"', template))
    assert set(STAGES) - {"report"} <= set(SECTIONS)
