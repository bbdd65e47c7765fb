"""The original's rule for walls inside a mesh: which faces to remove, given how well each is seen.

A minimum cut parts the faces that no view reaches from those that are well seen, along the shortest
seam; a part goes only where that opens no large hole. The asset pipeline drops hidden parts whole,
by rays; this rule also cuts walls off that hang on the outside, and is here to compare with.

N vertices, M faces, E edges.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, maximum_flow

Array = np.ndarray

QUANTILE, LEAST_OUTER, MOST_OUTER = 0.75, 0.25, 0.5
SEEN = 0.25  # median visibility above which a part stays
HOLE_AREA = 0.04  # in TRELLIS's object space, whose side is 1
UNIT = 1_000_000  # capacities are whole numbers: one edge length


def drop_inner_faces(
    vertices: Array, faces: Array, visibility: Array, hole_area: float = HOLE_AREA
) -> tuple[Array, Array]:
    """The mesh without the walls inside it.

    vertices (N, 3) float32, faces (M, 3) int32, visibility (M,): share of views that show the face.
    A part whose removal opens a hole larger than hole_area stays. The very same arrays come back
    when every face can be seen.
    """
    edges, edge_of_half = np.unique(
        np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0, return_inverse=True
    )
    edge_of_half = edge_of_half.reshape(-1, 3)  # (M, 3)
    inner = visibility == 0
    if not inner.any():
        return vertices, faces
    outer = visibility > _outer_limits(visibility, edge_of_half)
    hidden = _source_side(vertices, edges, edge_of_half, inner, outer)
    uses = np.bincount(edge_of_half.ravel(), minlength=len(edges))
    goes = np.zeros(len(faces), bool)
    for part in _parts(edge_of_half, hidden):
        if _lower_median(visibility[part]) > SEEN:
            continue
        if _largest_opening(vertices, edges, edge_of_half[part], uses) <= hole_area:
            goes[part] = True
    used, index = np.unique(faces[~goes], return_inverse=True)
    return vertices[used], index.reshape(-1, 3).astype(np.int32)


def _pairs(edge_of_half: Array) -> tuple[Array, Array]:
    """Faces that share an edge with exactly two, (P, 2), and the edge (P,)."""
    uses = np.bincount(edge_of_half.ravel())
    order = np.argsort(edge_of_half.ravel(), kind="stable")
    order = order[uses[edge_of_half.ravel()[order]] == 2]
    return order.reshape(-1, 2) // 3, edge_of_half.ravel()[order[::2]]


def _outer_limits(visibility: Array, edge_of_half: Array) -> Array:
    """(M,): above this a face counts as outside; a quantile of its component's, within limits."""
    count = len(visibility)
    links = coo_array(
        (np.ones(3 * count), (np.repeat(np.arange(count), 3), edge_of_half.ravel()))
    ).tocsr()
    number, component = connected_components(links @ links.T, directed=False)
    limits = [np.quantile(visibility[component == one], QUANTILE) for one in range(number)]
    return np.clip(limits, LEAST_OUTER, MOST_OUTER)[component]


def _source_side(
    vertices: Array, edges: Array, edge_of_half: Array, inner: Array, outer: Array
) -> Array:
    """(M,) bool: faces on the inner side of the minimum cut."""
    count = len(inner)
    source, sink = count, count + 1
    pairs, edge = _pairs(edge_of_half)
    lengths = np.linalg.norm(vertices[edges[edge, 0]] - vertices[edges[edge, 1]], axis=1)
    capacity = np.rint(UNIT * lengths).astype(np.int32)
    inside, outside = np.flatnonzero(inner), np.flatnonzero(outer)
    starts = np.concatenate([pairs[:, 0], pairs[:, 1], np.full(len(inside), source), outside])
    ends = np.concatenate([pairs[:, 1], pairs[:, 0], inside, np.full(len(outside), sink)])
    limits = np.concatenate(
        [capacity, capacity, np.full(len(inside) + len(outside), UNIT, np.int32)]
    )
    graph = coo_array((limits, (starts, ends)), shape=(count + 2, count + 2)).tocsr()
    rest = graph - maximum_flow(graph, source, sink).flow
    rest.data[rest.data < 0] = 0
    rest.eliminate_zeros()
    side = np.zeros(count + 2, bool)
    side[breadth_first_order(rest, source, return_predecessors=False)] = True
    return side[:count]


def _parts(edge_of_half: Array, chosen: Array) -> list[Array]:
    """The chosen faces, in groups that share edges."""
    faces = np.flatnonzero(chosen)
    if not len(faces):
        return []
    rows = np.repeat(np.arange(len(faces)), 3)
    links = coo_array((np.ones(len(rows)), (rows, edge_of_half[faces].ravel()))).tocsr()
    number, part = connected_components(links @ links.T, directed=False)
    return [faces[part == one] for one in range(number)]


def _lower_median(values: Array) -> float:
    return float(np.sort(values)[(len(values) - 1) // 2])


def _largest_opening(vertices: Array, edges: Array, edge_of_half: Array, uses: Array) -> float:
    """The largest area inside a closed group of edges that removing these faces lays bare."""
    edge, count = np.unique(edge_of_half, return_counts=True)
    rim = edges[edge[(count == 1) & (uses[edge] != 1)]]
    if not len(rim):
        return 0.0
    corners, index = np.unique(rim, return_inverse=True)
    index = index.reshape(-1, 2)
    links = coo_array((np.ones(len(index)), (index[:, 0], index[:, 1])), shape=2 * (len(corners),))
    number, group = connected_components(links, directed=False)
    group_of_edge = group[index[:, 0]]
    a, b = vertices[rim[:, 0]], vertices[rim[:, 1]]
    largest = 0.0
    for one in range(number):
        mine = group_of_edge == one
        if (np.bincount(index[mine].ravel())[index[mine]] != 2).any():
            continue  # an open line encloses nothing
        centre = (a[mine] + b[mine]).mean(0) / 2
        doubled = np.linalg.norm(np.cross(a[mine] - centre, b[mine] - centre), axis=1)
        largest = max(largest, float(doubled.sum() / 2))
    return largest
