"""Any triangles -> the flexible dual grid that the shape encoder reads.

A voxel becomes active where the surface crosses one of the four grid edges around it on some axis;
its vertex is the point of the voxel that lies nearest to the planes of the triangles in it and to
the lines of open borders through it. After mesh_to_flexible_dual_grid of o-voxel in
microsoft/TRELLIS.2. Lengths are in voxels here, and every sum runs in a fixed order.

N voxels, M faces, E edges, K crossings, R voxels per axis.
"""

from __future__ import annotations

import numpy as np
import torch

from onelook.errors import SurfaceError
from trellis2_backend.dual_grid import QUAD_STEPS, DualGrid
from trellis2_backend.quadrics import line_quadrics, lowest_points, plane_quadrics
from trellis2_backend.triangle_voxels import line_crossings, segment_voxels, touching_voxels

Array = np.ndarray

BORDER_WEIGHT = 0.2  # of the line quadrics of open borders
REGULARISATION = 0.01  # pull of the mean crossing, for each crossing


def mesh_to_dual_grid(vertices: Array, faces: Array, resolution: int) -> DualGrid:
    """vertices (V, 3) float in [-0.5, 0.5]^3, faces (M, 3) int of any winding -> dual grid, CPU.

    Voxels ascend by x, y, z; offsets are 0..1. Raises SurfaceError when no grid edge is crossed.
    """
    # rounded where the original rounds: a vertex near a line lies on the same side of it
    voxel_size = np.float32(1 / resolution)
    lines = np.arange(1, resolution + 1, dtype=np.float32) * voxel_size
    places = (vertices.astype(np.float32) + np.float32(0.5)) / np.float64(voxel_size)
    corners = places[faces]  # (M, 3, 3)
    crossings = line_crossings(corners, lines / np.float64(voxel_size))
    if not len(crossings.face):
        raise SurfaceError(
            f"the mesh crosses no edge of a grid of {resolution}^3 voxels, so it is too small or"
            " too thin to be textured"
        )
    around = crossings.voxel[:, None] + np.array(QUAD_STEPS)[crossings.axis]  # (K, 4, 3)
    keys, rows = np.unique(_number(around, resolution), return_inverse=True)
    rows = rows.reshape(-1, 4)
    intersected = np.zeros((len(keys), 3), bool)
    intersected[rows[:, 0], crossings.axis] = True

    quadrics, count = np.zeros((len(keys), 9)), len(keys)
    planes = plane_quadrics(corners)
    _add(quadrics, rows.ravel(), planes, np.repeat(crossings.face, 4))
    face, touched = touching_voxels(corners, resolution)
    _add(quadrics, *_among(keys, _number(touched, resolution), planes, face))
    borders = places[_border_edges(faces)]  # (E, 2, 3)
    edge, passed = segment_voxels(borders, resolution)
    lines = BORDER_WEIGHT * line_quadrics(borders)
    _add(quadrics, *_among(keys, _number(passed, resolution), lines, edge))

    uses = np.bincount(rows.ravel(), minlength=count)
    points = [np.bincount(rows.ravel(), np.repeat(p, 4), count) for p in crossings.point.T]
    coords = np.stack(np.unravel_index(keys, (resolution,) * 3), 1)
    mean = np.stack(points, 1) / uses[:, None]
    offsets = lowest_points(quadrics, mean, REGULARISATION * uses, coords)
    return DualGrid(
        torch.from_numpy(coords.astype(np.int32)),
        torch.from_numpy(offsets),
        torch.from_numpy(intersected),
        resolution,
    )


def _number(coords: Array, resolution: int) -> Array:
    """coords (..., 3) -> (...) int64, ascending by x, y, z."""
    x, y, z = np.moveaxis(coords.astype(np.int64), -1, 0)
    return (x * resolution + y) * resolution + z


def _add(sums: Array, rows: Array, values: Array, source: Array) -> None:
    """sums[rows] += values[source], in the order of the rows."""
    for column in range(sums.shape[1]):
        sums[:, column] += np.bincount(rows, values[source, column], len(sums))


def _among(keys: Array, wanted: Array, values: Array, source: Array) -> tuple[Array, Array, Array]:
    """Arguments of `_add` for the voxels that are active."""
    rows = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    active = keys[rows] == wanted
    return rows[active], values, source[active]


def _border_edges(faces: Array) -> Array:
    """Edges that only one face has: (E, 2)."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64), axis=1)
    keys, uses = np.unique(edges[:, 0] << 32 | edges[:, 1], return_counts=True)
    keys = keys[uses == 1]
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], 1)
