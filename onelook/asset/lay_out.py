"""Where the faces of a mesh file go in a texture: as the file has it, or in a new atlas.

N vertices, M faces, K vertices after cutting along seams and creases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onelook.asset.creases import corner_normals
from onelook.asset.mesh_parts import MeshPart
from onelook.asset.topology import weld_index

Array = np.ndarray

_SLACK = 1e-4  # by which rounding may take UVs out of 0..1
_LOOKED_AT = 1024  # pixels of the picture in which overlaps are looked for
MOST_OVERLAP = 0.01  # of the layout's area: faces that share texels cannot be painted apart
MOST_COLLAPSED = 0.01  # of the mesh's area: faces that have no texels cannot be painted
LEAST_COVERAGE = 0.1  # of the texture: below, most of it would be wasted


@dataclass(frozen=True)
class LaidOut:
    """Triangles with one place in the texture for each: vertices (K, 3) float32, normals (K, 3)
    float32 of unit length, uvs (K, 2) float32 0..1 from the top left, faces (M, 3) int32 in the
    order of the file."""

    vertices: Array
    normals: Array
    uvs: Array
    faces: Array


def lay_out(vertices: Array, faces: Array, parts: Sequence[MeshPart], texture_size: int) -> LaidOut:
    """A new atlas for a square texture: vertices (N, 3) float32, about the unit box, and faces
    (M, 3) int32 are those of all parts, one after the other."""
    from onelook.asset.unwrap import unwrap

    unwrapped = unwrap(vertices, faces, texture_size)
    normals = _normals_at_corners(vertices, faces, parts)
    return _cut_at_creases(
        vertices[unwrapped.vertices_index], unwrapped.uvs, unwrapped.faces, normals
    )


def own_layout(vertices: Array, faces: Array, parts: Sequence[MeshPart]) -> LaidOut | None:
    """The UVs of the file, where every part has some and a texture can be painted on them; else
    None. Arguments as of `lay_out`.

    UVs are good when they lie within the texture, no two faces share a place, no face has none,
    and they do not leave nearly all of the texture empty.
    """
    if any(part.uvs is None for part in parts):
        return None
    uvs = np.concatenate([part.uvs for part in parts])
    if not has_room_for_each_face(vertices, uvs, faces):
        return None
    return laid_out_by(np.clip(uvs, 0, 1), vertices, faces, parts)


def laid_out_by(uvs: Array, vertices: Array, faces: Array, parts: Sequence[MeshPart]) -> LaidOut:
    """These UVs (N, 2), whatever they are like; the other arguments as of `lay_out`."""
    normals = _normals_at_corners(vertices, faces, parts)
    return _cut_at_creases(vertices, uvs.astype(np.float32), faces, normals)


def has_room_for_each_face(vertices: Array, uvs: Array, faces: Array) -> bool:
    """Whether a UV layout gives every face texels of its own: see `own_layout`."""
    if (uvs < -_SLACK).any() or (uvs > 1 + _SLACK).any():
        return False
    from onelook.asset.topology import face_areas
    from onelook.asset.uv_raster import texel_faces

    flat = np.pad(uvs, ((0, 0), (0, 1)))
    areas, real_areas = face_areas(flat, faces), face_areas(vertices, faces)
    least = 1e-4 * areas.sum() / max(real_areas.sum(), 1e-30)  # of a face's texels for its area
    if real_areas[areas <= least * real_areas].sum() > MOST_COLLAPSED * real_areas.sum():
        return False
    covered = (texel_faces(uvs, faces, _LOOKED_AT) >= 0).mean()
    return covered >= LEAST_COVERAGE and areas.sum() - covered <= MOST_OVERLAP * areas.sum()


def _normals_at_corners(vertices: Array, faces: Array, parts: Sequence[MeshPart]) -> Array:
    """(M, 3, 3) float32: the file's normals, worked out for the parts without."""
    if all(part.normals is not None for part in parts):
        return np.concatenate([part.normals[part.faces] for part in parts]).astype(np.float32)
    normals = corner_normals(vertices, faces)
    first = 0
    for part in parts:
        if part.normals is not None:
            normals[first : first + len(part.faces)] = part.normals[part.faces]
        first += len(part.faces)
    return normals


def _cut_at_creases(vertices: Array, uvs: Array, faces: Array, normals: Array) -> LaidOut:
    """Repeat vertices whose corners have different normals (M, 3, 3)."""
    kind, count = weld_index(normals.reshape(-1, 3))
    key = faces.ravel().astype(np.int64) * count + kind
    _, first, corners = np.unique(key, return_index=True, return_inverse=True)
    source = faces.ravel()[first]
    return LaidOut(
        vertices[source],
        normals.reshape(-1, 3)[first],
        uvs[source],
        corners.reshape(-1, 3).astype(np.int32),
    )
