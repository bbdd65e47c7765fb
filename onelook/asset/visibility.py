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

from onelook.asset.topology import face_crosses, lengths
from onelook.kernels import default_device, launch

Array = np.ndarray

DIRECTIONS = 32
OFFSET = 1e-5  # of the bounding box's diagonal, off the surface
FIRST_SAMPLES, SAMPLES = 32, 256  # per part, at first and for those that are hardly seen
MOST_SAMPLES = 40_000  # of all parts together
PLAINLY = 0.1  # of the rays: a part with more is seen, and how much does not matter


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

    vertices (N, 3) float32, faces (M, 3) int32. All parts stop rays. A few rays tell that a part is
    plainly seen; only those that are hardly seen by them are looked at closely.
    """
    device = device or default_device()
    rays = _Rays(vertices, faces, device)
    crosses = face_crosses(vertices, faces)
    ground = _Ground(crosses, part)
    front, back = np.zeros(count), np.zeros(count)
    unsure = np.arange(count)
    for samples in (FIRST_SAMPLES, SAMPLES):
        wanted = int(np.clip(MOST_SAMPLES // len(unsure), 1, samples))
        chosen = ground.spread(unsure, wanted)
        seen = rays.escaping(chosen, crosses[chosen]).reshape(len(unsure), wanted, 2)
        share = np.minimum(seen.sum(1) / (wanted * DIRECTIONS / 2), 1.0)
        front[unsure], back[unsure] = share.T
        unsure = unsure[share.sum(1) < PLAINLY]
        if not len(unsure):
            break
    return Visibility(front, back)


def warm_up(device: str | None = None) -> None:
    """Compile or load the kernel, so that the first mesh of several parts does not wait for it."""
    corners = np.eye(3, dtype=np.float32)
    part_visibility(corners, np.array([[0, 1, 2]], np.int32), np.zeros(1, np.int32), 1, device)


class _Rays:
    """A mesh that stops rays."""

    def __init__(self, vertices: Array, faces: Array, device: str):
        self._vertices, self._faces, self._device = vertices, faces, device
        self._diagonal = float(np.linalg.norm(vertices.max(0) - vertices.min(0)))
        self._mesh = wp.Mesh(
            wp.array(vertices, dtype=wp.vec3, device=device),
            wp.array(faces.ravel(), dtype=wp.int32, device=device),
            bvh_constructor="sah" if device.startswith("cpu") else "lbvh",
        )

    def escaping(self, chosen: Array, crosses: Array) -> Array:
        """(S, 2) how many directions see the outside from the middle of each face: front, back."""
        device, count = self._device, len(chosen)
        normals = crosses / np.maximum(np.linalg.norm(crosses, axis=1, keepdims=True), 1e-30)
        middles = self._vertices[self._faces[chosen]].mean(1)
        front, back = (wp.zeros(count, dtype=wp.int32, device=device) for _ in range(2))
        inputs = [
            self._mesh.id,
            wp.array(middles, dtype=wp.vec3, device=device),
            wp.array(normals.astype(np.float32), dtype=wp.vec3, device=device),
            wp.array(fibonacci_sphere(DIRECTIONS), dtype=wp.vec3, device=device),
            OFFSET * self._diagonal,
            2.0 * self._diagonal,
            front,
            back,
        ]
        launch(_escape, count, inputs, device)
        return np.stack([front.numpy(), back.numpy()], 1)


class _Ground:
    """The faces of all parts laid out by area, one part after the other."""

    def __init__(self, crosses: Array, part: Array):
        self._order = np.argsort(part, kind="stable")
        self._total = np.cumsum(lengths(crosses)[self._order].astype(np.float64))
        self._last = np.cumsum(np.bincount(part)) - 1

    def spread(self, parts: Array, samples: int) -> Array:
        """Faces spread evenly over the area of each part (K,), `samples` for each in turn."""
        last = self._last[parts]
        first = np.where(parts > 0, self._last[parts - 1] + 1, 0)
        begin = np.where(first > 0, self._total[first - 1], 0.0)
        steps = (np.arange(samples) + 0.5) / samples
        at = begin[:, None] + steps * (self._total[last] - begin)[:, None]  # (K, samples)
        place = np.searchsorted(self._total, at, side="right")
        return self._order[np.clip(place, first[:, None], last[:, None])].ravel()


def fibonacci_sphere(count: int) -> Array:
    """(count, 3) float32 unit vectors, spread evenly."""
    i = np.arange(count) + 0.5
    y = 1 - 2 * i / count
    angle = i * np.pi * (3 - 5**0.5)
    ring = np.sqrt(1 - y * y)
    return np.stack([ring * np.cos(angle), y, ring * np.sin(angle)], 1).astype(np.float32)
