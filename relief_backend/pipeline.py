"""The relief backend: outline -> inflated body -> fine detail -> the picture projected onto it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onelook.foreground.foreground import Foreground
from onelook.report import Report
from onelook.surface import Surface
from relief_backend.appearance import (
    PictureAppearance,
    PictureFrame,
    blur_copies,
    extend_colors,
)
from relief_backend.body import close, front_half
from relief_backend.config import ReliefConfig
from relief_backend.detail import raise_detail
from relief_backend.inflate import inflate
from relief_backend.silhouette import Silhouette, trace_silhouette

Array = np.ndarray


class ReliefBackend:
    """A preview, not a reconstruction.

    It knows nothing about objects: it inflates the outline of the cut-out like a cushion, lets the
    shading raise the front by a hair, and projects the picture onto it. The front view is the
    picture; depth and back are made up (the back is a blurred mirror image). What it offers is a
    closed, textured mesh of any picture in under a second, without weights, network or GPU, on
    which the rest of the pipeline can be run and judged.
    """

    step_shares = {"shape": 5}

    def __init__(self, config: ReliefConfig | None = None):
        self.config = config or ReliefConfig()

    def generate(self, foregrounds: Sequence[Foreground], options: Any, report: Report) -> Surface:
        """What the engine calls. No option applies: nothing here is random or optional."""
        with report.step("shape"):
            return self.run(foregrounds[0], report)

    def run(self, foreground: Foreground, report: Report) -> Surface:
        """Cut-out -> closed surface in canonical space (+Y up, front +Z, longest side 1).

        Raises ForegroundError when no part of the cut-out is more than half opaque.
        """
        report.note(
            "relief is a preview, not a reconstruction: the outline is inflated, depth and back "
            "are made up"
        )
        alpha = foreground.image[..., 3].astype(np.float32) / 255.0
        silhouette = trace_silhouette(alpha, self.config)
        report.advance(0.2)
        colors = extend_colors(foreground.image)
        report.advance(0.4)
        back, faces = front_half(inflate(silhouette, self.config))
        front = raise_detail(back, colors, silhouette, self.config)
        vertices, faces = close(front, back, faces)
        report.advance(0.8)
        vertices, frame = _to_canonical(vertices, silhouette)
        blurred = blur_copies(colors, alpha, frame.scale, self.config)
        appearance = PictureAppearance(colors, blurred, frame, self.config.roughness)
        report.figures["relief.cells"] = round(frame.scale / silhouette.cell)
        return Surface(vertices, faces, appearance)


def _to_canonical(vertices: Array, silhouette: Silhouette) -> tuple[Array, PictureFrame]:
    """Cells -> canonical space, and where that lies in the picture.

    The axes agree already (x right, y up, z toward the viewer): only centre and scale change.
    """
    low, high = vertices.min(axis=0).astype(np.float64), vertices.max(axis=0).astype(np.float64)
    center, side = (low + high) / 2, (high - low).max()
    frame = PictureFrame(
        center_column=silhouette.left + center[0] * silhouette.cell,
        center_row=silhouette.bottom - center[1] * silhouette.cell,
        scale=side * silhouette.cell,
    )
    return ((vertices - center) / side).astype(np.float32), frame
