"""How much of each part of a mesh can be seen from outside, by rays.

A ray starts just off a point of the surface and runs outward in one of a fixed set of directions;
the point is seen if nothing stops it. Parts are sampled: a few hundred points tell whether a part
is an inner shell, and the cost depends on the number of parts rather than of faces.

N vertices, M faces, S samples, D directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp

from onelook.asset.topology import face_crosses
from onelook.kernels import default_device, launch

Array = np.ndarray

DIRECTIONS = 32
OFFSET = 1e-5  # of the bounding box's diagonal, off the surface
SAMPLES = 256  # per part
MOST_SAMPLES = 40_000  # of all parts together


@dataclass(frozen=True)
class Visibility:
    """Share of the rays that reach the outside, per part: front (K,), back (K,), each 0..1.

    front counts rays that leave on the side the faces point to, back those on the other side.
    """

    front: Array
    back: Array


@wp.kernel
def _escape(
    first: int,
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    offset: float,
    reach: float,
    front: wp.array(dtype=wp.int32),
    back: wp.array(dtype=wp.int32),
):
    """Count the directions in which sample `first + tid` sees the outside, by side."""
    s = first + wp.tid()
    normal = normals[s]
    seen_front = wp.int32(0)
    seen_back = wp.int32(0)
    for d in range(directions.shape[0]):
        direction = directions[d]
        side = wp.dot(direction, normal)
        start = points[s] + normal * (offset * wp.sign(side))
        if not wp.mesh_query_ray_anyhit(mesh, start, direction, reach):
            if side > 0.0:
                seen_front += wp.int32(1)
            else:
                seen_back += wp.int32(1)
    front[s] = seen_front
    back[s] = seen_back


def part_visibility(
    vertices: Array, faces: Array, part: Array, count: int, device: str | None = None
) -> Visibility:
    """Visibility of each of `count` parts; part (M,) is the part of each face.

    vertices (N, 3) float32, faces (M, 3) int32. All parts stop rays.
    """
    device = device or default_device()
    chosen = _sample_faces(vertices, faces, part, count)
    crosses = face_crosses(vertices, faces[chosen])
    normals = crosses / np.maximum(np.linalg.norm(crosses, axis=1, keepdims=True), 1e-30)
    diagonal = float(np.linalg.norm(vertices.max(0) - vertices.min(0)))
    mesh = wp.Mesh(
        wp.array(vertices, dtype=wp.vec3, device=device),
        wp.array(faces.ravel(), dtype=wp.int32, device=device),
        bvh_constructor="sah" if device.startswith("cpu") else "lbvh",
    )
    front = wp.zeros(len(chosen), dtype=wp.int32, device=device)
    back = wp.zeros(len(chosen), dtype=wp.int32, device=device)
    inputs = [
        mesh.id,
        wp.array(vertices[faces[chosen]].mean(1), dtype=wp.vec3, device=device),
        wp.array(normals.astype(np.float32), dtype=wp.vec3, device=device),
        wp.array(fibonacci_sphere(DIRECTIONS), dtype=wp.vec3, device=device),
        OFFSET * diagonal,
        2.0 * diagonal,
        front,
        back,
    ]
    launch(_escape, len(chosen), inputs, device)
    rays = np.bincount(part[chosen], minlength=count) * (DIRECTIONS / 2)
    seen = [np.bincount(part[chosen], side.numpy(), count) / rays for side in (front, back)]
    return Visibility(*(np.minimum(share, 1.0) for share in seen))


def _sample_faces(vertices: Array, faces: Array, part: Array, count: int) -> Array:
    """Faces spread evenly over each part's area, in order of the parts; every part has some."""
    wanted = int(np.clip(MOST_SAMPLES // count, 8, SAMPLES))
    crosses = face_crosses(vertices, faces)
    order = np.argsort(part, kind="stable")
    area = np.sqrt(np.square(crosses.astype(np.float64)).sum(1))[order]
    total = np.cumsum(area)
    last = np.cumsum(np.bincount(part, minlength=count)) - 1
    begin = np.concatenate([[0.0], total[last[:-1]]])
    steps = (np.arange(wanted) + 0.5) / wanted
    at = begin[:, None] + steps * (total[last] - begin)[:, None]  # (count, wanted)
    place = np.searchsorted(total, at, side="right")
    return order[np.clip(place, np.r_[0, last[:-1] + 1][:, None], last[:, None])].ravel()


def fibonacci_sphere(count: int) -> Array:
    """(count, 3) float32 unit vectors, spread evenly."""
    i = np.arange(count) + 0.5
    y = 1 - 2 * i / count
    angle = i * np.pi * (3 - 5**0.5)
    ring = np.sqrt(1 - y * y)
    return np.stack([ring * np.cos(angle), y, ring * np.sin(angle)], 1).astype(np.float32)
