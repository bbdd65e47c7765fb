"""Normals of a mesh whose file has none: smooth over round shapes, sharp at their edges.

M faces.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onelook.asset.normals import face_normals
from onelook.asset.topology import weld_index

Array = np.ndarray
CREASE_DEGREES = 40.0  # between two faces: an edge sharper than this stays an edge


def corner_normals(vertices: Array, faces: Array, crease_degrees: float = CREASE_DEGREES) -> Array:
    """A unit normal at each corner of each face: (M, 3, 3) float32.

    vertices (N, 3), faces (M, 3) counter-clockwise. Corners at one position share their mean
    normal, by area, where a chain of faces round it leads from one to the other over no edge that
    is sharper than crease_degrees. A face without area gets +Y.
    """
    welded = weld_index(vertices)[0][faces]  # (M, 3)
    normals, areas = face_normals(vertices, faces)
    links = _smooth_links(welded, normals, np.cos(np.radians(crease_degrees)))
    count = 3 * len(faces)
    graph = coo_array((np.ones(len(links), bool), tuple(links.T)), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    weighted = np.repeat(normals * areas[:, None], 3, axis=0)  # one row per corner
    sums = np.stack([np.bincount(group, column) for column in weighted.T], axis=1)
    lengths = np.linalg.norm(sums, axis=1)
    sums[lengths < 1e-30] = (0, 1, 0)
    sums /= np.where(lengths < 1e-30, 1, lengths)[:, None]
    return sums[group].astype(np.float32).reshape(-1, 3, 3)


def _smooth_links(welded: Array, normals: Array, least_cosine: float) -> Array:
    """(K, 2) pairs of corners, 3 * face + corner, that lie on two sides of a smooth edge."""
    corner = np.arange(welded.size)
    onward = corner - corner % 3 + (corner + 1) % 3  # the next corner of the same face
    start, end = welded.ravel()[corner], welded.ravel()[onward]
    key = np.minimum(start, end) * np.int64(welded.max() + 1) + np.maximum(start, end)
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[order][1:] == key[order][:-1])
    one, other = order[same], order[same + 1]
    smooth = (normals[one // 3] * normals[other // 3]).sum(1) >= least_cosine
    one, other = one[smooth], other[smooth]
    opposed = start[one] == end[other]  # as neighbours that agree in winding run
    first = np.where(opposed, onward[other], other)
    second = np.where(opposed, other, onward[other])
    return np.concatenate([np.stack([one, first], 1), np.stack([onward[one], second], 1)])
