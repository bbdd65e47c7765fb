"""The example page that embeds onelook: in a real browser, with a real service behind it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from helpers.cog_schema import ROOT
from helpers.pictures import mushroom_png
from helpers.playwright_page import picture_of, window

KEY = "a-long-test-key"  # of the service in conftest.py
SMALL = "?texture_size=256&decimation_target=2000&video_size=256"


@pytest.fixture(scope="module")
def example(service, server) -> Iterator[str]:
    """The address of `examples/embedding/serve.py`, with service and demo page behind it."""
    if not (ROOT / "node_modules" / "@google" / "model-viewer").is_dir():
        pytest.skip("@google/model-viewer is not installed (npm install)")
    command = [sys.executable, "-u", "examples/embedding/serve.py", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--service", service, "--demo", server.address],
        cwd=ROOT,
        env={**os.environ, "ONELOOK_API_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def choose(page, content: bytes, name: str = "mushroom.png") -> None:
    page.set_input_files(
        "input[type=file]", {"name": name, "mimeType": "image/png", "buffer": content}
    )
    page.click("#go")


def status(page, words: str) -> str:
    page.wait_for_function(
        "words => document.querySelector('#status').innerText.includes(words)", arg=words
    )
    return page.inner_text("#status")


def test_the_page_makes_shows_and_offers_a_model(example, chromium, tmp_path):
    with window(chromium) as shown:
        page = shown.page
        page.goto(example + SMALL)
        page.wait_for_function("() => Boolean(customElements.get('model-viewer'))")
        page.evaluate(
            """() => {
                window.seen = [];
                new MutationObserver(() => window.seen.push(
                    [Number(progress.value), document.querySelector("#status").innerText]
                )).observe(document.querySelector("#status"), {childList: true});
            }"""
        )
        choose(page, mushroom_png(256))
        assert "faces, seed 42" in status(page, "Done")
        percents = [percent for percent, _ in page.evaluate("seen")][:-1]
        assert len(set(percents)) >= 3 and percents == sorted(percents), percents

        page.wait_for_function("document.querySelector('model-viewer').loaded")
        viewer = page.locator("model-viewer")
        deadline = time.monotonic() + 20
        while True:
            pixels = picture_of(viewer).astype(int)
            red = (pixels[..., 0] - pixels[..., 1] > 70).mean()
            if red > 0.03 or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        assert red > 0.03, "the red cap is not to be seen"
        size = viewer.evaluate("v => { const d = v.getDimensions(); return [d.x, d.y, d.z]; }")
        assert max(size) == pytest.approx(1, abs=0.01)
        page.wait_for_function("document.querySelector('video').currentTime > 0")

        with page.expect_download() as waiting:
            page.click("#download")
        with open(waiting.value.path(), "rb") as file:
            assert file.read(4) == b"glTF"
        page.screenshot(path=tmp_path / "embedding.png", full_page=True)  # to be looked at
        assert shown.complaints == [] and shown.foreign == []


def test_the_documents_scripts_do_what_they_say(example, chromium):
    text = (ROOT / "docs" / "embedding.md").read_text("utf-8")
    plain, events = (
        block for block in re.findall(r"```js\n(.*?)```", text, re.S) if "fetch(" in block
    )
    quick = {"texture_size": 256, "decimation_target": 500, "generate_video": False}
    small = "".join(f'form.set("{name}", "{value}");' for name, value in quick.items())
    script = f"""async () => {{
        const fileInput = document.querySelector("input[type=file]");
        const viewer = document.querySelector("model-viewer");
        const percents = [], show = (percent) => percents.push(percent);
        {plain.replace("const answer", f"{small} const answer")}
        const first = viewer.src;
        {events}
        while (viewer.src === first) await new Promise((done) => setTimeout(done, 50));
        return [first, viewer.src, percents];
    }}"""
    with window(chromium) as shown:
        page = shown.page
        page.goto(example)
        page.set_input_files(
            "input[type=file]", {"name": "m.png", "mimeType": "image/png", "buffer": mushroom_png()}
        )
        first, second, percents = page.evaluate(script)
        assert first != second and {first[-11:], second[-11:]} == {"/output.glb"}
        assert percents and percents == sorted(percents)
        assert shown.complaints == [] and shown.foreign == []


def test_a_refusal_and_a_cancel_are_said_in_the_page(example, chromium):
    with window(chromium) as shown:
        page = shown.page
        page.goto(example + "?texture_size=8192&video_size=1024")
        choose(page, b"this is no picture at all", "text.png")
        assert "not a picture" in status(page, "not a picture")
        assert page.get_attribute("#status", "role") == "alert"
        choose(page, mushroom_png(256))
        page.wait_for_function("document.querySelector('#progress').value > 0")
        page.click("#stop")
        status(page, "Canceled.")
        assert page.is_hidden("#results")
        assert shown.foreign == []


def test_the_demo_page_works_in_a_frame(example, chromium, tmp_path):
    with window(chromium) as shown:
        page = shown.page
        page.goto(example)
        frame = page.frame_locator("#demo iframe")
        page.locator("#demo iframe").scroll_into_view_if_needed()
        frame.locator("#generate").wait_for()
        frame.locator("#picture input[type=file]").set_input_files(
            {"name": "m.png", "mimeType": "image/png", "buffer": mushroom_png()}
        )
        frame.locator("#cut-out img").wait_for()
        frame.get_by_text("Ready: choose the settings").wait_for()
        page.screenshot(path=tmp_path / "frame.png", full_page=True)  # to be looked at
        assert shown.complaints == [] and shown.foreign == []
