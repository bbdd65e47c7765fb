"""Close the small holes of a manifold mesh with patches that follow the surface around them.

Narrow and tiny holes are sewn up by cutting off ears, without new vertices. Wider ones get new
vertices, as dense as the border is, which are then relaxed until the patch continues the surface
around it.

N vertices, M faces, K loops, n border vertices of one loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onelook.asset.borders import Loops, border_loops
from onelook.asset.fairing import fair
from onelook.asset.manifold import Separated
from onelook.asset.patches import Patch, planar_patch, ring_patch, sew, trim
from onelook.asset.topology import Edges, components, half_edge_heads, sheets
from onelook.asset.winding import sheet_volumes

Array = np.ndarray

SEWN_UP_TO = 8  # border edges; beyond, a faired patch, unless the hole is a crooked slit
SLIT = 0.2  # of the compactness 4 pi area / perimeter^2, which is 1 for a circle


@dataclass(frozen=True)
class Filled:
    """A mesh with its small holes closed.

    vertices (N, 3) float32, faces (M, 3) int32, the old ones first; where fans of faces met in a
    point of a hole they are joined. filled, kept: how many holes were closed, how many left open.
    """

    vertices: Array
    faces: Array
    filled: int
    kept: int


def fill_holes(mesh: Separated, hole_edges: int, hole_share: float) -> Filled:
    """Close every hole of at most `hole_edges` edges and `hole_share` of its sheet's area."""
    vertices, faces, edges = mesh.vertices, mesh.faces, mesh.edges
    border = edges.boundary()
    if not len(border):
        return Filled(vertices, faces, 0, 0)
    loops = border_loops(faces, border, mesh.origin)
    small = np.flatnonzero(_is_small(vertices, faces, edges, loops, hole_edges, hole_share))
    kept = len(loops.lengths) - len(small)
    if not len(small):
        return Filled(vertices, faces, 0, kept)
    patched_vertices, patches = _patch_all(vertices, faces, edges, loops, small)
    joined = np.concatenate([faces, *patches]).astype(np.int32)
    merge = _merges(faces, loops, small, len(patched_vertices))
    return Filled(patched_vertices, merge[joined], len(small), kept)


def _is_small(
    vertices: Array, faces: Array, edges: Edges, loops: Loops, hole_edges: int, hole_share: float
) -> Array:
    """(K,) bool: loops within both limits, and of at least three edges."""
    count, sheet = sheets(edges.paired(), len(faces))
    _, sheet_area = sheet_volumes(vertices, faces, sheet, count)
    area, _ = _loop_sizes(vertices, faces, loops)
    of_sheet = sheet[loops.half_edges[loops.start[:-1]] // 3]
    fits = area <= hole_share * sheet_area[of_sheet]
    return fits & (loops.lengths >= 3) & (loops.lengths <= hole_edges)


def _loop_sizes(vertices: Array, faces: Array, loops: Loops) -> tuple[Array, Array]:
    """(K,) area of a fan about each loop's centre, (K,) perimeter."""
    a = vertices[faces.ravel()[loops.half_edges]].astype(np.float64)
    b = vertices[half_edge_heads(faces)[loops.half_edges]].astype(np.float64)
    k = np.repeat(np.arange(len(loops.lengths)), loops.lengths)
    centre = np.stack([np.bincount(k, a[:, i]) for i in range(3)], 1) / loops.lengths[:, None]
    fan = np.linalg.norm(np.cross(a - centre[k], b - centre[k]), axis=1) / 2
    return np.bincount(k, fan), np.bincount(k, np.linalg.norm(b - a, axis=1))


def _patch_all(
    vertices: Array, faces: Array, edges: Edges, loops: Loops, small: Array
) -> tuple[Array, list[Array]]:
    """Patches of the loops `small` -> all vertices, and a list of face arrays."""
    tails = faces.ravel()
    triangles = small[loops.lengths[small] == 3]
    corners = tails[loops.half_edges[loops.start[triangles][:, None] + [2, 1, 0]]]
    sewn, grown, borders = [corners.reshape(-1, 3)], [], []
    area, perimeter = _loop_sizes(vertices, faces, loops)
    is_slit = 4 * np.pi * area < SLIT * perimeter**2
    known = _KnownEdges(edges)
    count = len(vertices)
    for k in small[loops.lengths[small] > 3]:
        polygon = tails[loops.loop(k)][::-1]
        if len(polygon) > SEWN_UP_TO:
            corners, stay = trim(vertices[polygon], known.among(polygon))
            sewn.append(polygon[corners])
            polygon = polygon[stay]
        patch = _patch_with_new_vertices(vertices, polygon, known, is_slit[k])
        if patch is None:
            sewn.append(polygon[sew(vertices[polygon], known.among(polygon))])
            continue
        index = np.concatenate([polygon, np.arange(count, count + patch.added)])
        grown.append(index[patch.faces])
        borders.append(polygon)
        count += patch.added
    if grown:
        around = np.concatenate([faces, *sewn])
        vertices = fair(vertices, around, np.concatenate(grown), np.concatenate(borders), count)
    return vertices, sewn + grown


def _patch_with_new_vertices(
    vertices: Array, polygon: Array, known: _KnownEdges, is_slit: bool
) -> Patch | None:
    """The patch that suits a polygon's size and shape; None where sewing does."""
    if len(polygon) <= SEWN_UP_TO:
        return None
    patch = planar_patch(vertices[polygon], known.among(polygon))
    if patch is None and not is_slit:
        patch = ring_patch(len(polygon))
    return patch


class _KnownEdges:
    """Answers whether two vertices are joined by an edge of the mesh."""

    def __init__(self, edges: Edges):
        self._stride = int(edges.ends.max()) + 1
        self._keys = edges.ends[:, 0].astype(np.int64) * self._stride + edges.ends[:, 1]

    def among(self, polygon: Array) -> Callable[[int, int], bool]:
        """The question for two places in `polygon`."""
        names = polygon.tolist()

        def is_taken(i: int, j: int) -> bool:
            a, b = names[i], names[j]
            key = min(a, b) * self._stride + max(a, b)
            place = int(np.searchsorted(self._keys, key))
            return place < len(self._keys) and int(self._keys[place]) == key

        return is_taken


def _merges(faces: Array, loops: Loops, small: Array, count: int) -> Array:
    """(count,) int32: the vertex each vertex becomes when filled loops join copies of one point."""
    merge = np.arange(count, dtype=np.int32)
    tails, heads = faces.ravel(), half_edge_heads(faces)
    first = loops.half_edges
    after = np.arange(len(first)) + 1
    after[loops.start[1:] - 1] = loops.start[:-1]
    arrives, leaves = heads[first], tails[first[after]]
    inside = np.zeros(len(loops.lengths), bool)
    inside[small] = True
    apart = np.flatnonzero((arrives != leaves) & np.repeat(inside, loops.lengths))
    if len(apart):
        _, label = components(np.stack([arrives[apart], leaves[apart]], 1), count)
        lowest = np.full(int(label.max()) + 1, count, np.int32)
        np.minimum.at(lowest, label, merge)
        merge = lowest[label]
    return merge
