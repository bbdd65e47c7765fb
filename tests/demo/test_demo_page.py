"""The demo page in a real browser: upload, cut-out, progress, viewer, film, downloads, cancel."""

from __future__ import annotations

import contextlib
import io
import json
import re
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.demo_server import DemoServer
from helpers.pictures import mushroom_png
from helpers.playwright_page import Window, picture_of, window

pytest.importorskip("gradio")

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def visitor(server, chromium) -> Iterator[Window]:
    """A window on the page; whatever was done in it, nothing was complained about."""
    with arrive(chromium, server) as shown:
        yield shown
        assert shown.complaints == []
        assert shown.foreign == []


@contextlib.contextmanager
def arrive(chromium, server: DemoServer) -> Iterator[Window]:
    with window(chromium) as shown:
        shown.page.goto(server.address)
        shown.page.wait_for_selector("#generate")
        yield shown


def upload(shown: Window, content: bytes, name: str = "mushroom.png", ready: str = "Ready") -> None:
    """Send a picture of the test's own: equal ones share a place, which goes with its visitor."""
    shown.page.set_input_files(
        "#picture input[type=file]", {"name": name, "mimeType": "image/png", "buffer": content}
    )
    status(shown, ready)


def choose(shown: Window, **options: object) -> None:
    """Type the options in, as a visitor would."""
    title = shown.page.get_by_text("Advanced: Model")
    title.click()
    for name, value in options.items():
        control = shown.page.locator(f"#option-{name} input").first
        if isinstance(value, bool):
            control.set_checked(value)
        else:
            control.fill(str(value))
            control.press("Enter")
    title.click()


def small(shown: Window) -> None:
    choose(shown, texture_size=256, decimation_target=2000, video_size=256)


def status(shown: Window, words: str, seconds: float = 60) -> str:
    """Wait until the status says these words -> all it says."""
    shown.page.wait_for_function(
        "words => document.querySelector('#status')?.innerText.includes(words)",
        arg=words,
        timeout=seconds * 1000,
    )
    return shown.page.inner_text("#status")


