"""The 256 cases of marching cubes, derived from one rule instead of typed in.

A case is the set of corners that lie inside. On each of the cube's six sides the surface leaves
oriented segments between cut edges; followed from side to side they close into loops; each loop is
cut into triangles. The marching cubes of Lorensen and Cline (SIGGRAPH 1987) with two choices made:

* A side with two opposite corners inside can be cut in two ways. Here the outside corners are cut
  off one by one, so the inside stays connected. The rule looks at the side alone, hence two cells
  always agree on the side they share, and no mesh has a crack.
* A diagonal of a loop may run within a side of the cube. If the neighbour chose the same diagonal,
  that edge would have four faces. The triangles of a loop are those with the fewest such diagonals,
  and of these the ones with the shortest diagonals.

Corner c has the offsets (c & 1, c >> 1 & 1, c >> 2 & 1) along the axes 0, 1, 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

Array = np.ndarray

CORNER_OFFSETS = np.array([[c & 1, c >> 1 & 1, c >> 2 & 1] for c in range(8)])  # (8, 3)

# Edge 4 * a + i runs along axis a, from its lower corner to its upper one.
EDGE_AXIS = np.repeat(np.arange(3), 4)  # (12,)
EDGE_CORNERS = np.array(
    [(c, c | 1 << axis) for axis in range(3) for c in range(8) if not c >> axis & 1]
)  # (12, 2)

_EDGE_BETWEEN = {frozenset(pair): edge for edge, pair in enumerate(EDGE_CORNERS.tolist())}
_MIDDLES = CORNER_OFFSETS[EDGE_CORNERS].mean(axis=1)  # (12, 3)


@dataclass(frozen=True)
class CubeCases:
    """Triangles of every case, one after another.

    case_starts (257,) int64: triangles of case c are rows case_starts[c]:case_starts[c + 1] of
    triangles (T, 3) int64, whose entries are edges 0..11, counter-clockwise seen from outside.
    """

    case_starts: Array
    triangles: Array


@cache
def cube_cases() -> CubeCases:
    """The table; made on first use."""
    per_case = [
        [triangle for loop in _loops(case) for triangle in _triangulate(loop)]
        for case in range(256)
    ]
    triangles = [triangle for case in per_case for triangle in case]
    return CubeCases(
        case_starts=np.cumsum([0, *map(len, per_case)]),
        triangles=np.array(triangles, np.int64),
    )


@cache
def _sides() -> tuple[tuple[int, ...], ...]:
    """The four corners of each side, counter-clockwise seen from outside the cube."""
    sides = []
    for axis in range(3):
        first, second = 1 << (axis + 1) % 3, 1 << (axis + 2) % 3
        ring = (0, first, first | second, second)  # counter-clockwise seen from +axis
        sides.append(ring[::-1])
        sides.append(tuple(corner | 1 << axis for corner in ring))
    return tuple(sides)


def _segments(case: int, side: tuple[int, ...]) -> list[tuple[int, int]]:
    """Cut edges joined on one side: from where its border enters the inside to where it left it.

    Walking round the border, an outside run of corners starts where the walk leaves the inside and
    ends where it next enters it: each segment cuts off one such run.
    """
    cuts = []  # (edge, enters) in walking order
    for corner, after in zip(side, side[1:] + side[:1], strict=True):
        inside, inside_after = case >> corner & 1, case >> after & 1
        if inside != inside_after:
            cuts.append((_EDGE_BETWEEN[frozenset((corner, after))], bool(inside_after)))
    return [
        (edge, cuts[at - 1][0])  # the cut before an entry is the exit that began the outside run
        for at, (edge, enters) in enumerate(cuts)
        if enters
    ]


def _loops(case: int) -> list[list[int]]:
    """Closed loops of cut edges, counter-clockwise seen from outside the solid."""
    following = dict(segment for side in _sides() for segment in _segments(case, side))
    loops = []
    while following:
        loop = [min(following)]
        while (edge := following.pop(loop[-1])) != loop[0]:
            loop.append(edge)
        loops.append(loop)
    return loops


@cache
def _share_a_side(edge: int, other: int) -> bool:
    corners = {*EDGE_CORNERS[edge].tolist(), *EDGE_CORNERS[other].tolist()}
    return any(corners <= set(side) for side in _sides())


def _triangulate(loop: list[int]) -> list[tuple[int, int, int]]:
    """Triangles of a loop: fewest diagonals within a side, then the shortest diagonals."""

    def chord(i: int, j: int) -> tuple[int, float]:
        if j - i == 1 or j - i == len(loop) - 1:
            return 0, 0.0  # part of the loop itself
        a, b = loop[i], loop[j]
        return int(_share_a_side(a, b)), float(np.linalg.norm(_MIDDLES[a] - _MIDDLES[b]))

    @cache
    def best(i: int, j: int) -> tuple[int, float, tuple[tuple[int, int, int], ...]]:
        """Best triangles of the loop's part i..j, closed by the chord i-j."""
        if j - i == 1:
            return 0, 0.0, ()
        options = []
        for k in range(i + 1, j):
            left, right = best(i, k), best(k, j)
            chords = chord(i, k), chord(k, j)
            options.append(
                (
                    left[0] + right[0] + chords[0][0] + chords[1][0],
                    round(left[1] + right[1] + chords[0][1] + chords[1][1], 9),
                    (*left[2], (i, k, j), *right[2]),
                )
            )
        return min(options)

    return [(loop[i], loop[k], loop[j]) for i, k, j in best(0, len(loop) - 1)[2]]
