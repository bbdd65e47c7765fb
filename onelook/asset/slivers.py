"""Remove triangles without height, without opening the surface.

Such a face has no usable normal and gives an empty patch of texture. A needle (one short edge) goes
by pulling that edge together, a cap (its tip nearly on its longest edge) by turning that edge the
other way. Dropping the face instead would leave a slit. Both are done only where they leave the
surface manifold (the link condition; Dey et al., "Topology Preserving Edge Contraction", 1999) and
not folded over.

N vertices, M faces; C candidates of a round, T pairs of a candidate and a face it touches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onelook.asset.topology import (
    Edges,
    compact,
    face_heights,
    find_edges,
    half_edge_heads,
    lengths,
    next_half_edge,
    uses_distinct,
)

Array = np.ndarray

LEAST_HEIGHT = 1e-6  # of the bounding box's diagonal: 16 steps of float32
LEAST_COSINE = 0.2  # of normals before and after, where a vertex moves about a sliver's height
FLAT_COSINE = 0.999  # the same where it moves farther: only within a flat neighbourhood
ROUNDS = 16


@dataclass(frozen=True)
class _Region:
    """The faces around slivers, with their own numbering: points (N, 3) float64, faces (M, 3).

    locked (N,): vertices that also belong to faces outside; they stay.
    """

    points: Array
    faces: Array
    locked: Array


@dataclass(frozen=True)
class _Steps:
    """C ways to improve the region, independent of each other: rows of what each does.

    rank (C,) says which goes first; touched (T, 2): candidate and face.
    """

    rank: Array
    touched: Array
    rows: Array


def remove_slivers(vertices: Array, faces: Array) -> tuple[Array, Array]:
    """Pull together or turn faces lower than a millionth of the diagonal, where that is possible.

    vertices (N, 3) float32, faces (M, 3) int32 of a manifold mesh whose neighbours agree; so is the
    result. The very same arrays come back where there is nothing to do.
    """
    least = _least_height(vertices)
    sliver = is_sliver(vertices, faces)
    if not sliver.any():
        return vertices, faces
    inner = np.zeros(len(vertices), bool)
    inner[faces[sliver]] = True
    for _ in range(2):
        inner[faces[inner[faces].any(1)]] = True
    inside = inner[faces].any(1)
    index, local = np.unique(faces[inside], return_inverse=True)
    region = _Region(
        points=vertices[index].astype(np.float64),
        faces=local.reshape(-1, 3),
        locked=~inner[index],
    )
    for round_number in range(ROUNDS):
        region, changed = _improved(region, least, may_turn=round_number % 2 == 0)
        if not changed and round_number % 2:
            break
    vertices = vertices.copy()
    vertices[index] = region.points
    renewed = index[region.faces].astype(np.int32)
    return compact(vertices, np.concatenate([faces[~inside], renewed]))


def is_sliver(vertices: Array, faces: Array) -> Array:
    """(M,) bool: faces that are lower than a millionth of the diagonal."""
    return face_heights(vertices, faces) < _least_height(vertices)


def _least_height(vertices: Array) -> float:
    return LEAST_HEIGHT * float(np.linalg.norm(vertices.max(0) - vertices.min(0)))


def _exact_heights(points: Array, faces: Array) -> Array:
    """As `face_heights`, in float64."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    longest = np.maximum.reduce([lengths(b - a), lengths(c - b), lengths(a - c)])
    doubled = lengths(np.cross(b - a, c - a))
    return np.divide(doubled, longest, out=np.zeros_like(doubled), where=longest > 0)


def _improved(region: _Region, least: float, may_turn: bool) -> tuple[_Region, bool]:
    """One round: turn caps (if it may) and pull needles that do not get into each other's way."""
    heights = _exact_heights(region.points, region.faces)
    slivers = np.flatnonzero(heights < least)
    if not len(slivers):
        return region, False
    edges = find_edges(region.faces)
    heads = half_edge_heads(region.faces)
    sides = lengths(region.points[heads] - region.points[region.faces.ravel()])  # (3M,)
    by_face = sides.reshape(-1, 3)[slivers]
    short, middle, long = np.sort(by_face, axis=1).T
    is_cap = may_turn & (short**2 + middle**2 < long**2) & (short > 2 * least)
    longest, shortest = 3 * slivers + by_face.argmax(1), 3 * slivers + by_face.argmin(1)
    turns = _turns(region, edges, heights, longest[is_cap])
    pulls = _pulls(region, edges, heights, sides, least, shortest[~is_cap])
    turns, pulls = _without_conflicts(turns, pulls, len(region.faces))
    if not len(turns) and not len(pulls):
        return region, False
    return _apply(region, turns, pulls), True


