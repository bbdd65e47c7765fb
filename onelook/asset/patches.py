"""Triangulate one hole: sew it up by cutting ears, or fill it with new vertices.

A hole that is simple when seen along its normal is filled with a Delaunay triangulation of its
border and a hexagonal grid. Any other is filled with rings: right in how faces hang together,
whatever the shape. Both leave it to `fair` where the new vertices go.

n border vertices of a hole, in order, counter-clockwise seen from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import Delaunay, QhullError

Array = np.ndarray

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
    points = np.asarray(points, np.float64)
    normal = np.cross(points, np.roll(points, -1, axis=0)).sum(0)
    ring = list(range(len(points)))
    costs = {i: _ear_cost(points, normal, ring, place, is_taken) for place, i in enumerate(ring)}
    faces = []
    while len(ring) > 3:
        place = min(range(len(ring)), key=lambda p: costs[ring[p]])
        faces.append([ring[place - 1], ring[place], ring[(place + 1) % len(ring)]])
        del ring[place]
        for neighbour in (place - 1, place % len(ring)):
            i = ring[neighbour]
            costs[i] = _ear_cost(points, normal, ring, neighbour % len(ring), is_taken)
    faces.append(ring)
    return np.array(faces)


def _ear_cost(
    points: Array,
    normal: Array,
    ring: list[int],
    place: int,
    is_taken: Callable[[int, int], bool],
) -> float:
    """What cutting off the corner at `place` costs: its diagonal, much more where it folds over."""
    i, j, k = ring[place - 1], ring[place], ring[(place + 1) % len(ring)]
    if is_taken(i, k):
        return np.inf
    (a, b, c) = points[[i, j, k]]
    u, v = b - a, c - a
    length = float(v @ v)
    cross = np.array(
        [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]
    )
    return length if cross @ normal > 0 else REFLEX_COST * length


def trim(points: Array, is_taken: Callable[[int, int], bool]) -> tuple[Array, Array]:
    """Cut off the narrow corners of a polygon (n, 3), narrowest first.

    Returns their faces (F, 3) and the corners of the polygon that remains (n - F,), at least three.
    is_taken as in `sew`.
    """
    points = np.asarray(points, np.float64)
    normal = np.cross(points, np.roll(points, -1, axis=0)).sum(0)
    ring = list(range(len(points)))
    narrow = {i: _narrowness(points, normal, ring, place, is_taken) for place, i in enumerate(ring)}
    faces = []
    while len(ring) > 3:
        place = max(range(len(ring)), key=lambda p: narrow[ring[p]])
        if narrow[ring[place]] < NARROW:
            break
        faces.append([ring[place - 1], ring[place], ring[(place + 1) % len(ring)]])
        del ring[place]
        for neighbour in (place - 1, place % len(ring)):
            narrow[ring[neighbour]] = _narrowness(points, normal, ring, neighbour, is_taken)
    return np.array(faces, np.int64).reshape(-1, 3), np.array(ring)


def _narrowness(
    points: Array,
    normal: Array,
    ring: list[int],
    place: int,
    is_taken: Callable[[int, int], bool],
) -> float:
    """Cosine of the angle at a corner; -1 where cutting it off folds over or is not allowed."""
    i, j, k = ring[place - 1], ring[place], ring[(place + 1) % len(ring)]
    before, after = points[i] - points[j], points[k] - points[j]
    length = float((before @ before) * (after @ after)) ** 0.5
    if length == 0 or np.cross(after, before) @ normal <= 0 or is_taken(i, k):
        return -1.0
    return float(before @ after) / length


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
