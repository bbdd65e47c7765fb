"""Triangulate one hole: sew it up by cutting ears, or fill it with new vertices.

A hole that is simple when seen along its normal is filled with a Delaunay triangulation of its
border and a hexagonal grid. Any other is filled with rings: right in how faces hang together,
whatever the shape. Both leave it to `fair` where the new vertices go.

n border vertices of a hole, in order, counter-clockwise seen from outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import Delaunay, QhullError

Array = np.ndarray
Vector = Sequence[float]  # three numbers

REFLEX_COST = 100.0  # times the squared diagonal: an ear that folds over is the last resort
MOST_GRID_POINTS = 40_000
GRID_MARGIN = 0.6  # of the step or the border's edge: nearer to it there are no new vertices
NARROW = 0.5  # cosine: corners of a hole narrower than 60 degrees are cut off first
RING_STEP = 6  # vertices fewer per ring, as in a hexagonal grid


@dataclass(frozen=True)
class Patch:
    """faces (F, 3): border vertices 0..n-1, then `added` new ones n, n + 1, ..."""

    faces: Array
    added: int


def sew(points: Array, is_taken: Callable[[int, int], bool]) -> Array:
    """Triangulate a polygon without new vertices, shortest diagonals first: (n, 3) -> (n - 2, 3).

    is_taken(i, j) says that vertices i and j are joined already, so no diagonal may run there; it
    is ignored where nothing else is left.
    """
    faces, last = _cut_ears(points, is_taken, _length_of_cut, math.inf)
    return np.concatenate([faces, last[None]])


def trim(points: Array, is_taken: Callable[[int, int], bool]) -> tuple[Array, Array]:
    """Cut off the narrow corners of a polygon (n, 3), narrowest first.

    Returns their faces (F, 3) and the corners of the polygon that remains (n - F,), at least three.
    is_taken as in `sew`.
    """
    return _cut_ears(points, is_taken, _width_of_corner, -NARROW)


def _cut_ears(
    points: Array,
    is_taken: Callable[[int, int], bool],
    cost: Callable[[Vector, Vector, Vector], float],
    limit: float,
) -> tuple[Array, Array]:
    """Cut off the cheapest corners, up to `limit`, until three are left.

    cost(before, after, normal) of a corner: the ways from it to its neighbours, and the polygon's
    normal. Returns faces (F, 3) and the corners that are left. Plain numbers: holes are small, and
    NumPy is slow on three of them.
    """
    vectors = np.asarray(points, np.float64)
    normal = tuple(np.cross(vectors, np.roll(vectors, -1, axis=0)).sum(0).tolist())
    places = vectors.tolist()
    ring = list(range(len(places)))

    def cost_at(place: int) -> float:
        i, j, k = ring[place - 1], ring[place], ring[(place + 1) % len(ring)]
        if is_taken(i, k):
            return math.inf
        return cost(_way(places[j], places[i]), _way(places[j], places[k]), normal)

    costs = [cost_at(place) for place in ring]
    faces = []
    while len(ring) > 3:
        place = min(range(len(ring)), key=costs.__getitem__)
        if costs[place] > limit:
            break
        faces.append([ring[place - 1], ring[place], ring[(place + 1) % len(ring)]])
        del ring[place], costs[place]
        for neighbour in (place - 1, place % len(ring)):
            costs[neighbour] = cost_at(neighbour)
    return np.array(faces, np.int64).reshape(-1, 3), np.array(ring)


def _length_of_cut(before: Vector, after: Vector, normal: Vector) -> float:
    """The squared diagonal of a corner, much more where cutting it off would fold over."""
    diagonal = _way(before, after)
    length = _dot(diagonal, diagonal)
    return length if _is_convex(before, after, normal) else REFLEX_COST * length


def _width_of_corner(before: Vector, after: Vector, normal: Vector) -> float:
    """Minus the cosine of a corner's angle; infinite where cutting it off would fold over."""
    length = (_dot(before, before) * _dot(after, after)) ** 0.5
    if length == 0 or not _is_convex(before, after, normal):
        return math.inf
    return -_dot(before, after) / length


def _is_convex(before: Vector, after: Vector, normal: Vector) -> bool:
    (ax, ay, az), (bx, by, bz) = after, before
    return _dot((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx), normal) > 0


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _way(start: Vector, end: Vector) -> Vector:
    return (end[0] - start[0], end[1] - start[1], end[2] - start[2])


