"""The turntable as a file, in any of its formats."""

from __future__ import annotations

from pathlib import Path

from onelook.asset.asset import Asset
from onelook.errors import OptionError
from onelook.render.scene import RenderScene
from onelook.render.turntable import turntable_frames
from onelook.render.video import write_animation, write_video
from onelook.report import Report

FILM_SUFFIXES = {"mp4": ".mp4", "gif": ".gif", "webp": ".webp", "webm": ".webm"}
SECONDS = 4.0
FPS = {"mp4": 30, "webm": 30, "gif": 20, "webp": 20}  # GIF counts in 1/100 s, 5 of which are 1/20
_CODECS = {"mp4": "h264", "webm": "vp9"}


def write_turntable(
    asset: Asset | RenderScene,
    path: Path,
    *,
    size: int = 512,
    format: str = "mp4",
    seconds: float = SECONDS,
    supersample: int = 2,
    device: str | None = None,
    report: Report | None = None,
) -> None:
    """One full turn as a seamless film of size x size pixels; see `turntable_frames`.

    size: pixels, even for mp4 and webm. format: a key of FILM_SUFFIXES, which the path's ending
    should be. The file is there complete or not at all. Raises OptionError for another format,
    OutputError when the file cannot be written.
    """
    if format not in FILM_SUFFIXES:
        raise OptionError(f"video_format must be one of {', '.join(FILM_SUFFIXES)}, got {format!r}")
    frames = turntable_frames(
        asset,
        num_frames=max(1, round(seconds * FPS[format])),
        size=size,
        supersample=supersample,
        device=device,
        report=report,
    )
    if format in _CODECS:
        write_video(frames, path, FPS[format], _CODECS[format])
    else:
        write_animation(frames, path, FPS[format])
