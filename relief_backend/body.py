"""The closed body around a silhouette: the surface where z^2 equals the squared half-thickness.

The front half (z >= 0) comes from marching cubes over only those cells the surface passes through;
the back half is its mirror image and shares the outline's vertices. Holes and separate parts need
no care.

J, I grid rows (upward) and columns, N vertices, M faces. Lengths in cells; x along I, y along J, z
toward the viewer.
"""

from __future__ import annotations

import numpy as np

from onelook.isosurface.marching_cubes import marching_cubes_cells

Array = np.ndarray

_LONGEST_STEP = 0.3  # of a projection, in cells: keeps neighbouring vertices apart


def front_half(squared_height: Array) -> tuple[Array, Array]:
    """squared_height (J, I), negative outside -> vertices (N, 3), faces (M, 3) with z >= 0.

    Faces are counter-clockwise seen from outside; the only open edges lie at z = 0 exactly.
    """
    vertices, faces = marching_cubes_cells(*_front_cells(squared_height), min_fraction=0.1)
    for _ in range(2):
        vertices = _project(vertices, squared_height)
    return vertices, faces


def close(front: Array, back: Array, faces: Array) -> tuple[Array, Array]:
    """Join the front half and its mirrored twin along z = 0.

    front, back (N, 3): the two positions of every vertex, z >= 0 in both; faces (M, 3).
    Returns vertices (N', 3) and faces (2 M, 3), counter-clockwise seen from outside.
    """
    is_rim = front[:, 2] == 0
    twin = np.where(is_rim, np.arange(len(front)), len(front) + np.cumsum(~is_rim) - 1)
    mirrored = back[~is_rim] * np.array([1, 1, -1], np.float32)
    vertices = np.concatenate([front, mirrored])
    return vertices, np.concatenate([faces, twin[faces[:, ::-1]]]).astype(np.int32)


def _front_cells(squared_height: Array) -> tuple[Array, Array]:
    """Cells that the front passes through: corner values (K, 8) and coords (K, 3) as x, y, z."""
    corners = np.stack(  # (4, J - 1, I - 1), corner c at offset (c & 1, c >> 1)
        [
            squared_height[dy : dy + squared_height.shape[0] - 1, dx:][
                :, : squared_height.shape[1] - 1
            ]
            for dy in (0, 1)
            for dx in (0, 1)
        ]
    )
    lowest, highest = corners.min(axis=0), corners.max(axis=0)
    y, x = np.nonzero(highest >= 0)
    # Square roots in double precision: a float32 lies never so near an integer's square that the
    # layer would be mistaken.
    first = np.floor(np.sqrt(np.maximum(lowest[y, x], 0).astype(np.float64))).astype(np.int64)
    last = np.floor(np.sqrt(highest[y, x].astype(np.float64))).astype(np.int64)
    counts = last - first + 1
    column = np.repeat(np.arange(len(x)), counts)  # (K,)
    z = np.arange(len(column)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    base = corners[:, y, x].T[column]  # (K, 4)
    values = np.concatenate(
        [base - (z[:, None] + dz).astype(np.float32) ** 2 for dz in (0, 1)], axis=1
    )
    return values, np.stack([x[column], y[column], z], axis=1)


def _project(vertices: Array, squared_height: Array) -> Array:
    """One Newton step along the gradient of squared_height(x, y) - z^2, cubically interpolated.

    Marching cubes places vertices by linear interpolation, which would leave a ripple of the grid
    in the shading.
    """
    x, y, z = vertices.T
    value, slope_x, slope_y = cubic(squared_height, x, y)
    gradient = np.stack([slope_x, slope_y, -2 * z], axis=1)
    square = np.maximum(np.einsum("ij,ij->i", gradient, gradient), 1e-12)
    factor = (value - z * z) / square
    length = np.abs(factor) * np.sqrt(square)
    factor *= np.minimum(1.0, _LONGEST_STEP / np.maximum(length, 1e-12))
    moved = (vertices - factor[:, None] * gradient).astype(np.float32)
    moved[:, 2] = np.maximum(moved[:, 2], 0.25 * z)  # the front stays in front; the rim at 0
    return moved


def cubic(field: Array, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """field (J, I) at columns x and rows y (N,) -> value and slopes along x and y, (N,) each.

    Catmull-Rom spline; positions must lie one grid point or more within the border.
    """
    i = np.clip(x.astype(np.int64), 1, field.shape[1] - 3)
    j = np.clip(y.astype(np.int64), 1, field.shape[0] - 3)
    (weights_x, slopes_x), (weights_y, slopes_y) = _catmull_rom(x - i), _catmull_rom(y - j)
    flat = np.ascontiguousarray(field).ravel()
    corner = (j - 1) * field.shape[1] + i - 1
    value, slope_x, slope_y = (np.zeros(len(x), np.float32) for _ in range(3))
    for row in range(4):
        line = corner + row * field.shape[1]
        taps = [flat[line + column] for column in range(4)]
        along = sum(w * tap for w, tap in zip(weights_x, taps, strict=True))
        value += weights_y[row] * along
        slope_y += slopes_y[row] * along
        slope_x += weights_y[row] * sum(w * tap for w, tap in zip(slopes_x, taps, strict=True))
    return value, slope_x, slope_y


def _catmull_rom(t: Array) -> tuple[list[Array], list[Array]]:
    """Weights of the four neighbours at fraction t, and the weights' derivatives."""
    weights = [
        t * (-0.5 + t * (1.0 - 0.5 * t)),
        1.0 + t * t * (-2.5 + 1.5 * t),
        t * (0.5 + t * (2.0 - 1.5 * t)),
        t * t * (-0.5 + 0.5 * t),
    ]
    slopes = [
        -0.5 + t * (2.0 - 1.5 * t),
        t * (-5.0 + 4.5 * t),
        0.5 + t * (4.0 - 4.5 * t),
        t * (-1.0 + 1.5 * t),
    ]
    return weights, slopes
