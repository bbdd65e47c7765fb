"""The nearest point of a mesh: how texels and colours find their way back to a surface.

Runs on warp's bounding volume hierarchy, on the CPU with every core or on CUDA. It serves the baker
(a texel of the simplified mesh -> the full surface) and every Appearance that knows its material
only on a mesh.

N vertices, M faces, P points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp

from onelook.kernels import default_device, launch

Array = np.ndarray
_FAR = 1e30  # farther than any mesh reaches; squares of it are never taken
_SHEETS = wp.constant(4)  # how many sheets a point looks through for one that faces its way
_STEP = wp.constant(1.0e-3)  # of how far it looks, past each sheet
_LOOK = 0.02  # of the mesh's longest side: how far it looks at most


@dataclass(frozen=True)
class Hits:
    """Nearest points of a mesh to P query points.

    face (P,) int32, -1 where nothing was near enough; barycentric (P, 3) float32, weights of the
    face's three corners, zeros at a miss; distance (P,) float32, infinite at a miss.
    """

    face: Array
    barycentric: Array
    distance: Array


class ClosestPoint:
    """A mesh that can be asked for its nearest point."""

    def __init__(self, vertices: Array, faces: Array, device: str | None = None):
        """vertices (N, 3) float, faces (M, 3) int; device "cpu" or "cuda:N", None for the best."""
        self.device = device or default_device()
        self._look = _LOOK * float(np.ptp(vertices, axis=0).max())
        self.faces = np.ascontiguousarray(faces, np.int32)
        self._faces = wp.array(self.faces, dtype=wp.int32, device=self.device)
        self._mesh = wp.Mesh(
            points=wp.array(
                np.ascontiguousarray(vertices, np.float32), dtype=wp.vec3, device=self.device
            ),
            indices=self._faces.flatten(),
            bvh_constructor="sah" if self.device.startswith("cpu") else "lbvh",
        )

    def query(
        self, points: Array, max_distance: float | None = None, normals: Array | None = None
    ) -> Hits:
        """Nearest points: points (P, 3) -> Hits of P.

        max_distance: farther points are misses; None for no limit. Far points cost about ten times
        as much as near ones. normals (P, 3) of unit length: where the nearest face looks the other
        way (more than 90 degrees off), the nearest face along +normal or -normal that does not is
        taken instead, if there is one within max_distance and 2 % of the mesh's longest side: this
        keeps the two sides of a thin sheet apart.
        """
        limit = _FAR if max_distance is None else float(max_distance)
        count = len(points)
        points = _on(self.device, points, wp.vec3)
        directions = points if normals is None else _on(self.device, normals, wp.vec3)
        face = wp.empty(count, dtype=wp.int32, device=self.device)
        barycentric = wp.empty(count, dtype=wp.vec3, device=self.device)
        distance = wp.empty(count, dtype=wp.float32, device=self.device)
        look = min(self._look, limit) if normals is not None else 0.0
        inputs = [self._mesh.id, points, directions, limit, look]
        launch(_nearest, count, [*inputs, face, barycentric, distance], self.device)
        return Hits(face.numpy(), barycentric.numpy(), distance.numpy())

    def interpolate(self, attributes: Array, hits: Hits) -> Array:
        """Vertex attributes (N, C) float32 at the hits: -> (P, C) float32, zeros at misses."""
        attributes = np.ascontiguousarray(attributes, np.float32)
        device = self.device
        result = wp.empty((len(hits.face), attributes.shape[1]), dtype=wp.float32, device=device)
        inputs = [
            self._faces,
            wp.array(attributes, dtype=wp.float32, device=device, copy=False),
            _on(device, hits.face, wp.int32),
            _on(device, hits.barycentric, wp.vec3),
            result,
        ]
        launch(_interpolate, len(hits.face), inputs, device)
        return result.numpy()


def _on(device: str, values: Array, dtype: type) -> wp.array:
    kind = np.int32 if dtype is wp.int32 else np.float32
    return wp.array(np.ascontiguousarray(values, kind), dtype=dtype, device=device, copy=False)


@wp.kernel
def _nearest(
    first: int,
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    max_distance: float,
    look: float,
    face: wp.array(dtype=wp.int32),
    barycentric: wp.array(dtype=wp.vec3),
    distance: wp.array(dtype=wp.float32),
):
    i = first + wp.tid()
    point = points[i]
    hit = wp.mesh_query_point_no_sign(mesh, point, max_distance)
    if not hit.result:
        face[i] = -1
        barycentric[i] = wp.vec3(0.0, 0.0, 0.0)
        distance[i] = wp.inf
        return
    best = hit.face
    u = hit.u
    v = hit.v
    length = wp.length(wp.mesh_eval_position(mesh, best, u, v) - point)
    if look > 0.0:
        normal = normals[i]
        if wp.dot(wp.mesh_eval_face_normal(mesh, best), normal) < 0.0:
            reach = look
            for side in range(2):
                direction = normal
                if side == 1:
                    direction = -normal
                passed = wp.float32(0.0)
                for _sheet in range(_SHEETS):
                    if passed < reach:
                        ray = wp.mesh_query_ray(
                            mesh, point + passed * direction, direction, reach - passed
                        )
                        if not ray.result:
                            passed = reach
                        elif wp.dot(ray.normal, normal) > 0.0:
                            best = ray.face
                            u = ray.u
                            v = ray.v
                            length = passed + ray.t
                            reach = length
                        else:  # a sheet seen from behind: look beyond it
                            passed = passed + ray.t + _STEP * look
    face[i] = best
    barycentric[i] = wp.vec3(u, v, 1.0 - u - v)
    distance[i] = length


@wp.kernel
def _interpolate(
    first: int,
    faces: wp.array(dtype=wp.int32, ndim=2),
    attributes: wp.array(dtype=wp.float32, ndim=2),
    face: wp.array(dtype=wp.int32),
    barycentric: wp.array(dtype=wp.vec3),
    result: wp.array(dtype=wp.float32, ndim=2),
):
    i = first + wp.tid()
    f = face[i]
    weights = barycentric[i]
    for c in range(attributes.shape[1]):
        value = wp.float32(0.0)
        if f >= 0:
            value = (
                weights[0] * attributes[faces[f, 0], c]
                + weights[1] * attributes[faces[f, 1], c]
                + weights[2] * attributes[faces[f, 2], c]
            )
        result[i, c] = value
