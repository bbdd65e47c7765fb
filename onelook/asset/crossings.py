"""Find charts whose border crosses itself, or where faces lie on the same side of an edge.

With no face flipped, those are the ways in which a chart can overlap itself.

K chart vertices, B border edges, C charts.
"""

from __future__ import annotations

import numpy as np
import warp as wp

from onelook.asset.flatten import CutMesh
from onelook.asset.topology import find_edges, half_edge_heads
from onelook.kernels import launch

Array = np.ndarray


def charts_crossing_themselves(mesh: CutMesh, flat: Array) -> Array:
    """Which charts may overlap themselves although no face is flipped: flat (K, 2) -> (C,) bool."""
    found = find_edges(mesh.faces)
    pairs = found.paired()
    tails = mesh.faces.ravel()[pairs]
    same_side = np.append(pairs[tails[:, 0] == tails[:, 1], 0], found.crowded())
    half = found.boundary()  # ascending, so chart after chart
    chart = mesh.chart_of_face[half // 3]
    edges = np.stack([mesh.faces.ravel()[half], half_edge_heads(mesh.faces)[half]], axis=1)
    count = len(mesh.face_starts) - 1
    last = np.cumsum(np.bincount(chart, minlength=count))[chart]
    crosses = wp.zeros(len(half), dtype=wp.int32, device="cpu")
    inputs = [
        wp.array(edges.astype(np.int32), dtype=wp.int32, device="cpu"),
        wp.array(last.astype(np.int32), dtype=wp.int32, device="cpu"),
        wp.array(flat.astype(np.float64), dtype=wp.vec2d, device="cpu"),
        crosses,
    ]
    launch(_cross_later_edges, len(half), inputs, "cpu")
    result = np.bincount(chart, crosses.numpy(), count) > 0
    result[mesh.chart_of_face[same_side // 3]] = True
    return result


@wp.func
def _side(a: wp.vec2d, b: wp.vec2d, c: wp.vec2d) -> wp.float64:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


@wp.kernel
def _cross_later_edges(
    first: int,
    edges: wp.array(dtype=wp.int32, ndim=2),
    last: wp.array(dtype=wp.int32),
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
    for other in range(e + 1, last[e]):
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