def wait_for(claim, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


def downloaded(shown: Window, selector: str) -> tuple[str, bytes]:
    with shown.page.expect_download() as waiting:
        shown.page.locator(selector).first.click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def shown_colors(shown: Window) -> np.ndarray:
    """The viewer's picture, once it shows more than its background."""
    canvas = shown.page.locator("#model canvas")
    canvas.wait_for()
    wait_for(lambda: picture_of(canvas)[80:-20].std() > 10)
    return picture_of(canvas)[80:-20].astype(int)  # without the buttons on it


def test_a_picture_becomes_a_model_that_turns(server, visitor, tmp_path):
    upload(visitor, mushroom_png(256))
    cut_out = picture_of(visitor.page.locator("#cut-out img")).astype(int)
    assert (cut_out[..., 0] - cut_out[..., 1] > 70).mean() > 0.05  # the red cap
    small(visitor)
    visitor.page.click("#generate")
    seen = set()
    while not visitor.page.locator("#status .done, #status .error").count():
        seen |= set(visitor.page.locator("#status li.now").all_inner_texts())
        time.sleep(0.02)
    assert len(seen) >= 1, "no stage was shown while it worked"
    said = status(visitor, "Done in")
    assert "by relief" in said and "2,000 faces" in said

    pixels = shown_colors(visitor)
    assert (pixels[..., 0] - pixels[..., 1] > 70).mean() > 0.03  # red cap, blue spot
    assert (pixels[..., 2] - pixels[..., 0] > 50).mean() > 0.001
    canvas = visitor.page.locator("#model canvas")
    box = canvas.bounding_box()
    visitor.page.mouse.move(box["x"] + 200, box["y"] + 200)
    visitor.page.mouse.down()
    visitor.page.mouse.move(box["x"] + 500, box["y"] + 210, steps=4)
    visitor.page.mouse.up()
    wait_for(lambda: np.abs(picture_of(canvas)[80:-20].astype(int) - pixels).mean() > 2)

    film = visitor.page.locator("#video video")
    wait_for(lambda: film.evaluate("v => v.readyState >= 2 && v.currentTime > 0"))
    assert film.evaluate("v => [v.videoWidth, v.videoHeight]") == [256, 256]

    assert visitor.page.input_value("#seed-used textarea, #seed-used input") == "42"
    name, glb = downloaded(visitor, "#files a[download$='.glb']")
    assert name == "output.glb" and glb[:4] == b"glTF"
    name, content = downloaded(visitor, "#archive")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert sorted(archive.namelist()) == ["output.glb", "output.mp4"]
        assert archive.read("output.glb") == glb
    visitor.page.screenshot(path=tmp_path / "demo.png", full_page=True)  # to be looked at


def test_examples_can_be_clicked_and_seeds_used_again(server, visitor):
    visitor.page.locator("#examples .gallery-item").nth(1).click()
    status(visitor, "Ready")
    choose(visitor, texture_size=256, decimation_target=500, generate_video=False)
    visitor.page.locator("#option-randomize_seed input").check()
    visitor.page.click("#generate")
    status(visitor, "Done in")
    visitor.page.wait_for_selector("#reuse:not([disabled])")
    drawn = visitor.page.input_value("#seed-used textarea, #seed-used input")
    visitor.page.click("#reuse")
    wait_for(lambda: visitor.page.input_value("#option-seed input") == drawn)
    assert not visitor.page.locator("#option-randomize_seed input").is_checked()


def test_cancel_ends_the_run_and_the_next_one_works(server, visitor):
    upload(visitor, (EXAMPLES / "teapot.png").read_bytes())
    choose(visitor, texture_size=8192, video_size=1024)  # long enough to be caught in the middle
    visitor.page.click("#generate")
    visitor.page.wait_for_selector("#status li.now")
    visitor.page.click("#cancel")
    status(visitor, "Stopped.", seconds=5)
    wait_for(lambda: not list(server.tmp.glob("**/output.*")) and not staging(server))
    assert visitor.page.locator("#files a").count() == 0
    small(visitor)
    visitor.page.click("#generate")
    status(visitor, "Done in")
    visitor.page.wait_for_selector("#files a")


def staging(server: DemoServer) -> list[Path]:
    return list(server.tmp.glob("**/.onelook-*"))


def test_a_file_that_is_no_picture_gets_one_sentence(server, visitor):
    upload(visitor, b"<script>alert(1)</script>", ready="not a picture")
    said = visitor.page.inner_text("#status [role=alert]")
    assert re.fullmatch(r"[A-Z].{20,200}\.", said), said
    visitor.page.click("#generate")
    visitor.page.wait_for_timeout(500)
    assert visitor.page.locator("#status [role=alert]").inner_text() == said
    upload(visitor, mushroom_png(201))  # and the next picture is taken


def test_visitors_wait_for_their_turn_and_get_their_own_model(server, chromium):
    with arrive(chromium, server) as one, arrive(chromium, server) as other:
        upload(one, (EXAMPLES / "teapot.png").read_bytes(), "teapot.png")
        upload(other, mushroom_png(256))
        choose(one, texture_size=1024, decimation_target=20000, video_size=256)
        choose(other, texture_size=256, decimation_target=500, generate_video=False)
        one.page.click("#generate")
        one.page.wait_for_selector("#status li.now")
        other.page.click("#generate")
        status(other, "Waiting for a free place")
        other.page.click("#cancel")  # who waits can give up, and come again
        status(other, "Stopped.", seconds=5)
        assert one.page.locator("#status .done").count() == 0
        other.page.click("#generate")
        assert "500 faces" in status(other, "Done in")
        assert one.page.locator("#status .done").count() == 1, "the second did not wait"
        assert "20,000 faces" in status(one, "Done in")
        models = [downloaded(shown, "#files a[download$='.glb']")[1] for shown in (one, other)]
        assert models[0] != models[1]
        assert one.complaints == other.complaints == []


def test_nothing_is_left_of_a_visitor_who_left(server, chromium):
    wait_for(lambda: not server.visitors())
    with arrive(chromium, server) as shown:
        upload(shown, (EXAMPLES / "teapot.png").read_bytes())
        choose(shown, texture_size=8192, video_size=1024)
        shown.page.click("#generate")
        shown.page.wait_for_selector("#status li.now")
        assert len(server.visitors()) == 1 and len(server.uploads()) == 1
    wait_for(lambda: not server.visitors() and not server.uploads(), seconds=40)


def test_the_page_offers_no_interface_of_its_own_and_names_no_other_host(server):
    with urllib.request.urlopen(f"{server.address}gradio_api/info") as answer:
        interface = json.load(answer)
    assert interface["named_endpoints"] == interface["unnamed_endpoints"] == {}
    with urllib.request.urlopen(f"{server.address}config") as answer:
        config = json.load(answer)
    assert config["analytics_enabled"] is False
    assert config["stylesheets"] == []
