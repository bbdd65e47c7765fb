"""Find where charts overlap themselves although no face is flipped.

There are three ways: a border that crosses itself or another one, a ring that runs round twice, and
faces that lie on the same side of an edge.

K chart vertices, M faces, B border edges.
"""

from __future__ import annotations

import numpy as np
import warp as wp

from onelook.asset.flatten import CutMesh
from onelook.asset.topology import components, find_edges, half_edge_heads, next_half_edge
from onelook.kernels import launch

Array = np.ndarray


def overlapping_faces(mesh: CutMesh, flat: Array) -> Array:
    """Faces at which a chart overlaps itself, if none is flipped: flat (K, 2) -> (M,) bool.

    All faces of a chart that overlaps as a whole.
    """
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
    following = _next_on_border(border, pairs[tails[:, 0] != tails[:, 1]], len(result))
    following = _pinched_off(edges[:, 0])[following]
    twice = _run_round_twice(following, chart, flat[edges].astype(np.float64), len(last))
    return result | twice[mesh.chart_of_face]


def _next_on_border(border: Array, pairs: Array, face_count: int) -> Array:
    """For each border half-edge (B,), which one the border goes on with: index into border (B,).

    Found by turning round the vertex through the faces.
    """
    twin = np.full(3 * face_count, -1)
    twin[pairs[:, 0]], twin[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    after = next_half_edge(border)
    turning = np.flatnonzero(twin[after] >= 0)
    while len(turning):
        after[turning] = next_half_edge(twin[after[turning]])
        turning = turning[twin[after[turning]] >= 0]
    place = np.full(3 * face_count, -1)
    place[border] = np.arange(len(border))
    # an edge of more than two faces ends a border: it goes on nowhere
    return np.where(place[after] >= 0, place[after], np.arange(len(border)))


def _pinched_off(tails: Array) -> Array:
    """For each border edge (B,), another one that leaves the same vertex; itself if it is alone.

    Where a border meets itself at a vertex, going on with the other edge cuts it into an outer
    border and a hole.
    """
    order = np.argsort(tails, kind="stable")
    first = np.flatnonzero(np.diff(tails[order], prepend=-1))
    after = np.arange(1, len(order) + 1)
    after[np.append(first, len(order))[1:] - 1] = first  # the last goes round to the first
    other = np.empty(len(order), np.int64)
    other[order] = order[after]
    return other


def _run_round_twice(following: Array, chart: Array, ends: Array, chart_count: int) -> Array:
    """Charts (C,) bool with two borders that run counter-clockwise; only the outermost one should.

    following, chart (B,); ends (B, 2, 2): flat ends of border edges, with the chart to their left.
    """
    links = np.stack([np.arange(len(following)), following], axis=1)
    count, border = components(links, len(following))
    (x0, y0), (x1, y1) = ends[:, 0].T, ends[:, 1].T
    area = np.bincount(border, x0 * y1 - x1 * y0, count)
    chart_of_border = np.zeros(count, np.int64)
    chart_of_border[border] = chart
    return np.bincount(chart_of_border[area > 0], minlength=chart_count) > 1


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
