"""Who is next to whom in a triangle mesh: edges, neighbours, components.

Half-edge h = 3 * face + corner runs from `faces[face, corner]` to the face's next corner; every
face has three. An edge is an unordered pair of vertices with all half-edges that run along it.

N vertices, M faces, E edges, P pairs of half-edges that share an edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp

from onelook.asset import mesh_kernels
from onelook.kernels import launch

Array = np.ndarray


@dataclass(frozen=True)
class Edges:
    """The edges of a mesh, in order of their vertices.

    ends (E, 2) int32, lower vertex first. uses (E,): half-edges of each edge, 2 on a manifold.
    The half-edges of edge e are `order[start[e] : start[e] + uses[e]]`, ascending.
    of_half (3M,): the edge of each half-edge.
    """

    ends: Array
    uses: Array
    order: Array
    start: Array
    of_half: Array

    def paired(self) -> Array:
        """(P, 2) half-edges of every edge with exactly two."""
        first = self.start[self.uses == 2]
        return np.stack([self.order[first], self.order[first + 1]], 1)

    def boundary(self) -> Array:
        """(B,) half-edges of every edge with only one, ascending."""
        return np.sort(self.order[self.start[self.uses == 1]])

    def crowded(self) -> Array:
        """(H,) half-edges of every edge with more than two, ordered by edge, then half-edge."""
        return self.order[np.repeat(self.uses > 2, self.uses)]


def find_edges(faces: Array) -> Edges:
    """All edges of faces (M, 3)."""
    tails = faces.ravel()
    heads = half_edge_heads(faces)
    count = int(faces.max()) + 1 if len(faces) else 1
    keys = np.minimum(tails, heads).astype(np.int64) * count + np.maximum(tails, heads)
    order = np.argsort(keys)
    ordered = keys[order]
    is_first = np.ones(len(keys), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    start = np.flatnonzero(is_first)
    uses = np.diff(start, append=len(keys))
    order = _settle_ties(order, start, uses)
    of_half = np.empty(len(keys), np.int32)
    of_half[order] = np.cumsum(is_first, dtype=np.int32) - 1
    first_keys = ordered[start]
    ends = np.stack([first_keys // count, first_keys % count], 1).astype(np.int32)
    return Edges(ends=ends, uses=uses, order=order, start=start, of_half=of_half)


def _settle_ties(order: Array, start: Array, uses: Array) -> Array:
    """Ascending half-edges within each edge: the sort's own order of ties varies with the CPU."""
    two = start[uses == 2]
    a, b = order[two], order[two + 1]
    order[two], order[two + 1] = np.minimum(a, b), np.maximum(a, b)
    many = uses > 2
    if many.any():
        places = np.flatnonzero(np.repeat(many, uses))
        edge = np.repeat(np.arange(len(uses)), uses)[places]
        order[places] = order[places][np.lexsort((order[places], edge))]
    return order


