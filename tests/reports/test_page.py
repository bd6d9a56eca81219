"""The page as a browser would take it."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from mbpo_core.config import ReportConfig
from mbpo_core.methods import METHODS, title_of
from mbpo_core.reports.page import build_page
from tests.reports.fake_run import MemoryReader, fake_run, plan_of

SECTIONS = ("results", "funnel", "negatives", "pairs", "training", "rollouts", "changes", "lineage")
VOID = {"meta", "link", "img", "br", "path", "line", "circle", "rect"}


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


def test_page_is_well_formed_with_all_sections(html: str) -> None:
    page = Page(html)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert ids == list(SECTIONS)
    links = [link["href"] for link in page.named("a")]
    assert links == [f"#{section}" for section in SECTIONS]


def test_nothing_is_loaded_or_run(html: str) -> None:
    page = Page(html)
    assert page.named("script") == []
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http://" not in html
    assert "https://" not in html
    assert "default-src 'none'" in html


def test_counts_of_what_is_shown(html: str) -> None:
    page = Page(html)
    pictures = page.named("img")
    assert len(pictures) == 6 * 3 + 8 + 5
    assert all(image["alt"] for image in pictures)
    assert all(image["class"] == "pixels" for image in pictures)
    assert html.count('<article class="card">') == 6 + 8 + 5
    assert "6 of 15 pairs" in html


def test_tables_have_headers_and_captions(html: str) -> None:
    page = Page(html)
    assert len(page.named("table")) == len(page.named("caption")) == 7
    assert all(header["scope"] in ("row", "col", "rowgroup") for header in page.named("th"))
    drawings = [svg for svg in page.named("svg") if svg.get("class") in ("chart", "track")]
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
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    expected = {
        "evaluation": {"results", "changes"}, "pairs": {"pairs", "funnel"}, "negatives": {"negatives", "funnel"},
        "training/sft": {"training"}, "rollouts/1": {"rollouts"}, "samples": {"funnel"},
    }  # fmt: skip
    assert ids == (set().union(*(expected[key] for key in left)) | ({"lineage"} if left else set()))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_any_method_has_its_sections_and_its_name(method: str) -> None:
    run, plan = fake_run(12, method=method), plan_of(method)
    page = Page(build_page(run, ReportConfig(title="A run", pairs=4, rollouts=2, predictions=2)))
    assert page.open == []
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
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


def hostile(value: Any, text: str) -> Any:
    """Every string of a row replaced, but verdicts, messages' fixed words and JSON."""
    if isinstance(value, dict):
        kept = ("role", "type", "verdict", "blind_verdict", "meta", "policy", "split", "finish_reason", "attack")
        return {key: item if key in kept else hostile(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item, text) for item in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "\"'><img src=x onerror=alert(1)>",
        "</style></svg></title><b onclick='x'>",
        "{{ 7 * 7 }}{% raw %}",
        "javascript:alert(1)",
        "\x00\x1b[31m&lt;b&gt;\u202e",
    ],
)
@pytest.mark.parametrize("method", ["mbpo", "mbpo_counterfactual", "image"])
def test_hostile_strings_stay_text(runs: dict[str, dict[str, Any]], text: str, method: str) -> None:
    run, spoiled = runs[method], {}
    for key, source in run.items():
        assert isinstance(source, MemoryReader)
        tables = {name: hostile(rows, text) for name, rows in source.tables.items()}
        for row in tables["part"]:
            if "meta" in row:
                row["meta"] = json.dumps({"prior_answer": text, "probe": text, "conflict": True, text: text})
            if "attack" in row:
                ways = {"from": text, "sample": text, "answer": text, "cosine": text, "degrees": text, "crops": [text]}
                row["attack"] = json.dumps(
                    {**json.loads(row["attack"]), **ways, "epsilon": text, "same_question": True}
                )
        manifest = source.manifest.model_copy(
            update={"config": {"title": text, text: text}, "warnings": [text], "dropped": {text: 3}}
        )
        spoiled[key] = replace(source, manifest=manifest, tables=tables)
    # A probe's name reaches labels of the summary.
    summary = json.loads(json.dumps(run["evaluation"].json("summary.json")))
    summary["metrics"]["accuracy"] |= {"label": text, "group": text}
    spoiled["evaluation"] = replace(spoiled["evaluation"], files={"summary.json": summary})
    tame = Page(build_page(run, ReportConfig(pairs=2, rollouts=2, predictions=2)))
    page = Page(build_page(spoiled, ReportConfig(title=text, pairs=2, rollouts=2, predictions=2)))
    assert page.open == []
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in tame.tags} | {"span", "div"}
    attributes = {name for _, found in page.tags for name in found}
    assert attributes <= {name for _, found in tame.tags for name in found} | {"title"}
    assert "49" not in page.text
    if text.isprintable():
        assert text in "".join(page.text)


def test_pictures_that_cannot_be_read_leave_a_place(run: dict[str, Any]) -> None:
    rows = [
        row | {"images": [{"bytes": b"broken", "path": None}], "rejected_images": []} for row in run["pairs"].rows()
    ]
    spoiled = {"pairs": replace(run["pairs"], tables={**run["pairs"].tables, "part": rows})}
    page = Page(build_page(spoiled, ReportConfig(pairs=2)))
    assert page.named("img") == []
    assert "".join(page.text).count("no readable image") == 2  # no wrong image was made: no place for one
    rows = [row | {"rejected_images": [{"bytes": b"broken", "path": None}]} for row in rows]
    spoiled = {"pairs": replace(run["pairs"], tables={**run["pairs"].tables, "part": rows})}
    assert "".join(Page(build_page(spoiled, ReportConfig(pairs=2))).text).count("no readable image") == 4


def test_page_of_the_demo_stays_small(run: dict[str, Any]) -> None:
    assert len(build_page(run, ReportConfig())) < 3e6
