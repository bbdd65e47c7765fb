"""Lay many small surfaces flat at once, each as rigidly as it allows.

Each chart is projected along its mean normal and then relaxed: every triangle is turned to where
its flat image points and the charts' vertices are moved to fit the turned triangles best, again and
again ("ARAP" parameterisation: Liu et al., "A Local/Global Approach to Mesh Parameterization", SGP
2008). Springs along edges have cotangent weights, held positive so that the system stays definite;
it is solved roughly, by conjugate gradients, since the next turn changes it anyway. One kernel item
does all of this for one chart, so the result hangs on no thread count.

K chart vertices, M faces, C charts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp

from onelook.kernels import launch

Array = np.ndarray
TURNS = 10
_LEAST_STEPS, _MOST_STEPS = 12, 40  # of conjugate gradients per turn
_UNTANGLING_ROUNDS = 40
_SMALLEST_WEIGHT, _LARGEST_WEIGHT = wp.constant(0.05), wp.constant(10.0)


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
    launch(_flatten_chart, charts, [TURNS, _UNTANGLING_ROUNDS, *inputs], "cpu", pieces=charts)
    return np.nan_to_num(flat.numpy(), posinf=0, neginf=0) * np.float32(mean_edge)


def _starts(label: Array, count: int) -> Array:
    starts = np.zeros(count + 1, np.int32)
    np.cumsum(np.bincount(label, minlength=count), out=starts[1:])
    return starts


def _empty(count: int, dtype: type) -> wp.array:
    return wp.empty(count, dtype=dtype, device="cpu")


@wp.func
def _cross(a: wp.vec2, b: wp.vec2) -> float:
    return a[0] * b[1] - a[1] * b[0]


@wp.func
def _project(
    f0: int, f1: int, v0: int, v1: int,
    faces: wp.array(dtype=wp.int32, ndim=2), points: wp.array(dtype=wp.vec3),
    flat: wp.array(dtype=wp.vec2),
):  # fmt: skip
    """Drop the chart onto the plane across its mean normal."""
    normal = wp.vec3(0.0, 0.0, 0.0)
    for f in range(f0, f1):
        a = points[faces[f, 0]]
        normal += wp.cross(points[faces[f, 1]] - a, points[faces[f, 2]] - a)
    normal = wp.normalize(normal)
    if wp.length(normal) < 0.5:
        normal = wp.vec3(0.0, 0.0, 1.0)
    axis = wp.vec3(1.0, 0.0, 0.0)
    if wp.abs(normal[0]) > 0.7:
        axis = wp.vec3(0.0, 1.0, 0.0)
    right = wp.normalize(wp.cross(axis, normal))
    up = wp.cross(normal, right)
    for i in range(v0, v1):
        flat[i] = wp.vec2(wp.dot(points[i], right), wp.dot(points[i], up))


@wp.func
def _weigh(
    f0: int, f1: int, v0: int, v1: int,
    faces: wp.array(dtype=wp.int32, ndim=2), points: wp.array(dtype=wp.vec3),
    rest: wp.array(dtype=wp.vec3), weights: wp.array(dtype=wp.vec3),
    diagonal: wp.array(dtype=wp.float32),
):  # fmt: skip
    """Each face's own flat shape (corners (0, 0), (rest.x, 0), (rest.y, rest.z)) and springs."""
    for i in range(v0, v1):
        diagonal[i] = 1.0e-12
    for f in range(f0, f1):
        i = faces[f, 0]
        j = faces[f, 1]
        k = faces[f, 2]
        ij = points[j] - points[i]
        ik = points[k] - points[i]
        length = wp.max(wp.length(ij), 1.0e-12)
        area = wp.length(wp.cross(ij, ik))
        rest[f] = wp.vec3(length, wp.dot(ij, ik) / length, area / length)
        area = wp.max(area, 1.0e-12)
        at_i = wp.clamp(wp.dot(ij, ik) / area, _SMALLEST_WEIGHT, _LARGEST_WEIGHT)
        at_j = wp.clamp(wp.dot(ij, ij - ik) / area, _SMALLEST_WEIGHT, _LARGEST_WEIGHT)
        at_k = wp.clamp(wp.dot(ik, ik - ij) / area, _SMALLEST_WEIGHT, _LARGEST_WEIGHT)
        weights[f] = wp.vec3(at_k, at_i, at_j)  # of the edges ij, jk, ki
        diagonal[i] += at_k + at_j
        diagonal[j] += at_k + at_i
        diagonal[k] += at_i + at_j


