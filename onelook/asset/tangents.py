"""Tangents that go with a normal texture.

A normal texture is read in a frame of tangent (the direction in which u grows), bitangent and
normal. Viewers may only guess that frame unless the file has it, so it is written, weighted by
corner angles as MikkTSpace does (Mikkelsen, "Simulation of Wrinkled Surfaces Revisited", 2008).

N vertices, M faces.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def vertex_tangents(vertices: Array, normals: Array, uvs: Array, faces: Array) -> Array:
    """(N, 4) float32: unit tangent across the normal, and the sign of the bitangent, +1 or -1.

    vertices, normals (N, 3), normals of unit length; uvs (N, 2), v down from the top as in glTF;
    faces (M, 3). bitangent = sign * cross(normal, tangent) runs up the image, which is glTF's +Y of
    a normal texture. A vertex without usable UVs gets any direction across its normal.
    """
    corners = vertices[faces].astype(np.float64)  # (M, 3, 3)
    plane = uvs[faces].astype(np.float64) * (1, -1)  # (M, 3, 2), v up
    side_1, side_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    uv_1, uv_2 = plane[:, 1] - plane[:, 0], plane[:, 2] - plane[:, 0]
    turn = np.sign(uv_1[:, 0] * uv_2[:, 1] - uv_2[:, 0] * uv_1[:, 1])  # (M,)
    along_u = (side_1 * uv_2[:, 1:] - side_2 * uv_1[:, 1:]) * turn[:, None]
    angles = _corner_angles(corners)
    sums, signs = np.zeros((len(vertices), 3)), np.zeros(len(vertices))
    for k in range(3):
        vertex = faces[:, k]
        flat = _across(along_u, normals[vertex].astype(np.float64)) * angles[:, k : k + 1]
        for axis in range(3):
            sums[:, axis] += np.bincount(vertex, flat[:, axis], len(vertices))
        signs += np.bincount(vertex, turn * angles[:, k], len(vertices))
    tangents = _across(sums, normals.astype(np.float64))
    lost = ~(np.square(tangents).sum(1) > 0.5)
    tangents[lost] = _any_across(normals[lost].astype(np.float64))
    return np.column_stack([tangents, np.where(signs < 0, -1.0, 1.0)]).astype(np.float32)


def _across(directions: Array, normals: Array) -> Array:
    """Unit directions with their part along the normals removed; zero where nothing is left."""
    flat = directions - (directions * normals).sum(1, keepdims=True) * normals
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, lengths, where=lengths > 1e-20, out=np.zeros_like(flat))


def _any_across(normals: Array) -> Array:
    """A unit direction across each normal."""
    return _across(np.eye(3)[np.abs(normals).argmin(1)], normals)


def _corner_angles(corners: Array) -> Array:
    """(M, 3 corners, 3) -> the angle at each corner (M, 3), radians."""
    onward = np.roll(corners, -1, axis=1) - corners
    lengths = np.linalg.norm(onward, axis=2)
    back, back_lengths = np.roll(onward, 1, axis=1), np.roll(lengths, 1, axis=1)
    cosines = -(onward * back).sum(2) / np.maximum(lengths * back_lengths, 1e-30)
    return np.arccos(np.clip(cosines, -1.0, 1.0))
