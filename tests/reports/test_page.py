"""The page as a browser would take it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from mbpo_core.config import ReportConfig
from mbpo_core.methods import METHODS, title_of
from mbpo_core.reports.page import build_page
from tests.reports.fake_run import fake_run, plan_of
from tests.reports.hostile import spoiled_run

SECTIONS = ("results", "funnel", "negatives", "pairs", "training", "rollouts", "changes", "lineage")
VOID = {"meta", "link", "img", "br", "input", "rect"}


class Page(HTMLParser):
    """Tags with attributes, ids, text, and whether every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    return fake_run(30)


@pytest.fixture(scope="module")
def runs(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"mbpo": run} | {method: fake_run(30, method=method) for method in ("mbpo_counterfactual", "image")}


@pytest.fixture(scope="module")
def html(run: dict[str, Any]) -> str:
    return build_page(run, ReportConfig(pairs=6, predictions=5))


def sections(page: Page) -> list[str | None]:
    return [attributes["id"] for attributes in page.named("section")]


def test_page_is_well_formed_with_all_sections(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert sections(page) == list(SECTIONS)
    links = [link["href"] for link in page.named("a")]
    assert links == [f"#{section}" for section in SECTIONS]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_and_only_our_own_script_and_style_count(html: str) -> None:
    page = Page(html)
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    style = html[html.index("<style>") + 7 : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http://" not in html
    assert "https://" not in html
    assert len(page.named("script")) == html.count("<script") == 1
    script = html[html.index("<script>") + 8 : html.index("</script>")]
    (policy,) = (meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy == (
        f"default-src 'none'; img-src data:; style-src '{sha256(style)}'; script-src '{sha256(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_counts_of_what_is_shown(html: str) -> None:
    page = Page(html)
    pictures = page.named("img")
    assert len(pictures) == 6 * 3 + 16 + 5
    assert all(image["alt"] for image in pictures)
    assert all(image["class"] == "pixels" for image in pictures)
    assert len(page.named("article")) == 6 + 16 + 5
    assert "4 of 15 pairs that were kept and 2 of 10 that were dropped" in html


def test_cards_carry_what_their_form_asks_for(html: str) -> None:
    """Every filter and order of a form is an attribute of its cards; without the script the form stays hidden."""
    page = Page(html)
    forms = page.named("form")
    assert [form["data-cards"] for form in forms] == ["pair-cards", "rollout-cards", "change-cards"]
    assert all("hidden" in form for form in forms)
    names = {select["name"] or "" for select in page.named("select")} - {"sort"}
    assert {"kind", "object", "kept", "flip", "rewards", "change", "probe"} <= names
    told = {name.removeprefix("data-") for article in page.named("article") for name in article}
    assert names <= told
    values = [option["value"] or "" for option in page.named("option")]
    orders = {value.split(" ")[1] for value in values if value.startswith(("up ", "down "))}
    assert {"gain", "rejected", "lead", "reward"} <= orders <= told
    assert {field["data-of"] for field in page.named("input")} == {"gain"}


def test_tables_have_headers_and_captions(html: str) -> None:
    page = Page(html)
    assert len(page.named("table")) == len(page.named("caption")) == 8
    assert all(header["scope"] in ("row", "col", "rowgroup") for header in page.named("th"))
    drawings = [svg for svg in page.named("svg") if svg.get("class") == "chart"]
    assert drawings
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in drawings)


def test_equal_inputs_give_equal_bytes(html: str) -> None:
    assert build_page(fake_run(30), ReportConfig(pairs=6, predictions=5)) == html


@pytest.mark.parametrize(
    "left", [(), ("evaluation",), ("pairs",), ("negatives",), ("training/sft",), ("rollouts/1",), ("samples",)]
)
def test_sections_without_inputs_are_left_out(run: dict[str, Any], left: tuple[str, ...]) -> None:
    page = Page(build_page({key: run[key] for key in left}, ReportConfig(pairs=2, rollouts=2, predictions=2)))
    assert page.open == []
    ids = set(sections(page))
    expected = {
        "evaluation": {"results", "changes"}, "pairs": {"pairs", "funnel"}, "negatives": {"negatives", "funnel"},
        "training/sft": {"training"}, "rollouts/1": {"rollouts"}, "samples": {"funnel"},
    }  # fmt: skip
    assert ids == (set().union(*(expected[key] for key in left)) | ({"lineage"} if left else set()))


def _shapes() -> list[Any]:
    """A method for each combination of what the page tells runs apart by; two of three are marked slow."""
    plans = {method: plan_of(method) for method in METHODS}
    shapes = {
        (plan.negatives == "adversarial", plan.images is not None, plan.mined, plan.online, plan.image_only): method
        for method, plan in plans.items()
    }
    chosen = sorted(shapes.values())
    return [pytest.param(method, marks=[pytest.mark.slow] if at % 3 else []) for at, method in enumerate(chosen)]


@pytest.mark.parametrize("method", _shapes())
def test_a_run_of_any_method_has_its_sections_and_its_name(method: str) -> None:
    run, plan = fake_run(12, method=method), plan_of(method)
    page = Page(build_page(run, ReportConfig(title="A run", pairs=4, rollouts=2, predictions=2)))
    assert page.open == []
    ids = set(sections(page))
    absent = set() if plan.mined else {"negatives", "pairs"}
    absent |= set() if plan.online else {"rollouts"}
    absent |= set() if plan.images else {"images"}
    assert ids == {*SECTIONS, "images"} - absent
    text = "".join(page.text)
    title = title_of(method)
    assert f"{title} − base" in text
    assert f"Loss of {title}" in text
    assert f"{title} learns from" in text or (plan.mined and plan.online)
    assert "None" not in text
    assert "no values" not in text
    assert "no readable image" not in text
    attacked = plan.mined and plan.negatives == "adversarial"
    assert attacked or "the attack" not in text
    assert attacked or not [image for image in page.named("img") if "attack" in (image["alt"] or "")]


PRINTABLE = (
    "<script>alert(1)</script> \"'><img src=x onerror=alert(1)> </style></svg></title></script><b onclick='x'> "
    "{{ 7 * 7 }}{% raw %} javascript:alert(1) $\\frac{1}{2}$"
)


@pytest.mark.parametrize(
    ("text", "method"),
    [
        (PRINTABLE, "mbpo"),
        (PRINTABLE, "mbpo_counterfactual"),
        (PRINTABLE, "image"),
        ("\x00\x1b[31m&lt;b&gt;\u202e", "mbpo_counterfactual"),
    ],
)
def test_hostile_strings_stay_text(runs: dict[str, dict[str, Any]], text: str, method: str) -> None:
    run, spoiled = runs[method], spoiled_run(runs[method], text)
    tame = Page(build_page(run, ReportConfig(pairs=2, rollouts=2, predictions=2)))
    page = Page(build_page(spoiled, ReportConfig(title=text, pairs=2, rollouts=2, predictions=2)))
    assert page.open == []
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in tame.tags} | {"span", "div"}
    attributes = {name for _, found in page.tags for name in found}
    assert attributes <= {name for _, found in tame.tags for name in found} | {"title"}
    assert len(page.named("script")) == 1
    assert "49" not in page.text
    if text.isprintable():
        assert text in "".join(page.text)


def test_pictures_that_cannot_be_read_leave_a_place(run: dict[str, Any]) -> None:
    rows = [
        row | {"images": [{"bytes": b"broken", "path": None}], "rejected_images": []} for row in run["pairs"].rows()
    ]
    spoiled = {"pairs": replace(run["pairs"], tables=run["pairs"].tables | {"part": rows, "scored": rows})}
    page = Page(build_page(spoiled, ReportConfig(pairs=2)))
    assert page.named("img") == []
    assert "".join(page.text).count("no readable image") == 2  # no wrong image was made: no place for one
    rows = [row | {"rejected_images": [{"bytes": b"broken", "path": None}]} for row in rows]
    spoiled = {"pairs": replace(run["pairs"], tables=run["pairs"].tables | {"part": rows, "scored": rows})}
    assert "".join(Page(build_page(spoiled, ReportConfig(pairs=2))).text).count("no readable image") == 4


def test_a_line_of_100_kb_is_cut_and_counted(run: dict[str, Any]) -> None:
    line = "x" * 100_000
    page = build_page(spoiled_run(run, line), ReportConfig(title="A run", pairs=2, rollouts=2, predictions=2))
    assert "x" * 2_000 + " … (98,000 more characters)" in page
    assert len(page) < 2e6


def test_a_page_that_would_be_too_large_shows_fewer_cards(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"rollouts/0": run["rollouts/0"]}
    sizes = [len(build_page(groups, ReportConfig(rollouts=count)).encode()) for count in (16, 8, 4)]
    monkeypatch.setattr("mbpo_core.reports.page.LARGEST", (sizes[1] + sizes[2]) // 2)
    page = build_page(groups, ReportConfig(rollouts=16))
    assert (len(page.encode()), len(Page(page).named("article"))) == (sizes[2], 4)
    monkeypatch.setattr("mbpo_core.reports.page.LARGEST", 10)
    assert Page(build_page(groups, ReportConfig(rollouts=16))).named("article") == []


def test_page_of_the_demo_stays_small(run: dict[str, Any]) -> None:
    assert len(build_page(run, ReportConfig())) < 4e6
