"""Reduce a mesh to a number of triangles, and leave it as sound as it was.

fast-simplification collapses edges by quadric error (Garland and Heckbert, 1997) in passes of ever
higher tolerance. It is quick and keeps the shape, but it may stop early, and it may pinch or fold a
surface: that is mended here. Low aggressiveness keeps twice the accuracy of the library's default.

N vertices, M faces.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import fast_simplification
import numpy as np

from onelook.asset.folds import unfold
from onelook.asset.manifold import separate, spread_coincident
from onelook.asset.slivers import remove_slivers
from onelook.asset.topology import compact, face_areas, face_parts, uses_distinct
from onelook.errors import SurfaceError
from onelook.time_cap import require_time

Array = np.ndarray

TOLERANCE = 0.01  # how far below the target the result may end, where the surface allows it
RETRIES = 3  # to come that near when mending took or added faces
_library = threading.Lock()  # it keeps its mesh in global variables


@dataclass(frozen=True)
class _Pass:
    """One call of the library: its aggressiveness, and whether borders may move."""

    aggressiveness: int
    keeps_border: bool = True


# One after the other, each on the result of the last, until the target is reached.
PASSES = (_Pass(3), _Pass(3), _Pass(5), _Pass(7), _Pass(9), _Pass(5, False), _Pass(9, False))


def simplify(vertices: Array, faces: Array, target_faces: int) -> tuple[Array, Array]:
    """At most `target_faces` faces that look like the mesh: vertices (N, 3) float32, faces (M, 3).

    The mesh must be manifold and its neighbours agree, as `clean` leaves it; so is the result, and
    where every edge had two faces, every edge has two faces. Borders stay where they are unless the
    target cannot be reached without moving them; if even so the parts are too many, the smallest
    are dropped. The very same arrays come back when the mesh is small enough already. Same input,
    same bytes.
    Raises SurfaceError when nothing of the mesh is left.
    """
    if len(faces) <= target_faces:
        return vertices, faces
    vertices, faces = original = compact(vertices, faces)
    for step in PASSES:
        require_time()
        reduced = _collapsed(vertices, faces, target_faces, step)
        if len(reduced[1]) <= target_faces:
            vertices, faces = _tuned(vertices, faces, _mended(*reduced), target_faces, step)
        else:
            vertices, faces = _mended(*reduced)
        if len(faces) <= target_faces:
            break
    if len(faces) > target_faces:
        vertices, faces = _largest_parts(vertices, faces, target_faces)
    if not len(faces):
        raise SurfaceError(
            f"nothing is left of the surface at {target_faces} faces; ask for more faces"
        )
    require_time()
    vertices = unfold(vertices, faces, *original)
    return spread_coincident(vertices, faces), faces


def _largest_parts(vertices: Array, faces: Array, target_faces: int) -> tuple[Array, Array]:
    """The parts with the largest areas that together have at most `target_faces` faces."""
    number, part = face_parts(faces, len(vertices))
    area = np.bincount(part, face_areas(vertices, faces), number)
    order = np.argsort(-area, kind="stable")
    stays = np.zeros(number, bool)
    stays[order[np.cumsum(np.bincount(part, minlength=number)[order]) <= target_faces]] = True
    return compact(vertices, faces[stays[part]])


def _tuned(
    vertices: Array, faces: Array, result: tuple[Array, Array], target_faces: int, step: _Pass
) -> tuple[Array, Array]:
    """Repeat a pass with another request while mending leads away from the target."""
    request, count = target_faces, len(result[1])
    if _is_near(count, target_faces):
        return result
    if len(faces) > 4 * target_faces:  # so that the repetitions have less to do
        halfway = _mended(*_collapsed(vertices, faces, 2 * target_faces, step))
        if len(halfway[1]) > 1.5 * target_faces:
            vertices, faces = halfway
    for _ in range(RETRIES):
        require_time()
        request = max(request + target_faces - count, 4)
        if request >= len(faces):
            break
        candidate = _mended(*_collapsed(vertices, faces, request, step))
        count = len(candidate[1])
        if _misses(count, target_faces) < _misses(len(result[1]), target_faces):
            result = candidate
        if _is_near(count, target_faces):
            break
    return result


def _is_near(count: int, target_faces: int) -> bool:
    return (1 - TOLERANCE) * target_faces <= count <= target_faces


def _misses(count: int, target_faces: int) -> tuple[bool, int]:
    """How bad a number of faces is: too many is worse than too few."""
    return count > target_faces, abs(count - target_faces)


def _frame(vertices: Array) -> tuple[Array, float]:
    """Centre and longest side of the box around the mesh."""
    low, high = vertices.min(0).astype(np.float64), vertices.max(0).astype(np.float64)
    return (low + high) / 2, float((high - low).max()) or 1.0


def _collapsed(vertices: Array, faces: Array, request: int, step: _Pass) -> tuple[Array, Array]:
    """The library's result for `request` faces, computed in a unit box.

    Its tolerances are absolute.
    """
    centre, size = _frame(vertices)
    with _library:
        points, faces = fast_simplification.simplify(
            (vertices - centre) / size,
            np.ascontiguousarray(faces, np.int32),
            target_count=request,
            agg=step.aggressiveness,
            preserve_border=step.keeps_border,
        )
    return (points * size + centre).astype(np.float32), np.ascontiguousarray(faces, np.int32)


def _mended(vertices: Array, faces: Array) -> tuple[Array, Array]:
    """Without faces that fell together or have no height, taken apart where pinched."""
    faces = _without_folded(faces[uses_distinct(faces)])
    if not len(faces):
        return vertices, faces
    mesh = separate(vertices, faces)
    return compact(*remove_slivers(mesh.vertices, mesh.faces))


def _without_folded(faces: Array) -> Array:
    """Without pairs of faces on the same vertices that look opposite ways: they enclose nothing.

    Of three faces or more, as many stay as look one way more often than the other, so that the
    edges of a closed mesh keep an even number of faces.
    """
    ordered = np.sort(faces, axis=1)
    order = np.lexsort(ordered.T[::-1])
    same = (ordered[order[1:]] == ordered[order[:-1]]).all(1)
    if not same.any():
        return faces
    group = np.empty(len(faces), np.int64)
    group[order] = np.concatenate([[0], np.cumsum(~same)])
    start = faces.argmin(1)
    rows = np.arange(len(faces))
    is_even = faces[rows, (start + 1) % 3] < faces[rows, (start + 2) % 3]
    balance = np.bincount(group, np.where(is_even, 1, -1))
    side = np.where(is_even, 1, -1)
    rank = _rank_within(group * 2 + is_even)
    return faces[(side * balance[group] > 0) & (rank < np.abs(balance[group]))]


def _rank_within(group: Array) -> Array:
    """How many earlier items are of the same group."""
    order = np.argsort(group, kind="stable")
    first = np.ones(len(group), bool)
    first[1:] = group[order[1:]] != group[order[:-1]]
    begin = np.flatnonzero(first)[np.cumsum(first) - 1]
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - begin
    return rank
