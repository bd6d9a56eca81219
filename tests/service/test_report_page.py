"""The report in a browser: what models wrote cannot break it, and its galleries are filtered and sorted by keyboard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from mbpo_core.config import ReportConfig
from mbpo_core.reports.page import build_page
from tests.reports.fake_run import fake_run
from tests.reports.hostile import spoiled_run

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = (
    "<script>document.title = 'run'; alert(1)</script> \"'> </script><script>alert(2)</script>"
    "<img src=x onerror=\"alert(3)\"> <svg onload=alert(4)> </style><b style='position:fixed'> " + "x" * 100_000
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    return fake_run(60)


@pytest.fixture(scope="module")
def report(run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(build_page(run, ReportConfig(title="A run")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def hostile(run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    path.write_text(build_page(spoiled_run(run, HOSTILE), ReportConfig(title="A run")), encoding="utf-8")
    return path


def opened(browser: Browser, path: Path, said: list[str], **more: Any) -> Page:
    """The page from disk; what it complains of, asks for or pops up is noted."""
    page = browser.new_page(**more)
    page.on("dialog", lambda dialog: (said.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda message: said.append(f"console {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error {error}"))
    page.on("request", lambda asked: said.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_what_models_wrote_cannot_break_the_page(browser: Browser, hostile: Path, viewport: Any) -> None:
    said: list[str] = []
    page = opened(browser, hostile, said, viewport=viewport)
    page.wait_for_timeout(500)
    assert said == []
    assert page.title() == "A run"
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert page.locator("script").count() == 1
    assert page.locator("[onerror], [onload], [onclick], [style], iframe, object, embed").count() == 0
    assert page.locator("section#lineage").is_visible()  # the end of the page is still its own
    assert hostile.stat().st_size < 10_000_000
    page.close()


def test_the_policy_stops_what_is_not_ours(browser: Browser, report: Path) -> None:
    """Even a script or a style that got into the page would do nothing."""
    said: list[str] = []
    page = opened(browser, report, said, viewport=DESKTOP)
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "document.title = 'run'";
        document.body.append(script);
        const style = document.createElement("style");
        style.textContent = "h1 { display: none }";
        document.body.append(style);
    }""")
    assert page.title() == "A run"
    assert page.locator("h1").is_visible()
    assert len([line for line in said if "Content Security Policy" in line]) == 2
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_the_page_fits_and_follows_the_colour_scheme(
    browser: Browser, report: Path, viewport: Any, scheme: Any
) -> None:
    said: list[str] = []
    page = opened(browser, report, said, viewport=viewport, color_scheme=scheme)
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    assert (page.evaluate(ground) > 128) == (scheme == "light")
    line = page.locator("svg.chart .s-chosen.line path").first
    expected = {"light": "rgb(20, 113, 58)", "dark": "rgb(111, 211, 151)"}[scheme]
    assert line.evaluate("path => getComputedStyle(path).stroke") == expected
    if folder := os.environ.get("MBPO_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"report-{viewport['width']}-{scheme}.png")
    page.close()


def test_galleries_are_filtered_and_sorted_by_keyboard(browser: Browser, report: Path) -> None:
    page = opened(browser, report, [], viewport=DESKTOP)
    form = page.get_by_role("form", name="Filter and sort mined pairs")
    shown = page.locator("#pair-cards > article:visible")
    everything = shown.count()
    expect(form.locator("output")).to_have_text(f"{everything} of {everything} shown")

    form.get_by_label("kept or dropped").focus()
    page.keyboard.type("kept")  # a select takes what is typed
    kept = page.locator("#pair-cards > article[data-kept=kept]").count()
    assert 0 < kept < everything
    expect(form.locator("output")).to_have_text(f"{kept} of {everything} shown")
    assert shown.count() == kept

    form.get_by_label("sort by").focus()
    page.keyboard.type("gain of chosen, highest")
    gains = [float(card.get_attribute("data-gain") or "nan") for card in shown.all()]
    assert gains == sorted(gains, reverse=True)

    form.get_by_label("gain at least").focus()
    page.keyboard.type("0.9")
    expect(form.locator("output")).to_have_text(f"{sum(gain >= 0.9 for gain in gains)} of {everything} shown")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(form.get_by_role("button", name="Reset")).to_be_focused()
    page.keyboard.press("Enter")
    expect(form.locator("output")).to_have_text(f"{everything} of {everything} shown")
    page.close()


def test_without_scripts_every_card_is_there_and_no_form(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False, viewport=PHONE)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("form:visible").count() == 0
    assert page.locator("article:visible").count() == page.locator("article").count() > 50
    context.close()
