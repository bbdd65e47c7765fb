"""Which voxels triangles and segments pass through, and where triangles cross grid lines.

Space is measured in voxels: voxel i covers i to i + 1 on each axis, grid lines run along one axis
through whole numbers on the other two. Work and memory grow with the surface, however large a
triangle is. M triangles, E segments, K crossings, P pairs, R voxels per axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp

from onelook.kernels import launch

Array = np.ndarray

_CHILDREN = np.array([[c >> 2, c >> 1 & 1, c & 1] for c in range(8)], np.int32)
_PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Crossings:
    """Where triangles cross grid lines, by axis.

    face (K,) the triangle; axis (K,) of the line; point (K, 3) float64; voxel (K, 3) int64: of the
    four voxels around that piece of the line the lowest.
    """

    face: Array
    axis: Array
    point: Array
    voxel: Array


def line_crossings(corners: Array, lines: Array) -> Crossings:
    """Crossings of triangles (M, 3, 3) float64 with the grid's lines, within the grid.

    lines (R,) float64: where the line beyond voxel i lies, about i + 1; the last one is not used.
    A triangle is cut into rows along one axis and each row into columns: a line on a triangle's
    lower border counts, one on its upper border does not, so that neighbours share no crossing.
    """
    parts = [_along(corners, axis, lines) for axis in range(3)]
    return Crossings(
        face=np.concatenate([p.face for p in parts]),
        axis=np.concatenate([p.axis for p in parts]),
        point=np.concatenate([p.point for p in parts]),
        voxel=np.concatenate([p.voxel for p in parts]),
    )


def _along(corners: Array, axis: int, lines: Array) -> Crossings:
    """Crossings with the lines along one axis; x, y and z here are the axes from the next one on,
    so that z is along the line."""
    resolution = len(lines)
    turned = corners[:, :, [(axis + 1) % 3, (axis + 2) % 3, axis]]
    order = np.argsort(turned[:, :, 1], axis=1, kind="stable")
    low, middle, high = np.moveaxis(np.take_along_axis(turned, order[..., None], 1), 1, 0)
    parts = []
    for start, stop, tip in ((low, middle, low), (middle, high, high)):
        rows_from, rows_to = (_clipped(point[:, 1], resolution) for point in (start, stop))
        triangle, row = _ranges(rows_from, rows_to)
        other = high if tip is low else low
        y = lines[row]
        left = _at_height(tip[triangle], middle[triangle], y)  # (K, 2): x and z
        right = _at_height(tip[triangle], other[triangle], y)
        swapped = left[:, 0] > right[:, 0]
        left[swapped], right[swapped] = right[swapped], left[swapped]
        columns = (_clipped(end[:, 0], resolution) for end in (left, right))
        of_row, column = _ranges(*columns)
        x = lines[column]
        left, right = left[of_row], right[of_row]
        z = left[:, 1] + (x - left[:, 0]) / (right[:, 0] - left[:, 0]) * (right[:, 1] - left[:, 1])
        cell = z.astype(np.int64)
        kept = (cell >= 0) & (cell < resolution)
        point = np.empty((len(x), 3))
        voxel = np.empty((len(x), 3), np.int64)
        for place, (value, index) in enumerate(((x, column), (y[of_row], row[of_row]), (z, cell))):
            point[:, (axis + 1 + place) % 3] = value
            voxel[:, (axis + 1 + place) % 3] = index
        parts.append((triangle[of_row][kept], point[kept], voxel[kept]))
    face, point, voxel = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Crossings(face, np.full(len(face), axis), point, voxel)


def _clipped(values: Array, resolution: int) -> Array:
    """The cells that values lie in, held within the grid."""
    return np.clip(values.astype(np.int64), 0, resolution - 1)


def _ranges(first: Array, stop: Array) -> tuple[Array, Array]:
    """All whole numbers from first to before stop: the row of each, and the number."""
    counts = np.maximum(stop - first, 0)
    rows = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return rows, np.arange(len(rows)) - start[rows] + first[rows]


def _at_height(start: Array, end: Array, y: Array) -> Array:
    """x and z of the lines from start to end (K, 3) at heights y (K,): (K, 2)."""
    share = (y - start[:, 1]) / (end[:, 1] - start[:, 1])
    return start[:, [0, 2]] + share[:, None] * (end - start)[:, [0, 2]]


def touching_voxels(corners: Array, resolution: int) -> tuple[Array, Array]:
    """Voxels that triangles touch: (M, 3, 3) float64 -> triangle (P,) and coords (P, 3) int32.

    Found from coarse to fine: a triangle begins with the few cells of about its own size.
    """
    extent = np.ptp(corners, axis=1).max(1) if len(corners) else np.zeros(0)
    top = np.ceil(np.log2(np.maximum(extent, 1.0))).astype(np.int64)
    device_corners = wp.array(corners, dtype=wp.vec3d, device="cpu")
    found = []
    for level in np.unique(top):
        members = np.flatnonzero(top == level)
        size = 2.0**level
        for some in np.array_split(members, len(members) * 27 // _PAIRS_AT_ONCE + 1):
            triangle, coords = _bounding_cells(corners[some], size)
            found += _refined(device_corners, some[triangle], coords, int(level), resolution)
    if not found:
        return np.empty(0, np.int64), np.empty((0, 3), np.int32)
    return tuple(np.concatenate(column) for column in zip(*found, strict=True))


def _bounding_cells(corners: Array, size: float) -> tuple[Array, Array]:
    """All cells of side `size` in the bounding boxes: triangle (P,), coords (P, 3) int32."""
    low = np.floor(corners.min(1) / size).astype(np.int64)
    sides = np.floor(corners.max(1) / size).astype(np.int64) - low + 1
    triangle, number = _ranges(np.zeros(len(low), np.int64), sides.prod(1))
    x, rest = np.divmod(number, (sides[:, 1] * sides[:, 2])[triangle])
    y, z = np.divmod(rest, sides[triangle, 2])
    return triangle, (low[triangle] + np.stack([x, y, z], 1)).astype(np.int32)


def _refined(
    corners: wp.array, triangle: Array, coords: Array, level: int, resolution: int
) -> list[tuple[Array, Array]]:
    """The pairs that touch, taken down to single voxels a bounded number at a time."""
    touches = _touch(corners, triangle, coords, 2.0**level)
    inside = (coords >= 0).all(1) & ((coords.astype(np.int64) << level) < resolution).all(1)
    kept = touches & inside
    triangle, coords = triangle[kept], coords[kept]
    if level == 0:
        return [(triangle, coords)]
    found = []
    for part in np.array_split(np.arange(len(triangle)), len(triangle) * 8 // _PAIRS_AT_ONCE + 1):
        children = (2 * coords[part, None] + _CHILDREN).reshape(-1, 3)
        found += _refined(corners, np.repeat(triangle[part], 8), children, level - 1, resolution)
    return found


def _touch(corners: wp.array, triangle: Array, coords: Array, size: float) -> Array:
    """(P,) bool: whether a triangle touches the cell of side `size` at coords * size."""
    result = np.empty(len(triangle), np.uint8)
    inputs = [
        corners,
        wp.array(triangle.astype(np.int32), dtype=wp.int32, device="cpu"),
        wp.array(np.ascontiguousarray(coords), dtype=wp.vec3i, device="cpu", copy=False),
        wp.float64(size),
        wp.array(result, dtype=wp.uint8, device="cpu", copy=False),
    ]
    launch(_triangle_touches_cube, len(triangle), inputs, "cpu")
    return result.astype(bool)


@wp.kernel(enable_backward=False)
def _triangle_touches_cube(
    first: int,
    corners: wp.array(dtype=wp.vec3d, ndim=2),
    triangle: wp.array(dtype=wp.int32),
    coords: wp.array(dtype=wp.vec3i),
    size: wp.float64,
    result: wp.array(dtype=wp.uint8),
):
    """Separating axes: the cube's own, the triangle's normal, the cross products of their edges.

    Akenine-Moeller, "Fast 3D Triangle-Box Overlap Testing", 2001. Touching counts.
    """
    i = first + wp.tid()
    half = size * wp.float64(0.5)
    cell = wp.vec3d(wp.float64(coords[i][0]), wp.float64(coords[i][1]), wp.float64(coords[i][2]))
    centre = cell * size + wp.vec3d(half, half, half)
    a = corners[triangle[i], 0] - centre
    b = corners[triangle[i], 1] - centre
    c = corners[triangle[i], 2] - centre
    result[i] = wp.uint8(0)
    if wp.max(wp.min(wp.min(a, b), c)) > half or wp.min(wp.max(wp.max(a, b), c)) < -half:
        return
    normal = wp.cross(b - a, c - a)
    if wp.abs(wp.dot(normal, a)) > half * wp.dot(wp.abs(normal), _ones()):
        return
    for _edge in range(3):
        along = b - a
        for axis in range(3):
            unit = wp.vec3d()
            unit[axis] = wp.float64(1.0)
            across = wp.cross(unit, along)
            reach = half * wp.dot(wp.abs(across), _ones())
            start = wp.dot(across, a)  # of b it is the same
            tip = wp.dot(across, c)
            if wp.min(start, tip) > reach or wp.max(start, tip) < -reach:
                return
        rest = a
        a = b
        b = c
        c = rest
    result[i] = wp.uint8(1)


@wp.func
def _ones() -> wp.vec3d:
    return wp.vec3d(wp.float64(1.0), wp.float64(1.0), wp.float64(1.0))


def segment_voxels(segments: Array, resolution: int) -> tuple[Array, Array]:
    """Voxels that segments pass through: (E, 2, 3) float64 -> segment (P,) and coords (P, 3) int64.

    A segment is cut where it crosses from voxel to voxel; each piece lies in the voxel of its
    middle.
    """
    start, along = segments[:, 0], segments[:, 1] - segments[:, 0]
    edges, cuts = [np.arange(len(segments))] * 2, [np.zeros(len(segments)), np.ones(len(segments))]
    for axis in range(3):
        ends = segments[:, :, axis]
        edge, plane = _ranges(
            np.ceil(ends.min(1)).astype(np.int64), np.ceil(ends.max(1)).astype(np.int64)
        )
        edges.append(edge)
        cuts.append((plane - start[edge, axis]) / along[edge, axis])
    edge, cut = np.concatenate(edges), np.concatenate(cuts)
    order = np.lexsort((cut, edge))
    edge, cut = edge[order], cut[order]
    piece = np.flatnonzero((edge[1:] == edge[:-1]) & (cut[1:] > cut[:-1]))
    middle = (cut[piece] + cut[piece + 1]) / 2
    edge = edge[piece]
    coords = np.floor(start[edge] + middle[:, None] * along[edge]).astype(np.int64)
    inside = ((coords >= 0) & (coords < resolution)).all(1)
    return edge[inside], coords[inside]
