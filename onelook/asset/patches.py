"""Triangulate one hole: sew it up by cutting ears, or fill it with rings of new vertices.

n border vertices of a hole, in order, counter-clockwise seen from outside.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import splu

Array = np.ndarray

REFLEX_COST = 100.0  # times the squared diagonal: an ear that folds over is the last resort
RING_STEP = 6  # vertices fewer per ring, as in a hexagonal grid


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


def ring_patch(n: int) -> tuple[Array, int]:
    """Fill a polygon with rings of ever fewer vertices and a centre: n -> faces, new vertices.

    Faces (F, 3) index the border 0..n-1 first, then the new vertices n, n + 1, ...
    """
    faces, outer, count = [], np.arange(n), n
    while len(outer) > RING_STEP + 2:
        inner = np.arange(count, count + len(outer) - RING_STEP)
        faces.append(_strip(outer, inner))
        count += len(inner)
        outer = inner
    faces.append(np.stack([outer, np.roll(outer, -1), np.full(len(outer), count)], 1))
    return np.concatenate(faces), count + 1 - n


def _strip(outer: Array, inner: Array) -> Array:
    """Triangles between two closed rings, the inner one with fewer vertices."""
    n, m = len(outer), len(inner)
    mate = np.arange(n + 1) * m // n  # inner vertex beside outer i; grows by 0 or 1
    base = np.stack([outer, np.roll(outer, -1), inner[mate[:-1]]], 1)
    i = np.flatnonzero(np.diff(mate))
    cap = np.stack([outer[(i + 1) % n], inner[mate[i + 1] % m], inner[mate[i]]], 1)
    return np.concatenate([base, cap])


def fair(vertices: Array, faces: Array, patch: Array, border: Array, count: int) -> Array:
    """Place the new vertices of patches so that they continue the surface around them.

    vertices (N, 3) float32, faces (M, 3): the mesh; patch (F, 3): faces of all patches, whose new
    vertices are N..count-1; border: the vertices around the patches. Returns (count, 3) float32.
    Minimises the sum of squared umbrella vectors over the patches and their borders.
    """
    on_border = np.zeros(count, bool)
    on_border[border] = True
    around = faces[on_border[faces].any(1)]
    local, index = np.unique(np.concatenate([patch, around]), return_inverse=True)
    triangles = index.reshape(-1, 3)
    rows = triangles[:, [0, 1, 2, 1, 2, 0]].ravel()
    columns = triangles[:, [1, 2, 0, 0, 1, 2]].ravel()
    size = len(local)
    adjacency = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size)).tocsr()
    adjacency.data[:] = 1.0  # an edge between two faces was counted twice
    degree = np.asarray(adjacency.sum(1)).ravel()
    umbrella = diags(1 / degree) @ adjacency - diags(np.ones(size))
    is_new = local >= len(vertices)
    umbrella = umbrella.tocsr()[is_new | on_border[local]].tocsc()
    known = vertices[local[~is_new]].astype(np.float64)
    unknown = umbrella[:, is_new]
    right = -(unknown.T @ (umbrella[:, ~is_new] @ known))
    placed = splu((unknown.T @ unknown).tocsc()).solve(np.asarray(right))
    return np.concatenate([vertices, placed.astype(np.float32)])
