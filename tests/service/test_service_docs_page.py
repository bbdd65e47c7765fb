"""The OpenAPI page in a real browser: complete, and from this machine alone."""

from __future__ import annotations

import re

from helpers.pictures import mushroom_png
from helpers.playwright_page import window

from onelook.options import option_fields


def test_the_page_shows_everything_and_asks_nobody_else(service, chromium, tmp_path):
    picture = tmp_path / "mushroom.png"
    picture.write_bytes(mushroom_png())
    with window(chromium, 1100, 1500) as shown:
        page = shown.page
        page.goto(f"{service.url}/docs")
        page.locator("#operations-assets-image_to_3d_api_v1_image_to_3d_post").click()
        page.locator("tr[data-property-name=texture_size], .parameters").first.wait_for()
        text = page.locator("body").inner_text()
        page.locator("tr[data-param-name=prefer] input").fill("respond-async")
        page.locator("input[type=file]").first.set_input_files(picture)
        page.locator("button.execute").click()
        answer = page.locator(".live-responses-table tbody .response-col_status").first
        answer.wait_for()
        table = page.locator(".live-responses-table").inner_text()
        assert answer.inner_text().startswith("202"), table
        job = re.search(r"jobs/([0-9a-f]{32})", table)
        service.request("POST", f"/api/v1/jobs/{job[1]}/cancel")
        page.screenshot(path=tmp_path / "docs.png")  # to be looked at
    assert shown.foreign == [] and shown.complaints == []
    for option in option_fields():
        assert option.name in text and option.metadata["help"] in text
    for path in ("/api/v1/jobs/{job_id}", "/api/v1/outputs/{job_id}/{filename}", "/metrics"):
        assert path in text.replace("\u200b", "")