def _turns(region: _Region, edges: Edges, heights: Array, half: Array) -> _Steps:
    """Turning the edges of `half` to join the tips of their two faces; rows: f, g, a, d, c, b.

    Faces f = (a, c, b) and g = (c, a, d) become (a, d, b) and (d, c, b).
    """
    half = half[edges.uses[edges.of_half[half]] == 2]
    pair = edges.order[edges.start[edges.of_half[half]][:, None] + [0, 1]]
    twin = np.where(pair[:, 0] == half, pair[:, 1], pair[:, 0])
    tails = region.faces.ravel()
    a, c = tails[half], tails[next_half_edge(half)]
    b, d = (tails[next_half_edge(next_half_edge(h))] for h in (half, twin))
    f, g = half // 3, twin // 3
    first, second = np.stack([a, d, b], 1), np.stack([d, c, b], 1)
    lowest = np.minimum(_exact_heights(region.points, first), _exact_heights(region.points, second))
    old = _crosses(region.points, region.faces[g])
    valid = ~region.locked[b] & (b != d) & (lowest > 2 * np.minimum(heights[f], heights[g]))
    for new in (first, second):
        valid &= _cosines(_crosses(region.points, new), old) > LEAST_COSINE
    valid &= ~_are_joined(edges, b, d)
    rows = np.stack([f, g, a, d, c, b], 1)[valid]
    rank = np.argsort(np.argsort(heights[rows[:, 0]], kind="stable"), kind="stable")
    touched = np.stack([np.repeat(np.arange(len(rows)), 2), rows[:, :2].ravel()], 1)
    return _Steps(rank, touched, rows)


def _pulls(
    region: _Region, edges: Edges, heights: Array, sides: Array, least: float, half: Array
) -> _Steps:
    """Pulling the edges of `half` together; rows: u, v (which goes), whether u keeps its place."""
    _, first = np.unique(edges.of_half[half], return_index=True)
    half = half[first]
    on_border = np.zeros(len(region.points), bool)
    on_border[edges.ends[edges.uses == 1]] = True
    u, v = edges.ends[edges.of_half[half]].T
    u, v = np.where(on_border[v], v, u), np.where(on_border[v], u, v)
    uses = edges.uses[edges.of_half[half]]
    valid = ~(region.locked[u] | region.locked[v]) & (~on_border[v] | (uses == 1))
    valid &= _common_neighbours(edges, u, v, len(region.points)) == uses
    rows = np.stack([u, v, on_border[u] & ~on_border[v]], 1)[valid]
    rank = np.argsort(np.argsort(sides[half[valid]], kind="stable"), kind="stable")
    touched = _incident_faces(region.faces, rows, len(region.points))
    keeps = _keeps_shape(region, heights, least, rows, touched)
    touched = touched[keeps[touched[:, 0]]]
    touched[:, 0] = (np.cumsum(keeps) - 1)[touched[:, 0]]
    return _Steps(rank[keeps], touched, rows[keeps])


