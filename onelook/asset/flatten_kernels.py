"""Relax charts in the plane: the kernel behind `flatten`.

One item does everything for one chart, so the result hangs on no thread count. Springs along edges
have cotangent weights, held positive so that the system stays definite; it is solved roughly, by
conjugate gradients, since the next turn of the triangles changes it anyway.

Chart vertices v0..v1-1 and faces f0..f1-1 belong to one chart.
"""

from __future__ import annotations

import warp as wp

_SMALLEST_WEIGHT = wp.constant(0.05)
_LARGEST_WEIGHT = wp.constant(10.0)


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
def flatten_chart(
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
