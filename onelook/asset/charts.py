"""Cut a mesh into charts that lie flat: triangles in the plane, one unit per unit of the surface.

xatlas finds the charts; its cost grows much faster than the size of a connected piece, so it is
given the mesh in small parts. Its own packing is not used: where it stretched a chart to whole
texels, that is undone here.

N vertices, M faces, K chart vertices, C charts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onelook.asset.parts import split_parts

Array = np.ndarray


@dataclass(frozen=True)
class Charts:
    """Flat charts of a mesh.

    vertices_index (K,) int32: the mesh vertex each chart vertex is a copy of; faces (M, 3) int32
    into the chart vertices, in the order of the mesh's faces; chart (M,) int32 of each face;
    points (K, 2) float64, object units, each chart's lower bounds at 0, y downwards; size (C, 2).
    No chart is mirrored: seen from outside, +x is right where +y is down.
    """

    vertices_index: Array
    faces: Array
    chart: Array
    points: Array
    size: Array


def make_charts(vertices: Array, faces: Array) -> Charts:
    """Charts of a mesh: vertices (N, 3) float32, faces (M, 3) int32, at least one."""
    vertices_index, chart_faces, chart, uvs = _xatlas_charts(vertices, faces)
    points, size = _to_object_units(vertices, faces, chart_faces, chart, uvs)
    return Charts(vertices_index, chart_faces, chart, points, size)


def _xatlas_charts(vertices: Array, faces: Array) -> tuple[Array, Array, Array, Array]:
    import xatlas

    corners = vertices[faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    mean_area = float(np.linalg.norm(normals, axis=1).mean()) / 2
    # xatlas ignores faces under an absolute area, so the mean face gets area 1
    scaled = (vertices / max(mean_area, 1e-30) ** 0.5).astype(np.float32)

    atlas = xatlas.Atlas()
    parts = split_parts(vertices, faces)
    sources = []
    for part in parts:
        source, local = np.unique(faces[part], return_inverse=True)
        sources.append(source)
        atlas.add_mesh(scaled[source], local.reshape(-1, 3).astype(np.uint32))
    chart_options, pack_options = xatlas.ChartOptions(), xatlas.PackOptions()
    chart_options.max_iterations = 1
    pack_options.texels_per_unit = 0.05  # packs in no time: the result is not used
    atlas.generate(chart_options, pack_options)

    vertices_index, uvs = [], []
    chart_faces = np.empty((len(faces), 3), np.int32)
    chart = np.empty(len(faces), np.int32)
    count = 0
    for number, (part, source) in enumerate(zip(parts, sources, strict=True)):
        copied, local_faces, local_uvs = atlas.get_mesh(number)
        _, chart_of_vertex = atlas.get_mesh_vertex_assignment(number)
        vertices_index.append(source[copied])
        uvs.append(local_uvs)
        chart_faces[part] = local_faces.astype(np.int64) + count
        chart[part] = chart_of_vertex[local_faces[:, 0]].astype(np.int32)
        count += len(copied)
    joined = np.concatenate(vertices_index).astype(np.int32)
    return joined, chart_faces, chart, np.concatenate(uvs).astype(np.float64)


def _to_object_units(
    vertices: Array, faces: Array, chart_faces: Array, chart: Array, uvs: Array
) -> tuple[Array, Array]:
    """Give each chart its own area, the same mean stretch along both axes, and lower bounds 0."""
    count = int(chart.max()) + 1
    corners = vertices[faces].astype(np.float64)
    e1, e2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    doubled = np.linalg.norm(np.cross(e1, e2), axis=1)
    area = np.bincount(chart, doubled / 2, count)
    chart_of_vertex = np.empty(len(uvs), np.int64)
    chart_of_vertex[chart_faces] = chart[:, None]
    e, f, g = (np.einsum("mk,mk->m", p, q) for p, q in ((e2, e2), (e1, e2), (e1, e1)))
    points = uvs.copy()
    for axis in range(2):
        along = points[chart_faces, axis]
        a, b = along[:, 1] - along[:, 0], along[:, 2] - along[:, 0]
        # Dirichlet energy of a linear function on a triangle: |gradient|^2 times area
        energy = (a * a * e - 2 * a * b * f + b * b * g) / (2 * np.maximum(doubled, 1e-30))
        energy = np.bincount(chart, np.where(doubled > 0, energy, 0), count)
        factor = np.sqrt(area / np.where(energy > 0, energy, 1.0))
        points[:, axis] *= np.where((energy > 0) & (area > 0), factor, 1.0)[chart_of_vertex]
    flat = points[chart_faces]
    d1, d2 = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    signed = np.bincount(chart, d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0], count) / 2
    points[:, 0] *= np.where(signed > 0, -1.0, 1.0)[chart_of_vertex]  # y is down: clockwise
    usable = (area > 0) & (np.abs(signed) > 0)
    factor = np.sqrt(area / np.where(usable, np.abs(signed), 1.0))
    points *= np.where(usable, factor, 1.0)[chart_of_vertex][:, None]
    lower, upper = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(lower, chart_of_vertex, points)
    np.maximum.at(upper, chart_of_vertex, points)
    return points - lower[chart_of_vertex], upper - lower
