"""Compile every kernel by making one tiny asset, so that the first request does not wait for it.

Compiled kernels are kept in warp's cache folder (`WARP_CACHE_PATH` moves it); with a filled cache
this takes about a second. An image build runs it once.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onelook.engine import Engine


def warm_up(engine: Engine, model: str = "auto") -> None:
    """One small picture all the way through: cut-out, shape, bake, GLB and one frame of video.

    Then the backend of `model` is opened.
    """
    from onelook.asset.load import load_glb
    from onelook.options import Options
    from onelook.render.turntable import turntable_frames
    from onelook.render.video import write_video
    from onelook.report import Report

    options = Options(
        model="relief", decimation_target=2000, texture_size=256, generate_video=False
    )
    with tempfile.TemporaryDirectory(prefix="onelook-warmup-") as folder:
        made = engine.generate(_small_picture(), options, Path(folder))
        asset = load_glb(made.files["model_file"])
        frames = turntable_frames(asset, num_frames=1, device=engine.device)
        write_video(frames, Path(folder) / "one_frame.mp4")
    engine.open_backend(model, Report())


def _small_picture() -> bytes:
    """A red disc on a transparent 64 x 64 square, as PNG."""
    from PIL import Image, ImageDraw

    image = Image.new("RGBA", (64, 64))
    ImageDraw.Draw(image).ellipse((8, 8, 55, 55), fill=(200, 60, 40, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
