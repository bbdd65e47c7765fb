"""Which dual vertices a FlexiCubes cell has, for each of its 256 cases, derived from rules.

A case is the set of corners that lie inside. The cut edges of a cell fall into groups, one per
sheet of surface that passes through it, and each group gets one dual vertex (dual marching cubes,
Nielson, IEEE Visualization 2004). On a side with two opposite corners inside, each inside corner is
cut off by itself. 36 cases have one such side and a group that may meet another sheet across it;
`twin_rows` says when such a cell takes the complementary case instead (Wenger, Isosurfaces, 2013).

The order of groups is that of the tables the networks were trained with (nv-tlabs/FlexiCubes).

Corner c has the offsets (c & 1, c >> 1 & 1, c >> 2 & 1) along x, y, z.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from onelook.isosurface.cube_cases import CORNER_OFFSETS

Array = np.ndarray

# The four edges along y run from high to low; faces are wound and ordered by an edge's first end.
EDGE_CORNERS = np.array(
    [(0, 1), (1, 5), (4, 5), (0, 4), (2, 3), (3, 7), (6, 7), (2, 6), (2, 0), (3, 1), (7, 5), (6, 4)]
)  # (12, 2)
MOST_GROUPS, MOST_EDGES = 4, 7
_SWAPPED_CASE = 231  # its two groups stand the other way round in the tables

# The sides of the cell as (axis, low or high), and the corners of each.
_SIDES = [(axis, end) for axis in range(3) for end in (0, 1)]
_SIDE_CORNERS = [
    {corner for corner in range(8) if CORNER_OFFSETS[corner, axis] == end} for axis, end in _SIDES
]
_ENDS = [set(ends) for ends in EDGE_CORNERS.tolist()]


@dataclass(frozen=True)
class DualCases:
    """groups (256, 4, 7) int8: the edges of each group, -1 where there is none; group_counts (256,)
    int8, 0..4; group_of_edge (256, 12) int8, -1 where the edge is not cut; twin_rows (256, 5)
    int16: flag, the direction (x, y, z) of the cell to look at, and the complementary case; zeros
    for cases without a twin.
    """

    groups: Array
    group_counts: Array
    group_of_edge: Array
    twin_rows: Array


@cache
def dual_cases() -> DualCases:
    """The tables; made on first use."""
    groups = np.full((256, MOST_GROUPS, MOST_EDGES), -1, np.int8)
    group_counts = np.zeros(256, np.int8)
    group_of_edge = np.full((256, 12), -1, np.int8)
    for case in range(256):
        found = _groups(case)
        group_counts[case] = len(found)
        for number, edges in enumerate(found):
            groups[case, number, : len(edges)] = edges
            group_of_edge[case, edges] = number
    return DualCases(groups, group_counts, group_of_edge, _twin_rows())


def _inside(case: int) -> set[int]:
    return {corner for corner in range(8) if case >> corner & 1}


def _groups(case: int) -> list[list[int]]:
    """Cut edges joined from side to side; edges ascending, groups by their lowest inside corner."""
    inside = _inside(case)
    joined = {edge: {edge} for edge in range(12) if len(_ENDS[edge] & inside) == 1}
    for corners in _SIDE_CORNERS:
        cut = [edge for edge in joined if _ENDS[edge] <= corners]
        pairs = [cut] if len(cut) == 2 else []
        if len(cut) == 4:
            pairs = [[e for e in cut if corner in _ENDS[e]] for corner in corners & inside]
        for first, second in pairs:
            merged = joined[first] | joined[second]
            joined |= dict.fromkeys(merged, merged)
    groups = {min(group): sorted(group) for group in joined.values()}.values()
    lowest = {edge: min(_ENDS[edge] & inside) for edge in joined}
    ordered = sorted(groups, key=lambda group: min(lowest[edge] for edge in group))
    return ordered[::-1] if case == _SWAPPED_CASE else ordered


def _twin_rows() -> Array:
    """Cases with 5 or more inside corners and exactly one side whose only two are opposite."""
    rows = np.zeros((256, 5), np.int16)
    for case in range(256):
        inside = _inside(case)
        kept = [sorted(corners & inside) for corners in _SIDE_CORNERS]
        ambiguous = [
            side
            for side, corners in zip(_SIDES, kept, strict=True)
            if len(corners) == 2 and (corners[0] ^ corners[1]).bit_count() == 2
        ]
        if len(inside) >= 5 and len(ambiguous) == 1:
            axis, end = ambiguous[0]
            rows[case, 0], rows[case, 4] = 1, 255 - case
            rows[case, 1 + axis] = 2 * end - 1
    return rows
