"""Lay many small surfaces flat at once, each as rigidly as it allows.

Each chart is projected along its mean normal and then relaxed: every triangle is turned to where
its flat image points and the charts' vertices are moved to fit the turned triangles best, again and
again ("ARAP" parameterisation: Liu et al., "A Local/Global Approach to Mesh Parameterization", SGP
2008). Only proper turns are allowed, which pushes flipped triangles back.

K chart vertices, M faces, C charts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp

from onelook.asset.flatten_kernels import flatten_chart
from onelook.kernels import launch

Array = np.ndarray
TURNS = 10
_LEAST_STEPS, _MOST_STEPS = 12, 40  # of conjugate gradients per turn
_UNTANGLING_ROUNDS = 40


@dataclass(frozen=True)
class CutMesh:
    """A mesh cut into charts: the faces of a chart follow one another, and so do its vertices.

    order (M,): the input face of each face; faces (M, 3) int32 into the chart vertices;
    face_starts, vertex_starts (C + 1,) int32; vertices_index (K,) int32: the input vertex of each.
    """

    order: Array
    faces: Array
    face_starts: Array
    vertex_starts: Array
    vertices_index: Array

    @property
    def chart_of_face(self) -> Array:
        """(M,)"""
        return np.repeat(np.arange(len(self.face_starts) - 1), np.diff(self.face_starts))

    @property
    def chart_of_vertex(self) -> Array:
        """(K,)"""
        return np.repeat(np.arange(len(self.vertex_starts) - 1), np.diff(self.vertex_starts))


def cut(faces: Array, chart: Array) -> CutMesh:
    """Separate the vertices of charts: faces (M, 3), chart (M,) 0..C-1 -> CutMesh."""
    count = int(chart.max()) + 1
    order = np.argsort(chart, kind="stable")
    vertex_count = int(faces.max()) + 1
    keys = chart[order][:, None].astype(np.int64) * vertex_count + faces[order]
    unique, local = np.unique(keys, return_inverse=True)
    return CutMesh(
        order=order,
        faces=local.reshape(-1, 3).astype(np.int32),
        face_starts=_starts(chart, count),
        vertex_starts=_starts(unique // vertex_count, count),
        vertices_index=(unique % vertex_count).astype(np.int32),
    )


def flatten(vertices: Array, mesh: CutMesh) -> Array:
    """Lay every chart flat: vertices (N, 3) float -> (K, 2) float32, counter-clockwise, in the
    units of the vertices. Faces may still be flipped, and charts overlap themselves."""
    points = vertices[mesh.vertices_index].astype(np.float64)
    corners = points[mesh.faces]
    mean_edge = float(np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1).mean()) or 1.0
    starts = mesh.vertex_starts[:-1]
    centres = np.add.reduceat(points, starts) / np.diff(mesh.vertex_starts)[:, None]
    points = (points - centres[mesh.chart_of_vertex]) / mean_edge
    count, face_count = len(points), len(mesh.faces)
    steps = np.clip(np.sqrt(np.diff(mesh.vertex_starts)) / 3, _LEAST_STEPS, _MOST_STEPS)
    flat = _empty(count, wp.vec2)
    inputs = [
        wp.array(mesh.face_starts, dtype=wp.int32, device="cpu"),
        wp.array(mesh.vertex_starts, dtype=wp.int32, device="cpu"),
        wp.array(mesh.faces, dtype=wp.int32, device="cpu"),
        wp.array(points.astype(np.float32), dtype=wp.vec3, device="cpu"),
        wp.array(steps.astype(np.int32), dtype=wp.int32, device="cpu"),
        _empty(face_count, wp.vec3),
        _empty(face_count, wp.vec3),
        _empty(count, wp.float32),
        flat,
        *(_empty(count, wp.vec2) for _ in range(3)),
    ]
    charts = len(starts)
    launch(flatten_chart, charts, [TURNS, _UNTANGLING_ROUNDS, *inputs], "cpu", pieces=charts)
    return np.nan_to_num(flat.numpy(), posinf=0, neginf=0) * np.float32(mean_edge)


def _starts(label: Array, count: int) -> Array:
    starts = np.zeros(count + 1, np.int32)
    np.cumsum(np.bincount(label, minlength=count), out=starts[1:])
    return starts


def _empty(count: int, dtype: type) -> wp.array:
    return wp.empty(count, dtype=dtype, device="cpu")
