"""Find the loops that bound the holes of a manifold mesh.

B half-edges without a partner, K loops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onelook.asset.topology import components, half_edge_heads

Array = np.ndarray


@dataclass(frozen=True)
class Loops:
    """K closed walks along the border; the faces lie to the left, so a patch must run against it.

    half_edges (B,): all loops one after the other; loop k is `half_edges[start[k] : start[k + 1]]`.
    start (K + 1,).
    """

    half_edges: Array
    start: Array

    @property
    def lengths(self) -> Array:
        """(K,) half-edges of each loop."""
        return np.diff(self.start)

    def loop(self, k: int) -> Array:
        """The half-edges of loop k, in order."""
        return self.half_edges[self.start[k] : self.start[k + 1]]


def border_loops(faces: Array, border: Array, origin: Array) -> Loops:
    """Loops of the half-edges without a partner, `border` (B,).

    faces (M, 3) of a manifold mesh; origin (N,): the vertex each vertex is a copy of. Where a loop
    comes twice through copies of one vertex it is cut in two there, so that two holes that touch
    in a point are two loops.
    """
    if not len(border):
        return Loops(border, np.zeros(1, np.int64))
    tails, heads = faces.ravel()[border], half_edge_heads(faces)[border]
    leaving = np.full(len(origin), -1)
    leaving[tails] = np.arange(len(border))
    follower = leaving[heads]  # a vertex of a manifold border is left exactly once
    count, loop, steps = _walk(follower)
    order = np.lexsort((steps, loop))
    half_edges = border[order]
    start = np.concatenate([[0], np.cumsum(np.bincount(loop, minlength=count))])
    return _cut_where_pinched(Loops(half_edges, start), origin[faces.ravel()[half_edges]])


def _walk(follower: Array) -> tuple[int, Array, Array]:
    """Cycles of a permutation (B,) -> their number, cycle of each item, steps from its first."""
    items = np.arange(len(follower))
    count, cycle = components(np.stack([items, follower], 1), len(follower))
    first = np.full(count, len(follower))
    np.minimum.at(first, cycle, items)
    to_end = (follower != first[cycle]).astype(np.int64)  # steps to the last item, by doubling
    target = np.where(to_end > 0, follower, items)
    while (target != target[target]).any():
        to_end = to_end + to_end[target]
        target = target[target]
    return count, cycle, to_end[first][cycle] - to_end


def _cut_where_pinched(loops: Loops, origin: Array) -> Loops:
    """Split loops that pass the same original vertex (B,) more than once."""
    of_loop = np.repeat(np.arange(len(loops.lengths)), loops.lengths)
    ranked = np.lexsort((origin, of_loop))
    same = (np.diff(of_loop[ranked]) == 0) & (np.diff(origin[ranked]) == 0)
    pinched = np.unique(of_loop[ranked[1:][same]])
    if not len(pinched):
        return loops
    pieces, is_pinched = [], np.zeros(len(loops.lengths), bool)
    is_pinched[pinched] = True
    for k in range(len(is_pinched)):
        if is_pinched[k]:
            part = slice(loops.start[k], loops.start[k + 1])
            pieces += _simple_loops(loops.half_edges[part].tolist(), origin[part].tolist())
        else:
            pieces.append(loops.loop(k))
    lengths = [len(piece) for piece in pieces]
    return Loops(np.concatenate(pieces), np.concatenate([[0], np.cumsum(lengths)]))


def _simple_loops(walk: list[int], vertices: list[int]) -> list[Array]:
    """Cut a closed walk into closed walks that pass no vertex twice."""
    found, path, seen = [], [], {}
    for half_edge, vertex in zip(walk, vertices, strict=True):
        if vertex in seen:
            cut = seen[vertex]
            found.append(np.array([h for h, _ in path[cut:]]))
            for _, passed in path[cut:]:
                del seen[passed]
            del path[cut:]
        seen[vertex] = len(path)
        path.append((half_edge, vertex))
    found.append(np.array([h for h, _ in path]))
    return found