def edges_of_rest(edges: Edges, stays: Array) -> Edges:
    """The edges of `faces[stays]` from those of all faces: stays (M,) bool. It need not sort."""
    number = np.cumsum(stays) - 1
    order = edges.order[stays[edges.order // 3]]
    of_half = edges.of_half.reshape(-1, 3)[stays].ravel()
    uses = np.bincount(of_half, minlength=len(edges.uses))
    has_faces = uses > 0
    uses = uses[has_faces]
    return Edges(
        ends=edges.ends[has_faces],
        uses=uses,
        order=3 * number[order // 3] + order % 3,
        start=np.cumsum(uses) - uses,
        of_half=(np.cumsum(has_faces, dtype=np.int32) - np.int32(1))[of_half],
    )


def half_edge_heads(faces: Array) -> Array:
    """(3M,) vertex at which each half-edge ends."""
    return faces[:, [1, 2, 0]].ravel()


def next_half_edge(half: Array) -> Array:
    """The half-edge after this one in its face."""
    return half - half % 3 + (half + 1) % 3


def components(links: Array, count: int) -> tuple[int, Array]:
    """Connected components of `count` items joined by links (P, 2) -> number, label per item.

    Labels are numbered in the order of the components' lowest items.
    """
    items = np.arange(count, dtype=np.int32)
    parent, root = items.copy(), np.empty_like(items)
    links = np.ascontiguousarray(links, np.int32)
    on_cpu(mesh_kernels.unite, 1, links, parent)
    on_cpu(mesh_kernels.find_roots, count, parent, root)
    is_root = root == items
    return int(is_root.sum()), (np.cumsum(is_root, dtype=np.int32) - np.int32(1))[root]


def face_parts(faces: Array, vertex_count: int) -> tuple[int, Array]:
    """Parts of the mesh that share no vertex -> number of parts, part of each face (M,)."""
    links = np.concatenate([faces[:, :2], faces[:, 1:]])
    _, label = components(links, vertex_count)
    return _renumber(label[faces[:, 0]])


def sheets(pairs: Array, face_count: int) -> tuple[int, Array]:
    """Parts joined across the half-edge pairs (P, 2) -> number, sheet of each face (M,)."""
    return components(pairs // 3, face_count)


def _renumber(label: Array) -> tuple[int, Array]:
    used = np.zeros(int(label.max()) + 1, bool)
    used[label] = True
    return int(used.sum()), (np.cumsum(used) - 1)[label]


def uses_distinct(faces: Array) -> Array:
    """(M,) bool: faces with three different vertices."""
    a, b, c = faces[:, 0], faces[:, 1], faces[:, 2]
    return (a != b) & (b != c) & (c != a)


def compact(vertices: Array, faces: Array) -> tuple[Array, Array]:
    """Drop vertices that no face uses; the very same arrays where there are none."""
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    if used.all():
        return vertices, faces
    index = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return vertices[used], index[faces]


def weld_index(vertices: Array) -> tuple[Array, int]:
    """Number the distinct positions: (N, 3) -> index of each vertex's position (N,), and K."""
    bits, keys = _position_keys(vertices)
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    if not np.array_equal(bits[first][index], bits):  # two positions with one key
        rows, index = np.unique(bits, axis=0, return_inverse=True)
        return index.reshape(-1), len(rows)
    return index, len(first)


def first_at_position(vertices: Array) -> Array:
    """(N,) int32: of each vertex (N, 3) float32, the first vertex at exactly the same position."""
    own = np.arange(len(vertices), dtype=np.int32)
    bits, keys = _position_keys(vertices)
    ordered = np.sort(keys)
    repeats = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeats):
        return own
    suspects = np.flatnonzero(np.isin(keys, repeats))
    _, group = np.unique(bits[suspects], axis=0, return_inverse=True)
    first = np.full(len(suspects), len(vertices), np.int32)
    np.minimum.at(first, group.ravel(), suspects.astype(np.int32))
    own[suspects] = first[group.ravel()]
    return own


def _position_keys(vertices: Array) -> tuple[Array, Array]:
    """The bits of positions (N, 3) uint64, and a number mixed from each (N,) that few share."""
    bits = np.ascontiguousarray(vertices, np.float32) + np.float32(0)  # -0 becomes 0
    bits = bits.view(np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        keys = bits[:, 0] * np.uint64(0x9E3779B97F4A7C15)
        keys = (keys ^ (keys >> np.uint64(29)) ^ bits[:, 1]) * np.uint64(0xBF58476D1CE4E5B9)
        keys = (keys ^ (keys >> np.uint64(32)) ^ bits[:, 2]) * np.uint64(0x94D049BB133111EB)
    return bits, keys


def face_crosses(vertices: Array, faces: Array) -> Array:
    """(M, 3) float32: each face's normal, as long as twice its area."""
    crosses = np.empty((len(faces), 3), np.float32)
    on_cpu(mesh_kernels.cross_products, len(faces), _float32(vertices), _int32(faces), crosses)
    return crosses


def face_areas(vertices: Array, faces: Array) -> Array:
    """(M,) float32 areas."""
    return np.float32(0.5) * lengths(face_crosses(vertices, faces))


def face_heights(vertices: Array, faces: Array) -> Array:
    """(M,) float32: height of each face over its longest edge; 0 where all its corners coincide."""
    heights = np.empty(len(faces), np.float32)
    on_cpu(
        mesh_kernels.heights_over_longest_edge,
        len(faces),
        _float32(vertices),
        _int32(faces),
        heights,
    )
    return heights


def count_fans(face_count: int, pairs: Array) -> int:
    """How many fans of faces there are around all vertices together.

    pairs (P, 2): half-edges that run along each other in opposite directions. On a manifold mesh
    there is one fan per vertex.
    """
    twin = np.full(3 * face_count, -1, np.int32)
    twin[pairs[:, 0]], twin[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    is_lowest = np.empty(3 * face_count, np.uint8)
    on_cpu(mesh_kernels.lowest_of_fan, 3 * face_count, twin, is_lowest)
    return int(is_lowest.sum())


def lengths(rows: Array) -> Array:
    """(N,) length of each row (N, 3); quicker than a sum along the short axis."""
    return np.sqrt(np.einsum("ij,ij->i", rows, rows))


def on_cpu(kernel: wp.Kernel, count: int, *arrays: Array) -> None:
    """Launch a kernel on arrays in host memory, in place; a row of three floats is a vector."""
    launch(kernel, count, [_shared(array) for array in arrays], "cpu")


def _shared(array: Array) -> wp.array:
    is_vector = array.ndim == 2 and array.dtype == np.float32
    dtype = wp.vec3 if is_vector else wp.dtype_from_numpy(array.dtype)
    return wp.array(array, dtype=dtype, device="cpu", copy=False)


def _float32(array: Array) -> Array:
    return np.ascontiguousarray(array, np.float32)


def _int32(array: Array) -> Array:
    return np.ascontiguousarray(array, np.int32)


def is_closed(faces: Array) -> bool:
    """Whether every edge has exactly two faces, by vertex index."""
    return bool(len(faces)) and bool((find_edges(faces).uses == 2).all())