@wp.func
def _turn(
    f0: int, f1: int, v0: int, v1: int,
    faces: wp.array(dtype=wp.int32, ndim=2), rest: wp.array(dtype=wp.vec3),
    weights: wp.array(dtype=wp.vec3), flat: wp.array(dtype=wp.vec2),
    residual: wp.array(dtype=wp.vec2),
):  # fmt: skip
    """Turn each face's own shape onto its image; residual: how its springs then pull."""
    for i in range(v0, v1):
        residual[i] = wp.vec2(0.0, 0.0)
    for f in range(f0, f1):
        i = faces[f, 0]
        j = faces[f, 1]
        k = faces[f, 2]
        shape = rest[f]
        w = weights[f]
        ij = wp.vec2(shape[0], 0.0)
        jk = wp.vec2(shape[1] - shape[0], shape[2])
        ki = wp.vec2(-shape[1], -shape[2])
        flat_ij = flat[j] - flat[i]
        flat_jk = flat[k] - flat[j]
        flat_ki = flat[i] - flat[k]
        cosine = w[0] * wp.dot(ij, flat_ij) + w[1] * wp.dot(jk, flat_jk)
        cosine += w[2] * wp.dot(ki, flat_ki)
        sine = w[0] * _cross(ij, flat_ij) + w[1] * _cross(jk, flat_jk)
        sine += w[2] * _cross(ki, flat_ki)
        length = wp.sqrt(cosine * cosine + sine * sine)
        turn = wp.mat22(1.0, 0.0, 0.0, 1.0)
        if length > 0.0:
            turn = wp.mat22(cosine, -sine, sine, cosine) / length
        pull_ij = w[0] * (turn * ij - flat_ij)
        pull_jk = w[1] * (turn * jk - flat_jk)
        pull_ki = w[2] * (turn * ki - flat_ki)
        residual[i] += pull_ki - pull_ij
        residual[j] += pull_ij - pull_jk
        residual[k] += pull_jk - pull_ki


@wp.func
def _relax(
    f0: int, f1: int, v0: int, v1: int, steps: int,
    faces: wp.array(dtype=wp.int32, ndim=2), weights: wp.array(dtype=wp.vec3),
    diagonal: wp.array(dtype=wp.float32), flat: wp.array(dtype=wp.vec2),
    residual: wp.array(dtype=wp.vec2), direction: wp.array(dtype=wp.vec2),
    change: wp.array(dtype=wp.vec2),
):  # fmt: skip
    """Move the vertices to where the springs rest: conjugate gradients, scaled by the diagonal."""
    energy = wp.float32(0.0)
    for i in range(v0, v1):
        direction[i] = residual[i] / diagonal[i]
        energy += wp.dot(residual[i], direction[i])
    enough = 1.0e-4 * energy
    for _step in range(steps):
        if energy > enough:
            for i in range(v0, v1):
                change[i] = wp.vec2(0.0, 0.0)
            for f in range(f0, f1):
                i = faces[f, 0]
                j = faces[f, 1]
                k = faces[f, 2]
                w = weights[f]
                pull_ij = w[0] * (direction[j] - direction[i])
                pull_jk = w[1] * (direction[k] - direction[j])
                pull_ki = w[2] * (direction[i] - direction[k])
                change[i] += pull_ki - pull_ij
                change[j] += pull_ij - pull_jk
                change[k] += pull_jk - pull_ki
            curvature = wp.float32(0.0)
            for i in range(v0, v1):
                curvature += wp.dot(direction[i], change[i])
            length = wp.float32(0.0)
            if curvature > 1.0e-20:
                length = energy / curvature
            before = energy
            energy = wp.float32(0.0)
            for i in range(v0, v1):
                flat[i] += length * direction[i]
                residual[i] -= length * change[i]
                energy += wp.dot(residual[i], residual[i]) / diagonal[i]
            keep = energy / wp.max(before, 1.0e-30)
            for i in range(v0, v1):
                direction[i] = residual[i] / diagonal[i] + keep * direction[i]


