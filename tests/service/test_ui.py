"""A person in front of the real UI: log in, open a stage's form, change one field, run it, read what it says.

The pictures that the documents show are taken here: set MBPO_SCREENSHOTS to a folder to keep them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from mbpo_core.store import Store
from tests.service.conftest import Service

RUN = "clicked"
PIPELINE = "pipeline/manual"


@pytest.fixture(scope="module")
def finished(service: Service) -> str:
    """The flow run of a finished run, to rerun a stage of."""
    run_id = service.start_run(PIPELINE, base="smoke", config={"run": RUN})
    service.wait_for(run_id, "COMPLETED", timeout_s=600)
    return run_id


@pytest.fixture(scope="module")
def store(service: Service, finished: str) -> Store:
    """The store with that run in it."""
    return Store(service.store)


@pytest.fixture(scope="module")
def page(service: Service) -> Iterator[Page]:
    """The UI in the system's Chromium, logged in."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto(service.url.removesuffix("/api"))
        page.wait_for_url("**/login**")
        page.locator("input").fill(service.auth)
        page.get_by_role("button", name="Login").click()
        page.wait_for_url("**/dashboard**")
        yield page
        browser.close()


def _picture(page: Page, name: str) -> None:
    if folder := os.environ.get("MBPO_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def _open_form(page: Page, service: Service, deployment: str) -> None:
    page.goto(f"{service.url.removesuffix('/api')}/v2/deployments/deployment/{service.deployment_id(deployment)}")
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    expect(page.get_by_role("button", name="Submit")).to_be_visible()


def _submit(page: Page) -> str:
    """The flow run that the form started."""
    with page.expect_response(lambda answer: answer.url.endswith("/create_flow_run")) as created:
        page.get_by_role("button", name="Submit").click()
    assert created.value.ok, created.value.text()
    return str(created.value.json()["id"])


def _open_artifact(page: Page, service: Service, run_id: str, key: str) -> None:
    notes = service.ask("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}})
    page.goto(f"{service.url.removesuffix('/api')}/v2/artifacts/artifact/{notes[0]['id']}")


def test_one_stage_reruns_by_a_click(page: Page, service: Service, store: Store) -> None:
    before = store.run(RUN).pointers()
    _open_form(page, service, "pairs/manual")
    page.get_by_label("run (Optional)", exact=True).fill(RUN)
    page.get_by_label("Share (Optional)", exact=True).fill("0.3")
    _picture(page, "rerun-form")
    run_id = _submit(page)
    service.wait_for(run_id, "COMPLETED", timeout_s=300)

    after = store.run(RUN).pointers()
    assert [key for key in after if after[key] != before[key]] == ["pairs"]
    manifest = store.reader(after["pairs"]).manifest
    assert manifest.config["share"] == 0.3
    assert manifest.inputs["negatives"].content == before["negatives"].content
    runs = service.ask("/task_runs/filter", flow_runs={"id": {"any_": [run_id]}})
    assert [run["name"].rpartition("-")[0] for run in runs] == ["pairs"]

    page.goto(f"{service.url.removesuffix('/api')}/v2/runs/flow-run/{run_id}?tab=Artifacts")
    expect(page.get_by_text("mbpo-pairs-rows").first).to_be_visible()
    _picture(page, "rerun-artifacts")
    for key, text in (("mbpo-plan", "CONFIG pairs.share 1 → 0.3"), ("mbpo-stale", "training/0")):
        _open_artifact(page, service, run_id, key)
        expect(page.get_by_text(text).first).to_be_visible()
        _picture(page, key)


def test_a_stage_s_form_opens_with_the_run_s_own_values(
    page: Page, service: Service, finished: str, store: Store
) -> None:
    """From the note of a stage: change a field to what is elsewhere the default, and it counts."""
    notes = service.ask(
        "/artifacts/filter", artifacts={"flow_run_id": {"any_": [finished]}, "key": {"any_": ["mbpo-pairs-again"]}}
    )
    page.goto(f"{service.url.removesuffix('/api')}/v2/artifacts/artifact/{notes[0]['id']}")
    page.get_by_role("link", name="pairs again").click()
    expect(page.get_by_label("run (Optional)", exact=True)).to_have_value(RUN)
    share = page.get_by_label("Share (Optional)", exact=True)
    expect(share).to_have_value("1")
    share.fill("0.5")
    _picture(page, "rerun-own-values")
    service.wait_for(_submit(page), "COMPLETED", timeout_s=300)
    manifest = store.reader(store.run(RUN).pointers()["pairs"]).manifest
    assert (manifest.config["share"], manifest.config["plausible"]) == (0.5, False)


def test_the_form_refuses_what_is_out_of_bounds(page: Page, service: Service, store: Store) -> None:
    """The browser itself, from the schema's bounds; nothing is posted."""
    posted: list[str] = []
    page.on("request", lambda asked: posted.append(asked.url) if asked.method == "POST" else None)
    _open_form(page, service, "pairs/manual")
    share = page.get_by_label("Share (Optional)", exact=True)
    share.fill("7")
    page.get_by_role("button", name="Submit").click()
    assert share.evaluate("field => field.validationMessage") == "Value must be less than or equal to 1."
    page.wait_for_timeout(1000)
    assert not any(url.endswith("/create_flow_run") for url in posted)
    assert "/run?" in page.url  # still on the form
