"""Kernels over the faces and corners of a mesh in host memory; `topology` and others call them.

M faces; half-edges are numbered as in `topology`.
"""

from __future__ import annotations

import warp as wp


@wp.kernel
def cross_products(
    first: int,
    vertices: wp.array(dtype=wp.vec3),
    faces: wp.array2d(dtype=wp.int32),
    crosses: wp.array(dtype=wp.vec3),
):
    """The normal of each face, as long as twice its area."""
    f = first + wp.tid()
    a = vertices[faces[f, 0]]
    crosses[f] = wp.cross(vertices[faces[f, 1]] - a, vertices[faces[f, 2]] - a)


@wp.kernel
def heights_over_longest_edge(
    first: int,
    vertices: wp.array(dtype=wp.vec3),
    faces: wp.array2d(dtype=wp.int32),
    heights: wp.array(dtype=wp.float32),
):
    """The height of each face over its longest edge; 0 where all its corners coincide."""
    f = first + wp.tid()
    a = vertices[faces[f, 0]]
    b = vertices[faces[f, 1]]
    c = vertices[faces[f, 2]]
    longest = wp.max(wp.max(wp.length(b - a), wp.length(c - b)), wp.length(a - c))
    height = wp.float32(0.0)
    if longest > 0.0:
        height = wp.length(wp.cross(b - a, c - a)) / longest
    heights[f] = height


@wp.func
def _before(half_edge: int):
    """The half-edge before this one in its face."""
    return half_edge - half_edge % 3 + (half_edge + 2) % 3


@wp.func
def _after(half_edge: int):
    """The half-edge after this one in its face."""
    return half_edge - half_edge % 3 + (half_edge + 1) % 3


@wp.kernel
def lowest_of_fan(first: int, twin: wp.array(dtype=wp.int32), is_lowest: wp.array(dtype=wp.uint8)):
    """Mark one corner of every fan of faces around a vertex: the lowest one.

    twin[h] is the half-edge that runs along h in the opposite direction, -1 at a border. The corner
    of half-edge h is the one it starts from.
    """
    start = first + wp.tid()
    lowest = wp.uint8(1)
    corner = start
    turns_back = wp.int32(1)  # until the walk has come round to where it began
    while turns_back == 1:
        corner = twin[_before(corner)]
        if corner < 0:
            break
        if corner <= start:
            turns_back = wp.int32(0)
            if corner < start:
                lowest = wp.uint8(0)
    if corner < 0:  # an open fan: the other way too
        corner = twin[start]
        while corner >= 0:
            corner = _after(corner)
            if corner < start:
                lowest = wp.uint8(0)
                break
            corner = twin[corner]
    is_lowest[start] = lowest


@wp.func
def _root(parent: wp.array(dtype=wp.int32), item: int):
    """The root above an item; on the way every second parent is skipped (path halving)."""
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


@wp.kernel
def unite(first: int, links: wp.array2d(dtype=wp.int32), parent: wp.array(dtype=wp.int32)):
    """Union-find over all links; a single item of work, for its steps build on each other.

    Every root is the lowest item of its tree (Tarjan, "Efficiency of a Good But Not Linear Set
    Union Algorithm", 1975, without ranks: halving alone keeps the trees flat in practice).
    """
    for i in range(links.shape[0]):
        a = _root(parent, links[i, 0])
        b = _root(parent, links[i, 1])
        if a < b:
            parent[b] = a
        else:
            parent[a] = b


@wp.kernel
def find_roots(first: int, parent: wp.array(dtype=wp.int32), root: wp.array(dtype=wp.int32)):
    """The root of every item, once all links are united."""
    item = first + wp.tid()
    above = parent[item]
    while parent[above] != above:
        above = parent[above]
    root[item] = above
