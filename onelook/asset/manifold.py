"""Make a mesh manifold by taking it apart where too many faces meet, without losing faces.

At an edge with more than two faces, faces are paired up and the pairs separated; at a vertex where
several fans of faces meet, every fan gets its own copy. Copies move a thousandth of a face inward,
so that they do not fall together when somebody welds equal positions: a closed mesh stays closed.

N vertices, M faces, P pairs of half-edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onelook.asset.pairing import pair_crowded
from onelook.asset.topology import (
    Edges,
    components,
    count_fans,
    find_edges,
    first_at_position,
    next_half_edge,
)
from onelook.asset.winding import agreeing
from onelook.time_cap import require_time

Array = np.ndarray

NUDGE = 1e-3  # of the way to a face's centre: far below a pixel, far above float32's steps
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
        require_time()
        edges = edges or find_edges(faces)
        pairs = edges.paired()
        agree = agreeing(faces, pairs)
        if not agree.all():
            pairs = pairs[agree]
        is_crowded = (edges.uses > 2).any()
        if is_crowded:
            pairs = np.concatenate([pairs, pair_crowded(vertices, faces, edges)])
        vertices, split, copied = _split_fans(vertices, faces, pairs)
        edges = edges if split is faces else None
        faces = split
        origin = np.concatenate([origin, origin[copied]])
        if not is_crowded and agree.all():
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
