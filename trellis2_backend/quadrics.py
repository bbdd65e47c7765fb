"""Quadrics: squared distances to planes and lines, summed, and where in a voxel they are lowest.

A quadric p A p + 2 b p + c is stored as nine numbers: xx, xy, xz, yy, yz, zz of A and the three of
b; the constant moves no minimum. Garland and Heckbert, "Surface Simplification Using Quadric Error
Metrics", 1997. N voxels, M triangles, E segments.
"""

from __future__ import annotations

import numpy as np
import warp as wp

from onelook.kernels import launch

Array = np.ndarray


def plane_quadrics(corners: Array) -> Array:
    """Squared distance to each triangle's plane: (M, 3, 3) -> (M, 9) float64; 0 without an area."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - b)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    normal /= np.where(length > 0, length, 1)
    return _quadrics(normal[:, :, None] * normal[:, None], a)


def line_quadrics(segments: Array) -> Array:
    """Squared distance to the line of each segment: (E, 2, 3) -> (E, 9) float64."""
    along = segments[:, 1] - segments[:, 0]
    length = np.linalg.norm(along, axis=1, keepdims=True)
    along /= np.where(length > 0, length, 1)
    return _quadrics(np.eye(3) - along[:, :, None] * along[:, None], segments[:, 0])


def _quadrics(matrix: Array, point: Array) -> Array:
    """(p - point) matrix (p - point) for every row."""
    rows, columns = np.triu_indices(3)
    linear = -np.einsum("eij,ej->ei", matrix, point)
    return np.concatenate([matrix[:, rows, columns], linear], 1)


def lowest_points(quadrics: Array, mean: Array, pull: Array, coords: Array) -> Array:
    """The point of each voxel where its quadric is lowest: (N, 3) float32 0..1, from its corner.

    quadrics (N, 9) float64; pull (N,) times the squared distance to mean (N, 3) is added to them;
    coords (N, 3) integer: each voxel reaches from there one unit along every axis.
    """
    offsets = np.empty((len(coords), 3), np.float32)
    inputs = [
        wp.array(quadrics, dtype=wp.float64, device="cpu", copy=False),
        wp.array(mean - coords, dtype=wp.vec3d, device="cpu"),
        wp.array(np.asarray(pull, np.float64), dtype=wp.float64, device="cpu"),
        wp.array(coords.astype(np.float64), dtype=wp.vec3d, device="cpu"),
        wp.array(offsets, dtype=wp.vec3, device="cpu", copy=False),
    ]
    launch(_solve_voxels, len(coords), inputs, "cpu")
    return offsets


@wp.kernel(enable_backward=False)
def _solve_voxels(
    first: int,
    quadrics: wp.array(dtype=wp.float64, ndim=2),
    mean: wp.array(dtype=wp.vec3d),
    pull: wp.array(dtype=wp.float64),
    coords: wp.array(dtype=wp.vec3d),
    offsets: wp.array(dtype=wp.vec3),
):
    """Lowest point within the unit cube: free, or held on a face, an edge or a corner of it."""
    i = first + wp.tid()
    a = wp.mat33d(
        quadrics[i, 0], quadrics[i, 1], quadrics[i, 2],
        quadrics[i, 1], quadrics[i, 3], quadrics[i, 4],
        quadrics[i, 2], quadrics[i, 4], quadrics[i, 5],
    )  # fmt: skip
    b = wp.vec3d(quadrics[i, 6], quadrics[i, 7], quadrics[i, 8]) + a * coords[i]
    a += pull[i] * wp.identity(n=3, dtype=wp.float64)
    b -= pull[i] * mean[i]
    zero = wp.float64(0.0)
    one = wp.float64(1.0)
    point = -(wp.inverse(a) * b)
    if wp.min(point) < zero or wp.max(point) > one:
        best = wp.float64(wp.inf)
        lowest = point
        for held in range(1, 27):  # per axis, as digits to base 3: free, held at 0, held at 1
            m = a
            right = -b
            digits = held
            for axis in range(3):
                digit = digits % 3
                digits = digits / 3
                if digit > 0:
                    for column in range(3):
                        m[axis, column] = wp.where(column == axis, one, zero)
                    right[axis] = wp.float64(digit - 1)
            at = wp.inverse(m) * right
            cost = wp.dot(at, a * at) + wp.float64(2.0) * wp.dot(b, at)
            if wp.min(at) >= zero and wp.max(at) <= one and cost < best:
                best = cost
                lowest = at
        point = lowest
    offsets[i] = wp.vec3(float(point[0]), float(point[1]), float(point[2]))
