"""How sound and how true a mesh is, found out without the code that made it.

Edges and parts are counted with NumPy and SciPy; rays and nearest points are warp's own queries.

N vertices, M faces, P points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onelook.kernels import launch

Array = np.ndarray
Mesh = tuple[Array, Array]  # vertices (N, 3), faces (M, 3)


@dataclass(frozen=True)
class Soundness:
    """What is wrong with a mesh's connections; all zero, and one part, for a closed solid.

    crowded_edges have three faces or more; conflicts are directed edges that two faces run along;
    loops are the lengths of its borders in edges; pinched_vertices are where fans of faces touch in
    nothing but the vertex.
    """

    crowded_edges: int
    conflicts: int
    loops: list[int]
    pinched_vertices: int
    parts: int


def soundness(faces: Array) -> Soundness:
    """Count the faults of faces (M, 3)."""
    tails, heads = faces.ravel().astype(np.int64), faces[:, [1, 2, 0]].ravel().astype(np.int64)
    _, walks = np.unique(tails << 32 | heads, return_counts=True)
    keys = np.minimum(tails, heads) << 32 | np.maximum(tails, heads)
    _, edge, uses = np.unique(keys, return_inverse=True, return_counts=True)
    border = np.flatnonzero(uses[edge] == 1)
    count = int(faces.max()) + 1
    used = np.unique(faces)
    part = _labels(np.stack([tails, heads], 1), count)
    loop = _labels(np.stack([tails[border], heads[border]], 1), count)[tails[border]]
    return Soundness(
        crowded_edges=int((uses > 2).sum()),
        conflicts=int((walks - 1).sum()),
        loops=sorted(np.unique(loop, return_counts=True)[1].tolist()),
        pinched_vertices=_fans(faces, edge) - len(used),
        parts=len(np.unique(part[used])),
    )


def _labels(links: Array, count: int) -> Array:
    """Component of each of `count` items joined by links (P, 2)."""
    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), (count, count))
    return connected_components(graph, directed=False)[1]


def _fans(faces: Array, edge: Array) -> int:
    """Fans of faces around all vertices: corners joined across edges that they share.

    edge (3M,): the edge of the half-edge that leaves each corner.
    """
    corner = np.arange(3 * len(faces))
    entering = corner - corner % 3 + (corner + 2) % 3  # the half-edge that ends at the corner
    vertex = faces.ravel()
    order = np.argsort(np.concatenate([edge, edge[entering]]), kind="stable")
    side = np.concatenate([corner, corner])[order]
    key = np.concatenate([edge, edge[entering]])[order].astype(np.int64) << 32 | vertex[side]
    order = np.argsort(key, kind="stable")
    key, side = key[order], side[order]
    same = key[1:] == key[:-1]
    links = np.stack([side[1:][same], side[:-1][same]], 1)
    return len(np.unique(_labels(links, len(corner))))


def surface_points(mesh: Mesh, count: int, seed: int = 3) -> tuple[Array, Array]:
    """Points spread evenly over the area: -> points (count, 3) float32, face (count,)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    a, b, c = np.moveaxis(mesh[0][mesh[1]].astype(np.float64), 1, 0)
    total = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    at = (np.arange(count) + rng.random(count)) / count * total[-1]
    face = np.searchsorted(total, at).clip(0, len(total) - 1)
    u, v = rng.random((2, count))
    u, v = np.where(u + v > 1, (1 - u, 1 - v), (u, v))[..., None]
    return (a[face] * (1 - u - v) + b[face] * u + c[face] * v).astype(np.float32), face


@wp.kernel
def _first_hits(
    first: int,
    mesh: wp.uint64,
    starts: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    reach: float,
    distances: wp.array(dtype=wp.float32),
):
    """Distance to the first face along each ray; -1 where there is none."""
    i = first + wp.tid()
    hit = wp.mesh_query_ray(mesh, starts[i], directions[i], reach)
    distances[i] = wp.where(hit.result, hit.t, (-1.0))


@wp.kernel
def _distances(
    first: int,
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),
    distances: wp.array(dtype=wp.float32),
):
    """Distance of each point to the mesh."""
    i = first + wp.tid()
    hit = wp.mesh_query_point_no_sign(mesh, points[i], 1.0e6)
    nearest = wp.mesh_eval_position(mesh, hit.face, hit.u, hit.v)
    distances[i] = wp.length(nearest - points[i])


class Probe:
    """A mesh that rays and points are tried on."""

    def __init__(self, mesh: Mesh, device: str):
        self._device = device
        self._mesh = wp.Mesh(
            self._upload(mesh[0]), wp.array(mesh[1].ravel(), dtype=wp.int32, device=device)
        )

    def _upload(self, rows: Array) -> wp.array:
        return wp.array(np.ascontiguousarray(rows, np.float32), dtype=wp.vec3, device=self._device)

    def first_hits(self, starts: Array, directions: Array, reach: float) -> Array:
        """(P,) float32 distance along unit directions (P, 3) from starts (P, 3); -1 for a miss."""
        result = wp.empty(len(starts), dtype=wp.float32, device=self._device)
        inputs = [self._mesh.id, self._upload(starts), self._upload(directions), reach, result]
        launch(_first_hits, len(starts), inputs, self._device)
        return result.numpy()

    def distances(self, points: Array) -> Array:
        """(P,) float32 distance of points (P, 3) to the mesh."""
        result = wp.empty(len(points), dtype=wp.float32, device=self._device)
        launch(_distances, len(points), [self._mesh.id, self._upload(points), result], self._device)
        return result.numpy()


def visible_area_lost(
    before: Mesh, after: Mesh, device: str, samples: int = 40_000, rays: int = 16
) -> float:
    """Percent of the area that rays from outside reach before, but not at the same place after.

    A sample counts as seen when one of its rays escapes. The same ray is then sent back in from
    outside; the sample is lost if the first thing it meets is farther than 0.1 % of the diagonal
    from where it was.
    """
    points, face = surface_points(before, samples)
    a, b, c = np.moveaxis(before[0][before[1][face]].astype(np.float64), 1, 0)
    normals = np.cross(b - a, c - a)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    diagonal = float(np.linalg.norm(np.ptp(before[0], axis=0)))
    rng = np.random.Generator(np.random.PCG64(4))
    scene_before, scene_after = Probe(before, device), Probe(after, device)
    seen, kept = np.zeros(samples, bool), np.zeros(samples, bool)
    for _ in range(rays):
        directions = normals + _unit(rng.standard_normal((samples, 3)))  # by the cosine
        directions = _unit(directions)
        starts = points + 1e-5 * diagonal * normals
        escapes = scene_before.first_hits(starts, directions, 2 * diagonal) < 0
        outside = points + 2 * diagonal * directions
        met = scene_after.first_hits(outside, -directions, 3 * diagonal)
        seen |= escapes
        kept |= escapes & (np.abs(met - 2 * diagonal) < 1e-3 * diagonal)
    return float(100 * (seen & ~kept).sum() / seen.sum())


def mean_distance(mesh: Mesh, other: Mesh, device: str, samples: int = 200_000) -> float:
    """Mean distance of points on either mesh to the other, as a share of the diagonal."""
    there = Probe(other, device).distances(surface_points(mesh, samples)[0])
    back = Probe(mesh, device).distances(surface_points(other, samples)[0])
    diagonal = np.linalg.norm(np.ptp(other[0], axis=0))
    return float((there.mean(dtype=np.float64) + back.mean(dtype=np.float64)) / 2 / diagonal)


def _unit(rows: Array) -> Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
