"""The triplane's own turntable: pictures traced through it, as a film and as files.

F frames, H rows, W columns.
"""

from __future__ import annotations

import io
import zipfile
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from onelook.files import replacing
from onelook.render.film import FPS
from onelook.render.video import write_animation, write_video
from triposr_backend.renderer import SIZE, VIEWS, Occupancy, orbit_rays, render_rays
from triposr_backend.scene_field import SceneField

Array = np.ndarray

_CODECS = {"mp4": "h264", "webm": "vp9"}
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest a ZIP can name; the time of writing is no content


class NerfFilm:
    """One turn around an object from its front; rendered when it is first asked for."""

    def __init__(self, field: SceneField, views: int = VIEWS, size: int = SIZE):
        self._field = field
        self._views = views
        self._size = size

    @cached_property
    def frames(self) -> list[Array]:
        """F pictures (H, W, 3) uint8 on white, cut off and not rounded."""
        field, occupancy = self._field, Occupancy.of(self._field)
        rays = orbit_rays(self._views, self._size, self._size)
        pictures = (
            render_rays(field, origins.to(field.device), directions.to(field.device), occupancy)
            for origins, directions in zip(*rays, strict=True)
        )
        return [(255 * rgb).to(torch.uint8).cpu().numpy() for rgb in pictures]

    def write_film(self, path: Path) -> None:
        """A film in the format that the path's ending names: mp4, webm, gif or webp.

        Raises OutputError when it cannot be written.
        """
        kind = path.suffix.lower().removeprefix(".")
        if kind in _CODECS:
            write_video(self.frames, path, FPS[kind], _CODECS[kind])
        else:
            write_animation(self.frames, path, FPS.get(kind, FPS["gif"]))

    def write_frames(self, path: Path) -> None:
        """A ZIP of the frames: render_000.png and so on.

        Raises OutputError when it cannot be written.
        """
        with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
            for number, frame in enumerate(self.frames):
                memory = io.BytesIO()
                Image.fromarray(frame).save(memory, "PNG")
                entry = zipfile.ZipInfo(f"render_{number:03}.png", _ZIP_TIME)
                archive.writestr(entry, memory.getvalue())
