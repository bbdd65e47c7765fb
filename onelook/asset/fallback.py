"""What stands in for a step that took too long: quick at any size, and plainer.

N vertices, M faces, T texture size in pixels.
"""

from __future__ import annotations

import numpy as np

from onelook.asset.topology import compact, uses_distinct
from onelook.asset.unwrap import Unwrapped

Array = np.ndarray
FINEST_GRID = 1 << 20  # cells along the longest side: three such numbers fit into 64 bits


def cluster(vertices: Array, faces: Array, target_faces: int) -> tuple[Array, Array]:
    """At most `target_faces` faces: vertices in one cell of a grid become their mean.

    vertices (N, 3) float32, faces (M, 3) int32. The grid is the finest of about 20 that were tried.
    Nothing promises that the result is manifold. Source of the idea: Rossignac and Borrel, 1993.
    """
    low = vertices.min(0).astype(np.float64)
    extent = float((vertices.max(0) - low).max()) or 1.0
    coarse, fine = 1, FINEST_GRID
    best = _clustered(vertices, faces, low, extent, coarse)
    while fine - coarse > max(1, coarse // 50):
        middle = round((coarse * fine) ** 0.5) if fine > 2 * coarse else (coarse + fine) // 2
        result = _clustered(vertices, faces, low, extent, middle)
        if len(result[1]) <= target_faces:
            best, coarse = result, middle
        else:
            fine = middle
    return best


def _clustered(
    vertices: Array, faces: Array, low: Array, extent: float, cells: int
) -> tuple[Array, Array]:
    place = np.minimum((vertices - low) * (cells / extent), cells - 1).astype(np.int64)
    key = (place[:, 0] * cells + place[:, 1]) * cells + place[:, 2]
    _, group = np.unique(key, return_inverse=True)
    count = np.bincount(group)
    means = np.stack([np.bincount(group, vertices[:, k]) / count for k in range(3)], axis=1)
    merged = group[faces].astype(np.int32)
    merged = merged[uses_distinct(merged)]
    _, first = np.unique(np.sort(merged, axis=1), axis=0, return_index=True)
    return compact(means.astype(np.float32), merged[np.sort(first)])


def unwrap_faces(faces: Array, texture_size: int) -> Unwrapped:
    """Every face in a place of its own, two to a square of a regular grid; faces (M, 3) int32.

    Texels per unit of surface differ from face to face, and every edge is a seam.
    """
    count = len(faces)
    side = int(np.ceil(np.sqrt((count + 1) // 2)))  # squares along the texture
    cell = 1 / side
    gap = min(1.5 / texture_size, cell / 8)  # from the square's border to the face
    near, far = gap, cell - gap
    lower = np.array([[near, near], [far - gap, near], [near, far - gap]])
    upper = np.array([[far, far], [near + gap, far], [far, near + gap]])
    square = np.arange(count) // 2
    corner = np.stack([square % side, square // side], axis=1) * cell
    uvs = corner[:, None] + np.stack([lower, upper])[np.arange(count) % 2]
    covered = count * (far - near - gap) ** 2 / 2
    return Unwrapped(
        vertices_index=faces.ravel().astype(np.int32),
        faces=np.arange(3 * count, dtype=np.int32).reshape(-1, 3),
        uvs=uvs.reshape(-1, 2).astype(np.float32),
        chart=np.arange(count, dtype=np.int32),
        padding=0,
        coverage=float(covered),
    )
