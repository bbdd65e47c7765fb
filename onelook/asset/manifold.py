"""Make a mesh manifold by taking it apart where too many faces meet, without losing faces.

At an edge with more than two faces, faces are paired up and the pairs separated; at a vertex where
several fans of faces meet, every fan gets its own copy. Copies move a thousandth of a face inward,
so that they do not fall together when somebody welds equal positions: a closed mesh stays closed.

N vertices, M faces, P pairs of half-edges, H half-edges of crowded edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onelook.asset.topology import (
    Edges,
    components,
    count_fans,
    find_edges,
    first_at_position,
    next_half_edge,
)
from onelook.asset.winding import agreeing

Array = np.ndarray

NUDGE = 1e-3  # of the way to a face's centre: far below a pixel, far above float32's steps
MOST_AT_AN_EDGE = 64  # faces; of more, none are paired: that is a bristle, not a surface
SHUFFLE = np.uint64(2654435761)  # Knuth's multiplicative hash: odd, so it maps 32 bits one to one


@dataclass(frozen=True)
class Separated:
    """A manifold mesh: every edge has one face, or two that run along it in opposite directions.

    vertices (N, 3) float32; faces (M, 3) int32; edges: those of the faces; origin (N,): the vertex
    that each was, or was copied from (a vertex in the middle of a cut edge is its own origin).
    """

    vertices: Array
    faces: Array
    edges: Edges
    origin: Array


def separate(vertices: Array, faces: Array, edges: Edges | None = None) -> Separated:
    """Split vertices and edges until no edge has three faces and no vertex two fans.

    vertices (N, 3) float32; faces (M, 3) int32 whose neighbours agree in winding where they can
    (where they do not, they are cut apart); edges: those of `faces`, if known. Old vertices and
    faces keep their index, and arrays that need no change are returned as they came.
    """
    origin = np.arange(len(vertices))
    while True:  # ends: each round takes at least one pair off a crowded edge and makes none
        edges = edges or find_edges(faces)
        pairs = edges.paired()
        agree = agreeing(faces, pairs)
        if not agree.all():
            pairs = pairs[agree]
        crowded = edges.crowded()
        if len(crowded):
            matched = _pair_crowded(vertices, faces, edges, crowded)
            pairs = np.concatenate([pairs, matched])
        vertices, split, copied = _split_fans(vertices, faces, pairs)
        edges = edges if split is faces else None
        faces = split
        origin = np.concatenate([origin, origin[copied]])
        if not len(crowded) and agree.all():
            return Separated(vertices, faces, edges or find_edges(faces), origin)
        vertices, faces = _cut_shared_edges(vertices, faces, pairs)
        origin = np.concatenate([origin, np.arange(len(origin), len(vertices))])
        edges = None


def spread_coincident(vertices: Array, faces: Array) -> Array:
    """Vertices (N, 3) float32 without two at the same position, where faces (M, 3) use both.

    The very same array where there are none; else all but one are nudged as copies are, and those
    that this does not part by steps of a millionth of the diagonal in directions of their own.
    """
    step = 1e-6 * float(np.linalg.norm(vertices.max(0) - vertices.min(0)))
    for round_number in range(8):
        first = first_at_position(vertices)
        repeated = first != np.arange(len(vertices))
        if not repeated.any():
            break
        corner = np.full(len(vertices), -1)
        corner[faces.ravel()[::-1]] = np.arange(faces.size)[::-1]
        moving = np.flatnonzero(repeated & (corner >= 0))
        if not len(moving):
            break
        if round_number == 0:
            vertices = _nudged(vertices, moving, faces[corner[moving] // 3])
        else:
            turn = moving[:, None] * np.array([2.399963, 4.0, 1.618034])
            vertices = vertices.copy()
            vertices[moving] += (round_number * step * np.sin(turn)).astype(np.float32)
    return vertices


def _nudged(vertices: Array, moving: Array, face_of_each: Array) -> Array:
    """The vertices with some moved a little into a face of theirs."""
    vertices = vertices.copy()
    centres = vertices[face_of_each].mean(1)
    vertices[moving] += NUDGE * (centres - vertices[moving])
    return vertices


def _split_fans(vertices: Array, faces: Array, pairs: Array) -> tuple[Array, Array, Array]:
    """Give every fan of corners that hang together across `pairs` its own vertex.

    Returns vertices, faces, and of each new vertex the one it is a copy of.
    """
    tails = faces.ravel()
    used = np.zeros(len(vertices), bool)
    used[tails] = True
    if count_fans(len(faces), pairs) == used.sum():
        return vertices, faces, np.empty(0, np.int64)
    corner_count = faces.size
    links = np.concatenate(  # the tail of one half-edge is where its partner ends
        [
            np.stack([pairs[:, 0], next_half_edge(pairs[:, 1])], 1),
            np.stack([next_half_edge(pairs[:, 0]), pairs[:, 1]], 1),
        ]
    )
    fan_count, fan = components(links, corner_count)
    size = np.bincount(fan, minlength=fan_count)
    corner = np.empty(fan_count, np.int64)  # the first corner of each fan
    corner[fan[::-1]] = np.arange(corner_count)[::-1]
    vertex = tails[corner]
    ranked = np.lexsort((corner, -size, vertex))  # the largest fan keeps the vertex
    is_copy = np.zeros(fan_count, bool)
    is_copy[ranked[1:]] = vertex[ranked[1:]] == vertex[ranked[:-1]]
    copies = np.flatnonzero(is_copy)
    new_index = vertex.astype(np.int32)
    new_index[copies] = len(vertices) + np.arange(len(copies), dtype=np.int32)
    grown = np.concatenate([vertices, vertices[vertex[copies]]])
    grown = _nudged(grown, new_index[copies], faces[corner[copies] // 3])
    return grown, new_index[fan].reshape(-1, 3), vertex[copies]


def _cut_shared_edges(vertices: Array, faces: Array, pairs: Array) -> tuple[Array, Array]:
    """Where pairs still share both ends, put a new vertex in the middle of all pairs but one.

    One edge of a face at a time: the caller repeats.
    """
    edges = find_edges(faces)
    partner = np.full(faces.size, -1, np.int64)
    partner[pairs[:, 0]], partner[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    half = np.arange(faces.size)
    lead = np.where(partner >= 0, np.minimum(half, partner), half)  # one name per pair or single
    keeper = np.full(len(edges.uses), faces.size, np.int64)
    np.minimum.at(keeper, edges.of_half, lead)
    halves = np.flatnonzero(keeper[edges.of_half] != lead)
    if not len(halves):
        return vertices, faces
    groups, of_group = np.unique(lead[halves], return_inverse=True)
    rank = (np.arange(len(groups), dtype=np.uint64) * SHUFFLE) % np.uint64(2**32)
    of_half = rank.astype(np.int64)[of_group]  # in no order, so that few wait for many
    first_of_face = np.full(len(faces), 2**32)
    np.minimum.at(first_of_face, halves // 3, of_half)
    waits = np.zeros(len(groups), bool)
    waits[of_group[first_of_face[halves // 3] != of_half]] = True
    halves, of_group = halves[~waits[of_group]], of_group[~waits[of_group]]
    _, middle = np.unique(of_group, return_inverse=True)
    return _insert_middles(vertices, faces, halves, middle)


def _insert_middles(
    vertices: Array, faces: Array, halves: Array, middle: Array
) -> tuple[Array, Array]:
    """Split the faces of `halves` (at most one per face) at new vertices number `middle`."""
    f, k = np.divmod(halves, 3)
    tail, head, tip = faces[f, k], faces[f, (k + 1) % 3], faces[f, (k + 2) % 3]
    points = np.empty((middle.max() + 1, 3), np.float32)
    points[middle] = (vertices[tail] + vertices[head]) / 2
    index = (len(vertices) + middle).astype(np.int32)
    faces = faces.copy()
    faces[f] = np.stack([tail, index, tip], 1)
    return np.concatenate([vertices, points]), np.concatenate(
        [faces, np.stack([index, head, tip], 1)]
    )


def _pair_crowded(vertices: Array, faces: Array, edges: Edges, crowded: Array) -> Array:
    """(P, 2) half-edges, opposite in direction, that shall stay together at crowded edges.

    Where as many run one way as the other, each pair encloses a wedge of the solid; elsewhere the
    faces that go straightest on into each other are paired, and what is left over becomes a border.
    """
    _, group, size = np.unique(edges.of_half[crowded], return_inverse=True, return_counts=True)
    crowded = crowded[size[group] <= MOST_AT_AN_EDGE]
    group = group[size[group] <= MOST_AT_AN_EDGE]
    if not len(crowded):
        return np.empty((0, 2), np.int64)
    ends = edges.ends[edges.of_half[crowded]]
    forward = faces.ravel()[crowded] == ends[:, 0]
    across = _directions_across(vertices, faces, crowded, ends)
    surplus = np.bincount(group, np.where(forward, 1, -1))
    even = surplus[group] == 0
    return np.concatenate(
        [
            _pair_wedges(crowded[even], group[even], forward[even], across[even]),
            _pair_straightest(crowded[~even], group[~even], forward[~even], across[~even]),
        ]
    )


def _directions_across(vertices: Array, faces: Array, halves: Array, ends: Array) -> Array:
    """(H, 3) float64: unit direction from the edge into each face, in a frame that has the edge
    (lower to higher vertex) as its third axis; only the first two are not zero."""
    tip = faces.ravel()[next_half_edge(next_half_edge(halves))]
    start = vertices[ends[:, 0]].astype(np.float64)
    axis = vertices[ends[:, 1]] - start
    axis /= np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-30)
    helper = np.eye(3)[np.abs(axis).argmin(1)]  # depends on the edge only, so a group shares it
    x = np.cross(axis, helper)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
    y = np.cross(axis, x)
    leg = vertices[tip] - start
    flat = np.stack([(leg * x).sum(1), (leg * y).sum(1), np.zeros(len(leg))], 1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)


def _pair_wedges(halves: Array, group: Array, forward: Array, across: Array) -> Array:
    """Match backward faces with the forward ones that close their wedge, like brackets.

    Turning about the edge, the solid lies between a backward face and the next forward one.
    """
    angle = np.arctan2(across[:, 1], across[:, 0])
    ranked = np.lexsort((halves, angle, group))
    halves, group, forward = halves[ranked], group[ranked], forward[ranked]
    step = np.where(forward, -1, 1)
    depth = np.cumsum(step)  # every group sums to zero, so no group disturbs the next
    level = depth + forward  # an opening and its closing bracket are on one level
    place = np.arange(len(halves))
    by_level = np.lexsort((place, level, group))
    new = np.ones(len(halves), bool)
    new[1:] = (np.diff(group[by_level]) != 0) | (np.diff(level[by_level]) != 0)
    start = np.flatnonzero(new)
    run = np.cumsum(new) - 1
    length = np.diff(start, append=len(halves))
    offset = np.arange(len(halves)) - start[run]
    shift = forward[by_level[start]].astype(np.int64)  # a run that starts with a closing bracket
    offset = (offset - shift[run]) % np.maximum(length[run], 1)
    ordered = np.empty(len(halves), np.int64)
    ordered[start[run] + offset] = halves[by_level]
    return ordered.reshape(-1, 2)


def _pair_straightest(halves: Array, group: Array, forward: Array, across: Array) -> Array:
    """Greedily pair opposite half-edges of each group whose faces lie most opposite each other."""
    order = np.argsort(group, kind="stable")
    halves, group, forward, across = halves[order], group[order], forward[order], across[order]
    size = np.bincount(group)
    start = np.cumsum(size) - size
    mates = size[group]
    i = np.repeat(np.arange(len(halves)), mates)
    j = start[group[i]] + np.arange(len(i)) - np.repeat(np.cumsum(mates) - mates, mates)
    wanted = forward[i] & ~forward[j]
    i, j = i[wanted], j[wanted]
    straightness = np.round((across[i] * across[j]).sum(1), 6)
    ranked = np.lexsort((j, i, straightness, group[i]))
    i, j = i[ranked], j[ranked]
    chosen = []
    while len(i):
        first = np.ones(len(i), bool)
        first[1:] = group[i[1:]] != group[i[:-1]]
        chosen.append(np.stack([halves[i[first]], halves[j[first]]], 1))
        taken = np.zeros(len(halves), bool)
        taken[i[first]] = taken[j[first]] = True
        free = ~(taken[i] | taken[j])
        i, j = i[free], j[free]
    return np.concatenate(chosen) if chosen else np.empty((0, 2), np.int64)
