"""Smooth vertex normals that ignore UV seams.

N vertices, M faces, K distinct positions.
"""

from __future__ import annotations

import numpy as np
import warp as wp

from onelook.asset.topology import weld_index
from onelook.kernels import launch

Array = np.ndarray


def vertex_normals(vertices: Array, faces: Array) -> Array:
    """Angle-weighted mean of the normals around each position: -> (N, 3) float32, unit length.

    vertices (N, 3) float, faces (M, 3) int, counter-clockwise from outside. Vertices at the very
    same position get the same normal, so that cuts along UV seams stay invisible. A vertex whose
    faces have no area or cancel out takes the normal of one of its faces, else of its neighbours,
    else +Y. Angle weights: Thuermer and Wuethrich, "Computing Vertex Normals from Polygonal
    Facets", 1998.
    """
    position, count = weld_index(vertices)
    welded = position[faces]  # (M, 3)
    face_count = len(faces)
    pulls = np.empty((3, 3 * face_count))  # x, y, z of every corner
    inputs = [np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32)]
    launch(_weigh_corners, face_count, [*map(_on_cpu, inputs), _on_cpu(pulls)], "cpu")
    sums = np.stack([np.bincount(welded.ravel(), pull, count) for pull in pulls], axis=1)
    lengths = np.linalg.norm(sums, axis=1)
    if len(weak := np.flatnonzero(lengths < 1e-3)):
        _mend(sums, lengths, weak, welded, face_normals(vertices, faces)[0])
    return (sums / lengths[:, None]).astype(np.float32)[position]


def _on_cpu(array: Array) -> wp.array:
    return wp.array(array, dtype=wp.dtype_from_numpy(array.dtype), device="cpu", copy=False)


@wp.kernel
def _weigh_corners(
    first: int,
    vertices: wp.array(dtype=wp.float32, ndim=2),
    faces: wp.array(dtype=wp.int32, ndim=2),
    pulls: wp.array(dtype=wp.float64, ndim=2),
):
    """The unit normal of a face times the angle, in radians, at each of its corners."""
    f = first + wp.tid()
    a = _point(vertices, faces[f, 0])
    b = _point(vertices, faces[f, 1])
    c = _point(vertices, faces[f, 2])
    normal = wp.cross(b - a, c - a)
    area = wp.length(normal)
    if area > wp.float64(0.0):
        normal = normal / area
    for corner in range(3):
        # the area is also |side| |other side| sin(angle), of every corner alike
        angle = wp.atan2(area, wp.dot(b - a, c - a))
        for axis in range(3):
            pulls[axis, 3 * f + corner] = angle * normal[axis]
        d = a
        a = b
        b = c
        c = d


@wp.func
def _point(vertices: wp.array(dtype=wp.float32, ndim=2), i: int) -> wp.vec3d:
    x = wp.float64(vertices[i, 0])
    return wp.vec3d(x, wp.float64(vertices[i, 1]), wp.float64(vertices[i, 2]))


def face_normals(vertices: Array, faces: Array) -> tuple[Array, Array]:
    """Unit normals (M, 3) float64, zero where a face has no area, and areas (M,) float64."""
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    normals = np.cross(b - a, c - a)
    doubled = np.linalg.norm(normals, axis=1)
    return normals / np.where(doubled > 0, doubled, 1.0)[:, None], doubled / 2


def _mend(sums: Array, lengths: Array, weak: Array, welded: Array, normals: Array) -> None:
    """Give positions whose normals cancelled out another one, in place."""
    is_weak = np.zeros(len(sums), bool)
    is_weak[weak] = True
    around = is_weak[welded].any(axis=1)
    corners = welded[around]
    neighbours = sums / np.maximum(lengths, 1e-30)[:, None]
    neighbours[weak] = 0
    mean = neighbours[corners].sum(axis=1)  # (faces around, 3)
    sums[weak] = (0.0, 1.0, 0.0)
    for choice in (mean, normals[around]):  # the later one wins
        usable = np.linalg.norm(choice, axis=1) > 1e-6
        for corner in range(3):
            at = corners[:, corner]
            rows = usable & is_weak[at]
            sums[at[rows]] = choice[rows]
    lengths[weak] = np.linalg.norm(sums[weak], axis=1)