@wp.func
def _untangle(
    f0: int, f1: int, v0: int, v1: int, rounds: int,
    faces: wp.array(dtype=wp.int32, ndim=2), rest: wp.array(dtype=wp.vec3),
    flat: wp.array(dtype=wp.vec2), total: wp.array(dtype=wp.vec2), mark: wp.array(dtype=wp.vec2),
):  # fmt: skip
    """Move the corners of flipped faces to the middle of their neighbours until none is left."""
    tangled = wp.int32(1)
    for _round in range(rounds):
        if tangled > 0:
            tangled = wp.int32(0)
            for i in range(v0, v1):
                mark[i] = wp.vec2(0.0, 0.0)  # whether to move, number of neighbours
                total[i] = wp.vec2(0.0, 0.0)
            for f in range(f0, f1):
                i = faces[f, 0]
                j = faces[f, 1]
                k = faces[f, 2]
                shape = rest[f]
                if _cross(flat[j] - flat[i], flat[k] - flat[i]) < 0.01 * shape[0] * shape[2]:
                    tangled += 1
                    mark[i] += wp.vec2(1.0, 0.0)
                    mark[j] += wp.vec2(1.0, 0.0)
                    mark[k] += wp.vec2(1.0, 0.0)
            if tangled > 0:
                for f in range(f0, f1):
                    i = faces[f, 0]
                    j = faces[f, 1]
                    k = faces[f, 2]
                    total[i] += flat[j] + flat[k]
                    total[j] += flat[k] + flat[i]
                    total[k] += flat[i] + flat[j]
                    mark[i] += wp.vec2(0.0, 2.0)
                    mark[j] += wp.vec2(0.0, 2.0)
                    mark[k] += wp.vec2(0.0, 2.0)
                for i in range(v0, v1):
                    if mark[i][0] > 0.0:
                        flat[i] = total[i] / mark[i][1]


@wp.kernel
def _flatten_chart(
    first: int,
    turns: int,
    rounds: int,
    face_starts: wp.array(dtype=wp.int32),
    vertex_starts: wp.array(dtype=wp.int32),
    faces: wp.array(dtype=wp.int32, ndim=2),
    points: wp.array(dtype=wp.vec3),
    steps: wp.array(dtype=wp.int32),
    rest: wp.array(dtype=wp.vec3),
    weights: wp.array(dtype=wp.vec3),
    diagonal: wp.array(dtype=wp.float32),
    flat: wp.array(dtype=wp.vec2),
    residual: wp.array(dtype=wp.vec2),
    direction: wp.array(dtype=wp.vec2),
    change: wp.array(dtype=wp.vec2),
):
    c = first + wp.tid()
    f0 = face_starts[c]
    f1 = face_starts[c + 1]
    v0 = vertex_starts[c]
    v1 = vertex_starts[c + 1]
    _project(f0, f1, v0, v1, faces, points, flat)
    _weigh(f0, f1, v0, v1, faces, points, rest, weights, diagonal)
    for _round in range(turns):
        _turn(f0, f1, v0, v1, faces, rest, weights, flat, residual)
        _relax(
            f0, f1, v0, v1, steps[c], faces, weights, diagonal, flat, residual, direction, change
        )
    _untangle(f0, f1, v0, v1, rounds, faces, rest, flat, direction, change)
