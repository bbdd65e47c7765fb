"""VertexColors: the Appearance of a mesh that carries a colour at each vertex.

N vertices, M faces, P points.
"""

from __future__ import annotations

import numpy as np

from onelook.closest_point import ClosestPoint
from onelook.surface import Material

Array = np.ndarray


class VertexColors:
    """Colours of a mesh's vertices, interpolated over its faces; an `Appearance`."""

    def __init__(
        self,
        vertices: Array,
        faces: Array,
        colors: Array,
        metallic: Array | float = 0.0,
        roughness: Array | float = 0.9,
        device: str | None = None,
    ):
        """vertices (N, 3) canonical space, faces (M, 3), colors (N, 3) or (N, 4) 0..1, sRGB-encoded
        with straight linear alpha; metallic and roughness (N,) or one number for all, 0..1.

        Raises ValueError when there is not one colour per vertex.
        """
        if colors.ndim != 2 or len(colors) != len(vertices) or colors.shape[1] not in (3, 4):
            raise ValueError(
                f"colors must have shape ({len(vertices)}, 3) or ({len(vertices)}, 4), one row per "
                f"vertex, got {colors.shape}"
            )
        count = len(vertices)
        rows = np.ones((count, 6), np.float32)
        rows[:, : colors.shape[1]] = colors
        rows[:, 4] = metallic
        rows[:, 5] = roughness
        self._attributes = np.clip(rows, 0.0, 1.0)
        self._closest = ClosestPoint(vertices, faces, device)

    def sample(self, points: Array, normals: Array) -> Material:
        """The material at the nearest point of the mesh: (P, 3) twice -> Material of P points."""
        hits = self._closest.query(points, normals=normals)
        rows = self._closest.interpolate(self._attributes, hits)
        return Material(
            base_color=rows[:, :3], alpha=rows[:, 3], metallic=rows[:, 4], roughness=rows[:, 5]
        )
