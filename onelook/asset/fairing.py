"""Relax new vertices until their patch continues the surface around it.

The patch becomes a discrete thin plate: the mean curvature, squared, over the patch and its border
is least (Botsch and Kobbelt, "An Intuitive Framework for Real-Time Freeform Modeling", 2004,
section 3), with the cotangent Laplacian (Pinkall and Polthier, "Computing Discrete Minimal Surfaces
and Their Conjugates", 1993), which does not mind how the patch is cut into triangles.

N old vertices, F faces of patches, n vertices of patches and the faces around them.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import splu

from onelook.asset.topology import lengths

Array = np.ndarray

SOLVES = 3  # each with the shape of the last; the first shape is that of a soap film
LEAST_WEIGHT, MOST_WEIGHT = 0.01, 10.0  # cotangents are kept within, so that slivers do no harm


def fair(vertices: Array, faces: Array, patch: Array, border: Array, count: int) -> Array:
    """Place the new vertices of patches -> all vertices (count, 3) float32, old ones unchanged.

    vertices (N, 3) float32, faces (M, 3): the mesh; patch (F, 3): faces of all patches, whose new
    vertices are N..count-1; border: the vertices around the patches.
    """
    on_border = np.zeros(count, bool)
    on_border[border] = True
    near = on_border[faces[:, 0]] | on_border[faces[:, 1]] | on_border[faces[:, 2]]
    local, index = np.unique(np.concatenate([patch, faces[near]]), return_inverse=True)
    triangles = index.reshape(-1, 3)
    is_new = local >= len(vertices)
    bends = is_new | on_border[local]
    points = np.zeros((len(local), 3))
    points[~is_new] = vertices[local[~is_new]]
    film = _stiffness(triangles, np.ones((len(triangles), 3)), len(local))[is_new]
    points[is_new] = splu(film[:, is_new].tocsc()).solve(-(film[:, ~is_new] @ points[~is_new]))
    for _ in range(SOLVES):
        points[is_new] = _thin_plate(triangles, points, is_new, bends)
    return np.concatenate([vertices, points[is_new].astype(np.float32)])


def _thin_plate(triangles: Array, points: Array, is_new: Array, bends: Array) -> Array:
    """New positions (K, 3) with the least squared curvature at the vertices where `bends` (n,)."""
    cotangents, areas = _cotangents(triangles, points)
    stiffness = _stiffness(triangles, cotangents, len(points))[bends]
    share = np.bincount(triangles.ravel(), np.repeat(areas / 3, 3), len(points))[bends]
    weighted = diags(1 / np.maximum(share, 1e-3 * share.mean())) @ stiffness
    unknown = stiffness[:, is_new]
    system = (unknown.T @ weighted[:, is_new]).tocsc()
    return splu(system).solve(-(unknown.T @ (weighted[:, ~is_new] @ points[~is_new])))


def _cotangents(triangles: Array, points: Array) -> tuple[Array, Array]:
    """(F, 3) cotangent of the angle at each corner, within bounds, and (F,) areas."""
    corners = points[triangles]
    doubled = lengths(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    cotangents = np.empty(triangles.shape)
    for k in range(3):
        a = corners[:, (k + 1) % 3] - corners[:, k]
        b = corners[:, (k + 2) % 3] - corners[:, k]
        cotangents[:, k] = np.einsum("ij,ij->i", a, b) / np.maximum(doubled, 1e-30)
    return np.clip(cotangents, LEAST_WEIGHT, MOST_WEIGHT), doubled / 2


def _stiffness(triangles: Array, weights: Array, size: int) -> csr_matrix:
    """(size, size) Laplacian: the weight of a corner (F, 3) pulls on the edge opposite to it."""
    tails, heads = triangles[:, [1, 2, 0]].ravel(), triangles[:, [2, 0, 1]].ravel()
    half = weights.ravel() / 2
    rows = np.concatenate([tails, heads, tails, heads])
    columns = np.concatenate([heads, tails, tails, heads])
    values = np.concatenate([-half, -half, half, half])
    return coo_matrix((values, (rows, columns)), shape=(size, size)).tocsr()
