"""Cut a mesh into charts that lie flat: triangles in the plane, one unit per unit of the surface.

Parts of the mesh are laid flat all at once. Where one comes out flipped, overlapping itself or
badly stretched, the bad spot is cut out, or if there are many the part is halved, and the pieces
are tried again. A single triangle always lies flat, so this ends for any mesh.

N vertices, M faces, K chart vertices, C charts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onelook.asset.crossings import overlapping_faces
from onelook.asset.flatten import CutMesh, cut, flatten
from onelook.asset.parts import face_graph, find_parts, recut_parts, renumber
from onelook.asset.topology import face_areas
from onelook.time_cap import require_time

Array = np.ndarray
LARGEST_PART, SMALLEST_PART = 8000, 100  # faces; larger parts take longer to relax
PARTS_WANTED = 24  # where that makes parts of a size between the two
MAX_STRETCH = 1.1  # of a chart, root mean square (L2) over its area; 1 is none
MAX_SMALL_STRETCH, _SMALL_SHARE = 2.0, 1e-3  # of charts with so small a share of the area
MAX_LENGTH = 1.6  # of a chart, in sides of a square as large as the mesh: longer ones waste space
_WORST_STRETCH = 2.0  # of a face in a chart that is stretched too far
_SPECK = 1e-7  # of a chart's area: faces under it may flip, since rounding decides
_ANGLES = np.arange(32) * (np.pi / 64)


@dataclass(frozen=True)
class Charts:
    """Flat charts of a mesh.

    vertices_index (K,) int32: the mesh vertex each chart vertex is a copy of; faces (M, 3) int32
    into the chart vertices, in the order of the mesh's faces; chart (M,) int32 of each face;
    points (K, 2) float64, object units, each chart's lower bounds at 0, y downwards; size (C, 2).
    No chart is mirrored: seen from outside, +x is right where +y is down. Each chart has the area
    of its faces and lies in about its smallest upright rectangle.
    """

    vertices_index: Array
    faces: Array
    chart: Array
    points: Array
    size: Array


def make_charts(vertices: Array, faces: Array) -> Charts:
    """Charts of a mesh: vertices (N, 3) float32, faces (M, 3) int32, at least one face."""
    part_faces = int(np.clip(len(faces) // PARTS_WANTED, SMALLEST_PART, LARGEST_PART))
    graph = face_graph(vertices, faces, part_faces)
    label = find_parts(graph, part_faces)
    longest = MAX_LENGTH * float(face_areas(vertices, faces).sum(dtype=np.float64)) ** 0.5
    todo = [(np.arange(len(faces)), label, None)]
    pieces = []
    while todo:
        require_time()
        pending, label, known = todo.pop()
        mesh = cut(faces[pending], label)
        flat = flatten(vertices, mesh) if known is None else _carry_over(mesh, known)
        bad, sound, points = _judge(vertices, mesh, flat, longest)
        pieces.append(_Piece.of(mesh, points, sound, pending))
        failed = ~sound[mesh.chart_of_face]
        if failed.any():
            pending, corners = pending[mesh.order[failed]], flat[mesh.faces[failed]]
            spots = bad[failed] & (known is None)  # cut out once; if that did not help, halve
            label, rest = recut_parts(graph, pending, mesh.chart_of_face[failed], spots)
            if rest.any():  # lies flat already
                todo.append((pending[rest], renumber(label[rest]), corners[rest]))
            if not rest.all():
                todo.append((pending[~rest], renumber(label[~rest]), None))
    return _join(pieces, len(faces))


def _carry_over(mesh: CutMesh, corners: Array) -> Array:
    """Flat corners (F, 3, 2) of the faces that were cut -> flat vertices (K, 2)."""
    flat = np.empty((len(mesh.vertices_index), 2), np.float32)
    flat[mesh.faces] = corners[mesh.order]
    return flat


@dataclass(frozen=True)
class _Piece:
    """Some finished charts: `source` is the mesh face of each face."""

    source: Array
    faces: Array
    chart: Array
    vertices_index: Array
    chart_of_vertex: Array
    points: Array

    @staticmethod
    def of(mesh: CutMesh, points: Array, sound: Array, pending: Array) -> _Piece:
        """The sound charts (C,) of a cut mesh, renumbered."""
        keep_face, keep_vertex = sound[mesh.chart_of_face], sound[mesh.chart_of_vertex]
        vertex, chart = np.cumsum(keep_vertex) - 1, np.cumsum(sound) - 1
        return _Piece(
            source=pending[mesh.order[keep_face]],
            faces=vertex[mesh.faces[keep_face]],
            chart=chart[mesh.chart_of_face[keep_face]],
            vertices_index=mesh.vertices_index[keep_vertex],
            chart_of_vertex=chart[mesh.chart_of_vertex[keep_vertex]],
            points=points[keep_vertex],
        )


def _judge(
    vertices: Array, mesh: CutMesh, flat: Array, longest: float
) -> tuple[Array, Array, Array]:
    """Bad faces (M,), sound charts (C,), and points (K, 2) scaled to the charts' true areas."""
    chart, count = mesh.chart_of_face, len(mesh.face_starts) - 1
    area, flat_area, squared = _areas_and_stretch(vertices, mesh, flat)
    total, flat_total = np.bincount(chart, area, count), np.bincount(chart, flat_area, count)
    has_area = (total > 0) & (flat_total > 0)
    ratio = np.where(has_area, total, 1) / np.where(has_area, flat_total, 1)
    is_speck = area <= _SPECK * total[chart]
    squared = np.where(is_speck, 1, squared / ratio[chart])

    bad = overlapping_faces(mesh, flat) | ((flat_area <= 0) & ~is_speck)
    mean_squared = np.bincount(chart, squared * area, count) / np.where(has_area, total, 1)
    limit = np.where(total < _SMALL_SHARE * total.sum(), MAX_SMALL_STRETCH, MAX_STRETCH) ** 2
    stretched = has_area & (mean_squared > limit)
    starts = mesh.vertex_starts[:-1]
    length = (np.maximum.reduceat(flat, starts) - np.minimum.reduceat(flat, starts)).max(axis=1)
    sound = (np.bincount(chart, bad, count) == 0) & ~stretched & (length <= longest)
    sound |= np.diff(mesh.face_starts) == 1
    bad |= stretched[chart] & (squared > _WORST_STRETCH**2)
    factor = np.where(has_area, np.sqrt(np.clip(ratio, 0.25, 4)), 0)
    return bad, sound, flat * factor[mesh.chart_of_vertex][:, None]


