"""What the project writes opens in a browser: every kind of GLB in `<model-viewer>`, the film."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.browser import look_at, missing_part
from helpers.pictures import mushroom_png
from PIL import Image

from onelook.engine import Engine
from onelook.options import Options

KINDS = {  # name -> options
    "png.glb": {},
    "jpeg.glb": {"texture_format": "jpeg"},
    "webp.glb": {"texture_format": "webp"},
    "draco.glb": {"geometry_compression": "draco"},
    "everything.glb": {
        "texture_format": "webp", "geometry_compression": "draco", "normal_map": True
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def seen(folder) -> dict:
    """What the browser reports of every kind of file; one start of it for all."""
    if why := missing_part():
        pytest.skip(why)
    pytest.importorskip("DracoPy")
    engine = Engine(device="cpu")
    for name, choice in KINDS.items():
        options = Options(
            decimation_target=2000, texture_size=256, video_size=256,
            generate_video=name == "png.glb", **choice,
        )  # fmt: skip
        engine.generate(mushroom_png(), options, folder, Path(name).stem)
    return look_at(folder, list(KINDS), ["png.mp4"])


@pytest.mark.parametrize("name", KINDS)
def test_model_viewer_shows_it(seen, folder, name):
    assert name in seen["models"], seen["errors"]
    model = seen["models"][name]
    assert max(model["size"]) == pytest.approx(1, abs=0.01)
    assert model["textured"]
    assert model["normal_map"] == (name == "everything.glb")
    content = base64.b64decode(model["picture"].partition(",")[2])
    (folder / f"{name}.png").write_bytes(content)  # to be looked at
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA")).astype(int)
    shown = pixels[..., 3] > 200
    red = shown & (pixels[..., 0] - pixels[..., 1] > 70)
    blue = shown & (pixels[..., 2] - pixels[..., 0] > 30)
    rows, columns = (np.nonzero(part) for part in (red, blue))
    assert 0.1 < red.mean() < 0.7 and blue.mean() > 0.002
    assert np.mean(columns[1]) < np.mean(rows[1])  # the blue spot is on the left of the cap


def test_kinds_look_alike(seen, folder):
    def picture(name: str) -> np.ndarray:
        content = base64.b64decode(seen["models"][name]["picture"].partition(",")[2])
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        return image[..., :3].astype(int) * (image[..., 3:] > 200)

    reference = picture("png.glb")
    for name in KINDS:
        assert np.abs(picture(name) - reference).mean() < 4, name


def test_the_film_plays(seen):
    assert "png.mp4" in seen["videos"], seen["errors"]
    film = seen["videos"]["png.mp4"]
    assert film["ready_state"] == 4  # HAVE_ENOUGH_DATA
    assert film["duration"] == pytest.approx(4.0, abs=0.01)
    assert film["size"] == [256, 256]
    assert film["played"] > 0


def test_nothing_went_wrong_in_the_page(seen):
    assert seen["errors"] == []