def _common_neighbours(edges: Edges, u: Array, v: Array, count: int) -> Array:
    """(C,) how many vertices are joined to both u (C,) and v (C,)."""
    both = np.concatenate([edges.ends, edges.ends[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    pair_u, around_u = _spread(both[:, 0], u, count)
    pair_v, around_v = _spread(both[:, 0], v, count)
    keys_u = pair_u * count + both[around_u, 1]
    keys_v = pair_v * count + both[around_v, 1]
    return np.bincount(pair_u[np.isin(keys_u, keys_v)], minlength=len(u))


def _incident_faces(faces: Array, rows: Array, count: int) -> Array:
    """(T, 2) every pair of a row (u, v, ...) and a face at its u or v, each pair once."""
    corners = np.argsort(faces.ravel(), kind="stable")
    owner = faces.ravel()[corners]
    pairs = [np.stack(_spread(owner, rows[:, k], count), 1) for k in (0, 1)]
    touched = np.concatenate(pairs)
    touched[:, 1] = corners[touched[:, 1]] // 3
    keys = np.unique(touched[:, 0] * len(faces) + touched[:, 1])
    return np.stack(np.divmod(keys, len(faces)), 1)


def _spread(owner: Array, wanted: Array, count: int) -> tuple[Array, Array]:
    """Places of each wanted value in the sorted `owner`: row of `wanted`, place; one by one."""
    sizes = np.bincount(owner, minlength=count)
    begin = np.cumsum(sizes) - sizes
    number = sizes[wanted]
    row = np.repeat(np.arange(len(wanted)), number)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number) + begin[wanted][
        row
    ]


def _keeps_shape(
    region: _Region, heights: Array, least: float, rows: Array, touched: Array
) -> Array:
    """(C,) bool: pulling u and v together turns no face over and makes no new sliver."""
    pull, face = touched.T
    corners = region.faces[face]
    is_u, is_v = corners == rows[pull, :1], corners == rows[pull, 1:2]
    stays = ~(is_u.any(1) & is_v.any(1))
    points = region.points[corners]
    moved = np.where((is_u | is_v)[..., None], _meeting(region, rows)[pull][:, None], points)
    flat = np.arange(3 * len(face)).reshape(-1, 3)
    new_heights = _exact_heights(moved.reshape(-1, 3), flat)
    old_cross = _crosses(region.points, corners)
    new_cross = _crosses(moved.reshape(-1, 3), flat)
    is_sound = heights[face] >= least
    step = np.linalg.norm(region.points[rows[:, 0]] - region.points[rows[:, 1]], axis=1)
    cosine = np.where(step <= 4 * least, LEAST_COSINE, FLAT_COSINE)[pull]
    harm = is_sound & ((new_heights < least) | (_cosines(new_cross, old_cross) < cosine))
    return np.bincount(pull[stays & harm], minlength=len(rows)) == 0


def _meeting(region: _Region, rows: Array) -> Array:
    """(C, 3) where u and v come together: halfway, or at u if it must keep its place."""
    u, v = region.points[rows[:, 0]], region.points[rows[:, 1]]
    return np.where(rows[:, 2:].astype(bool), u, (u + v) / 2)


def _crosses(points: Array, faces: Array) -> Array:
    a = points[faces[:, 0]]
    return np.cross(points[faces[:, 1]] - a, points[faces[:, 2]] - a)


def _cosines(a: Array, b: Array) -> Array:
    """(M,) cosine between directions (M, 3) of any length; 0 where one has none."""
    scale = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    return np.divide((a * b).sum(1), scale, out=np.zeros_like(scale), where=scale > 0)


def _are_joined(edges: Edges, a: Array, b: Array) -> Array:
    """(C,) bool: whether an edge joins a and b."""
    count = int(edges.ends.max()) + 1
    keys = edges.ends[:, 0].astype(np.int64) * count + edges.ends[:, 1]
    return np.isin(np.minimum(a, b).astype(np.int64) * count + np.maximum(a, b), keys)


def _without_conflicts(turns: _Steps, pulls: _Steps, face_count: int) -> tuple[Array, Array]:
    """Rows of the steps that come first on every face they touch; pulls before turns."""
    count = len(pulls.rows)
    rank = np.concatenate([pulls.rank, turns.rank + count])
    touched = np.concatenate([pulls.touched, turns.touched + (count, 0)])
    best = np.full(face_count, len(rank))
    np.minimum.at(best, touched[:, 1], rank[touched[:, 0]])
    beaten = touched[best[touched[:, 1]] != rank[touched[:, 0]], 0]
    wins = np.ones(len(rank), bool)
    wins[beaten] = False
    chosen = turns.rows[wins[count:]]
    _, first = np.unique(np.sort(chosen[:, [3, 5]], axis=1), axis=0, return_index=True)
    return chosen[np.sort(first)], pulls.rows[wins[:count]]  # two turns may not make the same edge


def _apply(region: _Region, turns: Array, pulls: Array) -> _Region:
    faces, points = region.faces.copy(), region.points.copy()
    f, g, a, d, c, b = turns.T
    faces[f], faces[g] = np.stack([a, d, b], 1), np.stack([d, c, b], 1)
    points[pulls[:, 0]] = _meeting(region, pulls)
    becomes = np.arange(len(points))
    becomes[pulls[:, 1]] = pulls[:, 0]
    faces = becomes[faces]
    faces = faces[uses_distinct(faces)]
    return replace(region, points=points, faces=faces)