def _areas_and_stretch(vertices: Array, mesh: CutMesh, flat: Array) -> tuple[Array, Array, Array]:
    """Of each face (M,): area, signed flat area, and squared L2 stretch, infinite where flipped.

    L2 stretch is half the squared norm of the map from the plane to the surface (Sander et al.,
    "Texture Mapping Progressive Meshes", SIGGRAPH 2001, section 3).
    """
    corners = vertices[mesh.vertices_index].astype(np.float64)[mesh.faces]
    side_1, side_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    e, f, g = (
        np.einsum("mk,mk->m", p, q)
        for p, q in ((side_1, side_1), (side_1, side_2), (side_2, side_2))
    )
    image = flat.astype(np.float64)[mesh.faces]
    (a, b), (c, d) = (image[:, 1] - image[:, 0]).T, (image[:, 2] - image[:, 0]).T
    flat_area = (a * d - b * c) / 2
    squared = (e * (c * c + d * d) - 2 * f * (a * c + b * d) + g * (a * a + b * b)) / 2
    positive = flat_area > 0
    squared = np.where(positive, squared / np.where(positive, 4 * flat_area**2, 1), np.inf)
    return np.sqrt(np.maximum(e * g - f * f, 0)) / 2, flat_area, squared


def _join(pieces: list[_Piece], face_count: int) -> Charts:
    """All pieces as one set of charts, upright, y down, faces in the order of the mesh."""
    faces = np.empty((face_count, 3), np.int32)
    chart = np.empty(face_count, np.int32)
    chart_of_vertex, vertex_count, chart_count = [], 0, 0
    for piece in pieces:
        faces[piece.source] = piece.faces + vertex_count
        chart[piece.source] = piece.chart + chart_count
        chart_of_vertex.append(piece.chart_of_vertex + chart_count)
        vertex_count += len(piece.points)
        chart_count = int(chart_of_vertex[-1].max(initial=chart_count - 1)) + 1
    points = np.concatenate([piece.points for piece in pieces]).astype(np.float64) * (1, -1)
    points, size = _stand_upright(points, np.concatenate(chart_of_vertex))
    vertices_index = np.concatenate([piece.vertices_index for piece in pieces])
    return Charts(vertices_index, faces, chart, points, size)


def _stand_upright(points: Array, chart: Array) -> tuple[Array, Array]:
    """Turn charts into their smallest upright rectangles: points (K, 2), chart (K,) ascending.

    Returns the points with each chart's lower bounds at 0, and the charts' sizes (C, 2).
    """
    starts = np.flatnonzero(np.diff(chart, prepend=-1))
    best_area = np.full(len(starts), np.inf)
    best_angle = np.zeros(len(starts))
    for angle in _ANGLES:
        turned = _turn(points, np.full(1, angle))
        size = np.maximum.reduceat(turned, starts) - np.minimum.reduceat(turned, starts)
        better = size.prod(axis=1) < 0.999 * best_area
        best_area[better] = size.prod(axis=1)[better]
        best_angle[better] = angle
    turned = _turn(points, best_angle[chart])
    lower = np.minimum.reduceat(turned, starts)
    return turned - lower[chart], np.maximum.reduceat(turned, starts) - lower


def _turn(points: Array, angle: Array) -> Array:
    x, y = points.T
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1)
