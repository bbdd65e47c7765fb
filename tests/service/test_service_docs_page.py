"""The OpenAPI page in a real browser: complete, and from this machine alone."""

from __future__ import annotations

import re
import shutil
from urllib.parse import urlsplit

import pytest
from helpers.pictures import mushroom_png

from onelook.options import option_fields


def test_the_page_shows_everything_and_asks_nobody_else(service, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    asked, complaints = [], []
    picture = tmp_path / "mushroom.png"
    picture.write_bytes(mushroom_png())
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1500})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{service.url}/docs")
        page.locator("#operations-assets-image_to_3d_api_v1_image_to_3d_post").click()
        page.locator("tr[data-property-name=texture_size], .parameters").first.wait_for()
        text = page.locator("body").inner_text()
        page.locator("tr[data-param-name=prefer] input").fill("respond-async")
        page.locator("input[type=file]").first.set_input_files(picture)
        page.locator("button.execute").click()
        answer = page.locator(".live-responses-table tbody .response-col_status").first
        answer.wait_for()
        assert answer.inner_text().startswith("202"), page.locator(
            ".live-responses-table"
        ).inner_text()
        job = re.search(r"jobs/([0-9a-f]{32})", page.locator(".live-responses-table").inner_text())
        service.request("POST", f"/api/v1/jobs/{job[1]}/cancel")
        page.screenshot(path=tmp_path / "docs.png")  # to be looked at
        browser.close()
    assert {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {
        urlsplit(service.url).netloc
    }
    assert complaints == []
    for option in option_fields():
        assert option.name in text and option.metadata["help"] in text
    for path in ("/api/v1/jobs/{job_id}", "/api/v1/outputs/{job_id}/{filename}", "/metrics"):
        assert path in text.replace("\u200b", "")
