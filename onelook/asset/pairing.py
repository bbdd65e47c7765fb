"""Which faces belong together at an edge that has more than two.

P pairs of half-edges, H half-edges of crowded edges; a group is the half-edges of one edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onelook.asset.topology import Edges, next_half_edge

Array = np.ndarray

MOST_AT_AN_EDGE = 64  # faces; of more, none are paired: that is a bristle, not a surface


@dataclass(frozen=True)
class _Crowd:
    """Half-edges of crowded edges, H rows, those of one edge together.

    group: number of the edge. forward: whether it runs from the lower vertex to the higher. across
    (H, 3): unit direction from the edge into the face, seen along the edge.
    """

    halves: Array
    group: Array
    forward: Array
    across: Array

    def where(self, chosen: Array) -> _Crowd:
        """Only the chosen rows (H,) bool."""
        return _Crowd(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def pair_crowded(vertices: Array, faces: Array, edges: Edges) -> Array:
    """(P, 2) half-edges, opposite in direction, that shall stay together at crowded edges.

    Where as many run one way as the other, each pair encloses a wedge of the solid; elsewhere the
    faces that go straightest on into each other are paired, and what is left over becomes a border.
    """
    crowd = _crowd(vertices, faces, edges)
    balanced = is_balanced(crowd.group, crowd.forward)
    return np.concatenate(
        [
            _wedges(crowd.where(balanced)),
            _straightest(crowd.where(~balanced), must_be_opposite=True),
        ]
    )


def straightest_pairs(vertices: Array, faces: Array, edges: Edges) -> Array:
    """(P, 2) half-edges whose faces go straightest on into each other, whichever way they run.

    Only of crowded edges where directions do not balance.
    """
    crowd = _crowd(vertices, faces, edges)
    balanced = is_balanced(crowd.group, crowd.forward)
    return _straightest(crowd.where(~balanced), must_be_opposite=False)


def is_balanced(group: Array, forward: Array) -> Array:
    """(H,) bool: whether as many half-edges of the same group run forward as backward."""
    if not len(group):
        return np.zeros(0, bool)
    return np.bincount(group, np.where(forward, 1, -1))[group] == 0


def _crowd(vertices: Array, faces: Array, edges: Edges) -> _Crowd:
    halves = edges.crowded()
    _, group, size = np.unique(edges.of_half[halves], return_inverse=True, return_counts=True)
    few = size[group] <= MOST_AT_AN_EDGE
    halves, group = halves[few], group[few]
    ends = edges.ends[edges.of_half[halves]]
    forward = faces.ravel()[halves] == ends[:, 0]
    return _Crowd(halves, group, forward, _directions_across(vertices, faces, halves, ends))


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


def _wedges(crowd: _Crowd) -> Array:
    """Match backward faces with the forward ones that close their wedge, like brackets.

    Turning about the edge, the solid lies between a backward face and the next forward one.
    """
    angle = np.arctan2(crowd.across[:, 1], crowd.across[:, 0])
    crowd = crowd.where(np.lexsort((crowd.halves, angle, crowd.group)))
    halves, group, forward = crowd.halves, crowd.group, crowd.forward
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


def _straightest(crowd: _Crowd, must_be_opposite: bool) -> Array:
    """Greedily pair the half-edges of each group whose faces lie most opposite each other."""
    halves, group, forward, across = crowd.halves, crowd.group, crowd.forward, crowd.across
    size = np.bincount(group)
    start = np.cumsum(size) - size
    mates = size[group]
    i = np.repeat(np.arange(len(halves)), mates)
    j = start[group[i]] + np.arange(len(i)) - np.repeat(np.cumsum(mates) - mates, mates)
    wanted = forward[i] & ~forward[j] if must_be_opposite else i < j
    i, j = i[wanted], j[wanted]
    straightness = np.round((across[i] * across[j]).sum(1), 6)
    ranked = np.lexsort((j, i, straightness, group[i]))
    i, j = i[ranked], j[ranked]
    chosen = [np.empty((0, 2), np.int64)]
    while len(i):
        first = np.ones(len(i), bool)
        first[1:] = group[i[1:]] != group[i[:-1]]
        chosen.append(np.stack([halves[i[first]], halves[j[first]]], 1))
        taken = np.zeros(len(halves), bool)
        taken[i[first]] = taken[j[first]] = True
        free = ~(taken[i] | taken[j])
        i, j = i[free], j[free]
    return np.concatenate(chosen)
