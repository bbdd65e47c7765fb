"""Find where charts overlap themselves: a border that crosses, faces on one side of an edge.

With no face flipped, there is no other way.

K chart vertices, M faces, B border edges.
"""

from __future__ import annotations

import numpy as np
import warp as wp

from onelook.asset.flatten import CutMesh
from onelook.asset.topology import find_edges, half_edge_heads
from onelook.kernels import launch

Array = np.ndarray


def overlapping_faces(mesh: CutMesh, flat: Array) -> Array:
    """Faces at which a chart overlaps itself, if none is flipped: flat (K, 2) -> (M,) bool."""
    found = find_edges(mesh.faces)
    pairs = found.paired()
    tails = mesh.faces.ravel()[pairs]
    same_side = pairs[tails[:, 0] == tails[:, 1]]
    border = found.boundary()  # ascending, so chart after chart
    chart = mesh.chart_of_face[border // 3]
    edges = np.stack([mesh.faces.ravel()[border], half_edge_heads(mesh.faces)[border]], axis=1)
    last = np.cumsum(np.bincount(chart, minlength=len(mesh.face_starts) - 1))
    bounds = np.stack([last - np.diff(last, prepend=0), last], axis=1)[chart]
    crosses = wp.zeros(len(border), dtype=wp.int32, device="cpu")
    inputs = [
        wp.array(edges.astype(np.int32), dtype=wp.int32, device="cpu"),
        wp.array(bounds.astype(np.int32), dtype=wp.int32, device="cpu"),
        wp.array(flat.astype(np.float64), dtype=wp.vec2d, device="cpu"),
        crosses,
    ]
    launch(_cross_edges, len(border), inputs, "cpu")
    result = np.zeros(len(mesh.faces), bool)
    for half in (border[crosses.numpy() > 0], same_side, found.crowded()):
        result[half // 3] = True
    return result


@wp.func
def _side(a: wp.vec2d, b: wp.vec2d, c: wp.vec2d) -> wp.float64:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


@wp.kernel
def _cross_edges(
    first: int,
    edges: wp.array(dtype=wp.int32, ndim=2),
    bounds: wp.array(dtype=wp.int32, ndim=2),
    flat: wp.array(dtype=wp.vec2d),
    crosses: wp.array(dtype=wp.int32),
):
    e = first + wp.tid()
    i = edges[e, 0]
    j = edges[e, 1]
    a = flat[i]
    b = flat[j]
    low = wp.min(a, b)
    high = wp.max(a, b)
    zero = wp.float64(0.0)
    for other in range(bounds[e, 0], bounds[e, 1]):
        k = edges[other, 0]
        m = edges[other, 1]
        c = flat[k]
        d = flat[m]
        if (
            wp.max(c[0], d[0]) >= low[0]
            and wp.min(c[0], d[0]) <= high[0]
            and wp.max(c[1], d[1]) >= low[1]
            and wp.min(c[1], d[1]) <= high[1]
            and k != i
            and k != j
            and m != i
            and m != j
        ):
            one = _side(a, b, c) * _side(a, b, d)
            other_way = _side(c, d, a) * _side(c, d, b)
            if one < zero and other_way < zero:
                crosses[e] = 1
                return
