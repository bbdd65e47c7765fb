"""Ask a Surface for its material at every texel of an asset, and write the answers as textures.

Texel -> point of the asset mesh -> nearest point of the full surface -> material -> image. Rows are
worked through in pieces, so memory is bounded by the images themselves.

K vertices, N vertices of the surface, M faces, P texels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onelook.asset.asset import Textures
from onelook.asset.canvas import Canvas
from onelook.asset.normals import vertex_normals
from onelook.asset.tangents import vertex_tangents
from onelook.asset.texels import TexelGeometry
from onelook.asset.uv_raster import BAND_ROWS, SUBTEXELS
from onelook.closest_point import ClosestPoint
from onelook.kernels import default_device
from onelook.surface import Material, Surface
from onelook.time_cap import require_time

Array = np.ndarray
MAX_DISTANCE = 0.02  # of the surface's longest side: how far simplifying may have moved a point
TEXELS_AT_ONCE = 1 << 20
_QUARTER = SUBTEXELS // 4
_SHIFTS = {
    1: ((0, 0),),
    4: ((-_QUARTER, -_QUARTER), (_QUARTER, -_QUARTER), (-_QUARTER, _QUARTER), (_QUARTER, _QUARTER)),
}


def bake(
    vertices: Array,
    normals: Array,
    uvs: Array,
    faces: Array,
    surface: Surface,
    texture_size: int,
    *,
    project: bool = True,
    samples: int = 1,
    normal_map: bool = False,
    on_progress: Callable[[float], None] | None = None,
    device: str | None = None,
) -> Textures:
    """Textures of an unwrapped mesh from a surface it lies close to.

    vertices, normals (K, 3) float32, canonical space, unit normals; uvs (K, 2) float32 0..1, origin
    at the top left, without overlaps; faces (M, 3) int32. surface: the full triangles and the
    appearance to ask; project=False where the mesh has the surface's own triangles, so that its
    points need no projection. samples per texel: 1 or 4. normal_map: also write the full surface's
    normals, in the tangent space of `vertex_tangents`. on_progress gets 0..1. Raises ValueError for
    another number of samples.
    """
    if samples not in _SHIFTS:
        raise ValueError(f"samples must be 1 or 4, got {samples}")
    device = device or default_device()
    geometry = TexelGeometry(vertices, normals, uvs, faces, texture_size, device)
    target = _Target(surface, device) if project else None
    frames = _TangentFrames(vertices, normals, uvs, faces) if normal_map else None
    canvas = Canvas(texture_size, normal_map)
    rows = max(1, TEXELS_AT_ONCE // texture_size // BAND_ROWS) * BAND_ROWS
    for first_row in range(0, texture_size, rows):
        require_time()
        piece = geometry.piece(first_row, min(rows, texture_size - first_row))
        if len(piece.texels):
            materials, relief = [], []
            for shift in _SHIFTS[samples]:
                here = geometry.points(piece, shift)
                points, directions = here.points, here.normals
                if target:
                    points, directions = target.project(points, directions)
                materials.append(surface.appearance.sample(points, directions))
                if frames:
                    relief.append(frames.express(directions, piece.face, here.barycentric))
            canvas.write(piece.texels, _mean_material(materials), _mean_direction(relief))
        if on_progress:
            on_progress(0.9 * min(1.0, (first_row + rows) / texture_size))
    return canvas.finish()


def project(
    points: Array, normals: Array, surface: Surface, device: str | None = None
) -> tuple[Array, Array]:
    """Points and unit normals near a surface -> the nearest of it: (P, 3) float32 each."""
    return _Target(surface, device or default_device()).project(points, normals)


class _Target:
    """The full surface, onto which points of the asset are projected."""

    def __init__(self, surface: Surface, device: str):
        self._closest = ClosestPoint(surface.vertices, surface.faces, device)
        normals = vertex_normals(surface.vertices, surface.faces)
        self._attributes = np.column_stack([surface.vertices.astype(np.float32), normals])
        self._max_distance = MAX_DISTANCE * float(np.ptp(surface.vertices, axis=0).max())

    def project(self, points: Array, normals: Array) -> tuple[Array, Array]:
        """Nearest points of the surface and its unit normals there: (P, 3) float32 each."""
        hits = self._closest.query(points, self._max_distance, normals)
        if len(missed := np.flatnonzero(hits.face < 0)):  # where a hole was closed, say
            again = self._closest.query(points[missed])
            hits.face[missed], hits.barycentric[missed] = again.face, again.barycentric
        rows = self._closest.interpolate(self._attributes, hits)
        return np.ascontiguousarray(rows[:, :3]), _unit(rows[:, 3:], normals)


class _TangentFrames:
    """The asset's tangent frames, as viewers interpolate them."""

    def __init__(self, vertices: Array, normals: Array, uvs: Array, faces: Array):
        self._faces, self._normals = faces, normals
        self._tangents = vertex_tangents(vertices, normals, uvs, faces)

    def express(self, directions: Array, face: Array, barycentric: Array) -> Array:
        """Unit directions (P, 3) in tangent, bitangent and normal: -> (P, 3) float32."""
        corners = self._faces[face]
        normal = np.einsum("pk,pkc->pc", barycentric, self._normals[corners])
        tangent = np.einsum("pk,pkc->pc", barycentric, self._tangents[corners, :3])
        # three corners of a face share their UV chart, and so the sign
        bitangent = np.cross(normal, tangent) * self._tangents[corners[:, 0], 3:]
        frame = np.stack([tangent, bitangent, normal], axis=2).astype(np.float64)  # columns
        det = np.linalg.det(frame)
        frame[np.abs(det) < 1e-9] = np.eye(3)
        local = np.linalg.solve(frame, directions[..., None].astype(np.float64))[..., 0]
        local[np.abs(det) < 1e-9] = (0, 0, 1)
        return _unit(local, np.array([[0, 0, 1]]))


def _unit(directions: Array, instead: Array) -> Array:
    """Directions (P, 3) at unit length, float32; `instead` where they have none."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    result = np.where(lengths > 1e-6, directions / np.maximum(lengths, 1e-6), instead)
    return result.astype(np.float32)


def _mean_direction(directions: list[Array]) -> Array | None:
    if len(directions) < 2:
        return directions[0] if directions else None
    return _unit(sum(directions), directions[0])


def _mean_material(materials: list[Material]) -> Material:
    """The mean of samples of the same texels; colours are averaged as light, by their alpha."""
    if len(materials) == 1:
        return materials[0]
    alpha = np.mean([m.alpha for m in materials], axis=0)
    weights = [np.maximum(m.alpha, 1e-4)[:, None] for m in materials]
    light = sum(w * _to_linear(m.base_color) for w, m in zip(weights, materials, strict=True))
    return Material(
        base_color=_to_srgb(light / sum(weights)),
        alpha=alpha,
        metallic=np.mean([m.metallic for m in materials], axis=0),
        roughness=np.mean([m.roughness for m in materials], axis=0),
    )


def _to_linear(color: Array) -> Array:
    """sRGB-encoded -> linear, IEC 61966-2-1."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def _to_srgb(light: Array) -> Array:
    """Linear -> sRGB-encoded, IEC 61966-2-1."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
