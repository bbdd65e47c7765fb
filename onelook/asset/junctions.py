"""Where more than two faces meet at an edge: which sheets stay, and which way round they go.

Solids that run into each other, or a wall inside of one, leave such edges when a mesh is made of
them all at once. How the faces lie around the edge does not tell which of them enclose the object;
what can be seen from outside does.

N vertices, M faces, S sheets (faces joined across edges that have two).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onelook.asset.topology import Edges, edges_of_rest, face_areas, sheets
from onelook.asset.winding import flip_faces, flips_across_crowded, flips_to_agree

Array = np.ndarray

LEFT_PAIRED = 0.9  # of the edges where a sheet meets others: two faces must be left at so many
LARGE_SHARE = 0.01  # of the mesh's area: smaller sheets follow those they are joined to
MOSTLY = 1.5  # times more must be seen of one side than of the other for it to be the outside


@dataclass(frozen=True)
class Settled:
    """faces (M, 3) that agree wherever they can, and their edges; how many of those were turned
    round, and how many sheets were dropped since nobody sees them."""

    faces: Array
    edges: Edges
    flipped_faces: int = 0
    hidden_sheets: int = 0


def settle_junctions(
    vertices: Array, faces: Array, edges: Edges, hidden_share: float, device: str | None = None
) -> Settled:
    """Sheets turned so that their outside is seen, and to agree where they meet.

    faces: agree across edges that have two. hidden_share: sheets of which less can be seen are
    dropped, 0 for none, unless that would leave a hole where they met others. Only sheets with
    LARGE_SHARE of the area are looked at, and only if several meet. device: where rays are
    traced.
    """
    count, sheet = sheets(edges.paired(), len(faces))
    meets = np.zeros(count, bool)
    meets[sheet[edges.crowded() // 3]] = True
    outward, is_settled, hidden = _look(vertices, faces, sheet, meets, hidden_share, device)
    flip = outward[sheet]
    faces, edges = flip_faces(faces, edges, flip)
    hidden = _that_leave_pairs(edges, sheet, hidden)
    if hidden.any():
        stays = ~hidden[sheet]
        sheet, flip = sheet[stays], flip[stays]
        faces, edges = faces[stays], edges_of_rest(edges, stays)
    if is_settled.any():  # these are as one: none is turned without the others
        sheet = np.where(is_settled, is_settled.argmax(), np.arange(count))[sheet]
    across = flips_across_crowded(vertices, faces, edges, sheet, count)
    faces, edges = flip_faces(faces, edges, across)
    again = flips_to_agree(faces, edges.paired())  # where dropping left two faces at an edge
    faces, edges = flip_faces(faces, edges, again)
    return Settled(faces, edges, int((flip ^ across ^ again).sum()), int(hidden.sum()))


def _look(
    vertices: Array,
    faces: Array,
    sheet: Array,
    meets: Array,
    hidden_share: float,
    device: str | None,
) -> tuple[Array, Array, Array]:
    """(S,) bool each: sheets to flip, sheets of which one side is the outside, hidden sheets.

    meets (S,) bool: sheets that meet others; all else is left alone.
    """
    count = len(meets)
    outward, is_settled, hidden = (np.zeros(count, bool) for _ in range(3))
    area = np.bincount(sheet, face_areas(vertices, faces), count)
    large = np.flatnonzero(meets & (area >= LARGE_SHARE * area.sum()))
    if len(large) < 2:
        return outward, is_settled, hidden
    from onelook.asset.visibility import part_visibility

    part = np.full(count, len(large))
    part[large] = np.arange(len(large))
    parts = len(large) + int(len(large) < count)
    seen = part_visibility(vertices, faces, part[sheet], parts, device)
    front, back = seen.front[: len(large)], seen.back[: len(large)]
    unseen = (front < hidden_share) & (back < hidden_share)
    hidden[large] = unseen & ~unseen.all()
    outward[large] = back > MOSTLY * front
    is_settled[large] = ~unseen & ((back > MOSTLY * front) | (front > MOSTLY * back))
    return outward, is_settled, hidden


def _that_leave_pairs(edges: Edges, sheet: Array, hidden: Array) -> Array:
    """(S,) bool: those of the hidden sheets without which the others close up."""
    half = edges.crowded()
    edge, of_half = edges.of_half[half], sheet[half // 3]
    while hidden.any():
        left = edges.uses - np.bincount(edge[hidden[of_half]], minlength=len(edges.uses))
        at_junction = np.bincount(of_half, minlength=len(hidden))
        paired = np.bincount(of_half, np.isin(left[edge], (0, 2)), len(hidden))
        opens = hidden & (paired < LEFT_PAIRED * at_junction)
        if not opens.any():
            break
        hidden = hidden & ~opens
    return hidden
