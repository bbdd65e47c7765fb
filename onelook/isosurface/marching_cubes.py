"""Marching cubes: the triangles where a field on a grid crosses a level.

The sparse form is given only the cells that the surface passes through, so its memory grows with
the surface and not with the cube. Vertices are shared between cells, which makes every mesh
watertight except where the surface runs out of the grid.

K cells, N vertices, M faces, R grid points per axis.
"""

from __future__ import annotations

import math

import numpy as np

from onelook.errors import SurfaceError
from onelook.isosurface.cube_cases import (
    CORNER_OFFSETS,
    EDGE_AXIS,
    EDGE_CORNERS,
    cube_cases,
)

Array = np.ndarray


def marching_cubes(field: Array, level: float = 0.0) -> tuple[Array, Array]:
    """Surface of a whole grid: field (R0, R1, R2) -> vertices (N, 3), faces (M, 3).

    The inside is where field >= level. vertices float32 in index units, axes in the order of the
    array's; faces int32, counter-clockwise seen from the low side. A surface that reaches the
    border of the grid stays open there, and one that passes through grid points has faces without
    area there (`marching_cubes_cells` can avoid that). Raises SurfaceError when no cell crosses the
    level and ValueError when the field is not a grid of at least 2 points per axis.
    """
    if field.ndim != 3 or min(field.shape) < 2:
        raise ValueError(f"field must be a grid of 2 or more points per axis, got {field.shape}")
    cell_coords = active_cells(field >= level)
    i, j, k = cell_coords.T
    corner_values = np.empty((len(cell_coords), 8), np.float32)
    for corner, (di, dj, dk) in enumerate(CORNER_OFFSETS.tolist()):
        corner_values[:, corner] = field[i + di, j + dj, k + dk]
    return marching_cubes_cells(corner_values, cell_coords, level)


def active_cells(inside: Array) -> Array:
    """Cells with corners on both sides: inside (R0, R1, R2) bool -> coords (K, 3) int64."""
    some, every = inside, inside
    for axis in range(3):
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        some, every = some[low] | some[high], every[low] & every[high]
    return np.argwhere(some & ~every)


def marching_cubes_cells(
    corner_values: Array, cell_coords: Array, level: float = 0.0, min_fraction: float = 0.0
) -> tuple[Array, Array]:
    """Surface of some cells: values (K, 8), coords (K, 3) -> vertices (N, 3), faces (M, 3).

    corner_values: field at the corners of each cell; corner c has the offset (c & 1, c >> 1 & 1,
    c >> 2 & 1). cell_coords: integer index of each cell's lowest corner; each cell once. Cells that
    do not cross the level are allowed and give nothing. min_fraction keeps every vertex at least
    this share of a cell (0 to 0.5) away from the grid points, so that no triangle degenerates where
    the surface passes through one; 0 puts vertices where linear interpolation has them.

    Results as in `marching_cubes`; vertices are ordered by grid edge, faces by cell. Raises
    SurfaceError when no cell crosses the level and ValueError when cells lie absurdly far apart.
    """
    inside = corner_values >= level
    cases = np.packbits(inside, axis=1, bitorder="little")[:, 0].astype(np.int64)  # (K,)
    table = cube_cases()
    starts = table.case_starts[cases]
    counts = table.case_starts[cases + 1] - starts
    cell_of_face = np.repeat(np.arange(len(cases)), counts)  # (M,)
    if not len(cell_of_face):
        raise SurfaceError(
            f"the field never crosses the level {level:g}, so there is no surface; "
            "lower the level or use another picture"
        )
    first_face = np.cumsum(counts) - counts
    row = np.arange(len(cell_of_face)) + np.repeat(starts - first_face, counts)
    edges = table.triangles[row]  # (M, 3)

    low = cell_coords.min(axis=0)
    extent = cell_coords.max(axis=0) - low + 2  # grid points per axis
    key_count = 3 * math.prod(extent.tolist())
    if key_count >= 1 << 63:
        raise ValueError(f"cells must lie within fewer than 2^63 grid edges, they span {extent}")
    strides = np.array([extent[1] * extent[2], extent[2], 1], np.int64)
    cell_keys = ((cell_coords - low) @ strides) * 3
    edge_keys = (CORNER_OFFSETS[EDGE_CORNERS[:, 0]] @ strides) * 3 + EDGE_AXIS  # (12,)
    keys = cell_keys[cell_of_face][:, None] + edge_keys[edges]  # (M, 3), one number per grid edge
    first_use, faces = _share(keys.ravel(), key_count)

    cell, edge = cell_of_face[first_use // 3], edges.ravel()[first_use]  # (N,) each
    start, end = EDGE_CORNERS[edge].T
    value, value_after = corner_values[cell, start], corner_values[cell, end]
    fraction = (level - value) / (value_after - value)
    if min_fraction:
        fraction = np.clip(fraction, min_fraction, 1.0 - min_fraction)
    vertices = (cell_coords[cell] + CORNER_OFFSETS[start]).astype(np.float32)
    vertices[np.arange(len(vertices)), EDGE_AXIS[edge]] += fraction
    return vertices, faces.reshape(-1, 3)


def _share(keys: Array, key_count: int) -> tuple[Array, Array]:
    """Number equal keys alike: keys (J,) -> first use of each (N,), number of each key (J,) int32.

    Key and place travel in one integer where they fit: sorting that is several times quicker than
    an indirect sort.
    """
    place_bits = len(keys).bit_length()
    if key_count.bit_length() + place_bits < 64:
        packed = np.sort(keys << place_bits | np.arange(len(keys)))
        places, ordered = packed & ((1 << place_bits) - 1), packed >> place_bits
    else:
        places = np.argsort(keys, kind="stable")
        ordered = keys[places]
    is_first = np.empty(len(keys), bool)
    is_first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    numbers = np.empty(len(keys), np.int32)
    numbers[places] = np.cumsum(is_first, dtype=np.int32) - 1
    return places[is_first], numbers
