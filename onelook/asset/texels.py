"""The texels that a UV layout touches and the points of the mesh they stand for.

K vertices, M faces, T texture size, P texels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp

from onelook.asset.uv_raster import UvRaster, texel_geometry
from onelook.kernels import launch

Array = np.ndarray


@dataclass(frozen=True)
class TexelPiece:
    """Touched texels of some rows: flat index in the texture (P,) int32 and face (P,) int32."""

    texels: Array
    face: Array


@dataclass(frozen=True)
class TexelPoints:
    """Where P texels lie: barycentric, points and unit normals, (P, 3) float32 each."""

    barycentric: Array
    points: Array
    normals: Array


class TexelGeometry:
    """A mesh with UVs, ready to tell what lies under its texels."""

    def __init__(
        self,
        vertices: Array,
        normals: Array,
        uvs: Array,
        faces: Array,
        texture_size: int,
        device: str,
    ):
        self._raster = UvRaster(uvs, faces, texture_size, device)
        self._device = device
        self._faces = _on(device, faces, np.int32, wp.int32)
        self._vertices = _on(device, vertices, np.float32, wp.vec3)
        self._normals = _on(device, normals, np.float32, wp.vec3)

    def piece(self, first_row: int, row_count: int) -> TexelPiece:
        """Texels of some rows that faces touch; first_row is a multiple of BAND_ROWS."""
        face_map = self._raster.draw(first_row, row_count, touched=True).numpy().ravel()
        covered = np.flatnonzero(face_map >= 0)
        texels = (covered + first_row * self._raster.texture_size).astype(np.int32)
        return TexelPiece(texels, face_map[covered])

    def points(self, piece: TexelPiece, shift: tuple[int, int] = (0, 0)) -> TexelPoints:
        """What lies at the texels' centres, moved by a shift (x, y) in subtexels.

        Where that is outside of the texel's face, a point on the face's rim is taken.
        """
        count = len(piece.texels)
        results = [wp.empty(count, dtype=wp.vec3, device=self._device) for _ in range(3)]
        inputs = [
            _on(self._device, piece.texels, np.int32, wp.int32),
            _on(self._device, piece.face, np.int32, wp.int32),
            self._raster.texture_size,
            *shift,
            self._raster.corners,
            self._faces,
            self._vertices,
            self._normals,
            *results,
        ]
        launch(texel_geometry, count, inputs, self._device)
        return TexelPoints(*(result.numpy() for result in results))


def _on(device: str, values: Array, kind: type, dtype: type) -> wp.array:
    return wp.array(np.ascontiguousarray(values, kind), dtype=dtype, device=device, copy=False)