def planar_patch(points: Array, is_taken: Callable[[int, int], bool]) -> Patch | None:
    """Fill a polygon (n, 3) that is simple when seen along its normal; None where it is not.

    is_taken as in `sew`.
    """
    flat = _flattened(np.asarray(points, np.float64))
    if flat is None:
        return None
    inner = _grid_inside(flat)
    n = len(flat)
    every = np.concatenate([flat, inner])
    try:
        faces = Delaunay(every).simplices.astype(np.int64)
    except QhullError:
        return None
    corners = every[faces]
    (ux, uy), (vx, vy) = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    turn = ux * vy - uy * vx
    faces = np.where((turn < 0)[:, None], faces[:, ::-1], faces)
    faces = faces[(turn != 0) & _is_inside(flat, corners.mean(1))]
    if not _has_border(faces, n, len(every)):
        return None
    ends = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    across = np.unique(ends[(ends < n).all(1)], axis=0)
    across = across[~np.isin(across[:, 1] - across[:, 0], (1, n - 1))]
    if any(is_taken(int(i), int(j)) for i, j in across):
        return None
    return Patch(faces, len(inner))


def _flattened(points: Array) -> Array | None:
    """(n, 3) -> (n, 2) seen along the polygon's normal, or None if it has none."""
    normal = np.cross(points, np.roll(points, -1, axis=0)).sum(0)
    length = np.linalg.norm(normal)
    if length < 1e-20:
        return None
    normal /= length
    x = np.cross(np.eye(3)[np.abs(normal).argmin()], normal)
    x /= np.linalg.norm(x)
    return (points - points.mean(0)) @ np.stack([x, np.cross(normal, x)], 1)


def _grid_inside(polygon: Array) -> Array:
    """(K, 2) points of a hexagonal grid as dense as the polygon's vertices, off its border."""
    along = np.roll(polygon, -1, axis=0) - polygon
    step = np.linalg.norm(along, axis=1).mean()
    low, high = polygon.min(0), polygon.max(0)
    rows = np.arange(low[1], high[1], step * 0.75**0.5)
    columns = np.arange(low[0] - step, high[0], step)
    if len(rows) * len(columns) > MOST_GRID_POINTS:
        return np.empty((0, 2))
    x, y = np.meshgrid(columns, rows)
    x = x + np.where(np.arange(len(rows)) % 2, step / 2, 0.0)[:, None]
    points = np.stack([x.ravel(), y.ravel()], 1)
    points = points[_is_inside(polygon, points)]
    offset = points[:, None] - polygon  # (K, n, 2)
    share = np.einsum("kni,ni->kn", offset, along) / np.maximum((along**2).sum(1), 1e-30)
    gap = offset - np.clip(share, 0.0, 1.0)[..., None] * along
    reach = GRID_MARGIN * np.maximum(step, np.linalg.norm(along, axis=1))
    return points[(np.einsum("kni,kni->kn", gap, gap) > reach**2).all(1)]


def _is_inside(polygon: Array, points: Array) -> Array:
    """(K,) bool: whether a ray to the right of each point crosses the border an odd number of
    times."""
    a, b = polygon, np.roll(polygon, -1, axis=0)
    y = points[:, 1:]
    spans = (a[:, 1] > y) != (b[:, 1] > y)  # (K, n)
    rise = np.where(a[:, 1] == b[:, 1], 1.0, b[:, 1] - a[:, 1])
    crossing = a[:, 0] + (y - a[:, 1]) / rise * (b[:, 0] - a[:, 0])
    return (spans & (points[:, :1] < crossing)).sum(1) % 2 == 1


def _has_border(faces: Array, n: int, count: int) -> bool:
    """Whether faces (F, 3) are a disc of all `count` points with the border 0, 1, ... n - 1."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    keys = directed[:, 0] * count + directed[:, 1]
    back = directed[:, 1] * count + directed[:, 0]
    alone = directed[~np.isin(keys, back)]
    border = np.stack([np.arange(n), (np.arange(n) + 1) % n], 1)
    return (
        len(np.unique(keys)) == len(keys)
        and np.array_equal(alone[np.lexsort(alone.T[::-1])], border)
        and len(faces) == 2 * (count - n) + n - 2  # Euler's formula for a disc
        and len(np.unique(faces)) == count
    )


def ring_patch(n: int) -> Patch:
    """Fill a polygon of n vertices with rings of ever fewer vertices and a centre."""
    faces, outer, count = [], np.arange(n), n
    while len(outer) > RING_STEP + 2:
        inner = np.arange(count, count + len(outer) - RING_STEP)
        faces.append(_strip(outer, inner))
        count += len(inner)
        outer = inner
    faces.append(np.stack([outer, np.roll(outer, -1), np.full(len(outer), count)], 1))
    return Patch(np.concatenate(faces), count + 1 - n)


def _strip(outer: Array, inner: Array) -> Array:
    """Triangles between two closed rings, the inner one with fewer vertices."""
    n, m = len(outer), len(inner)
    mate = np.arange(n + 1) * m // n  # inner vertex beside outer i; grows by 0 or 1
    base = np.stack([outer, np.roll(outer, -1), inner[mate[:-1]]], 1)
    i = np.flatnonzero(np.diff(mate))
    cap = np.stack([outer[(i + 1) % n], inner[mate[i + 1] % m], inner[mate[i]]], 1)
    return np.concatenate([base, cap])
