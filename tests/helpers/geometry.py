"""Claims about triangle meshes, worked out the obvious way."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def edge_uses(faces: np.ndarray) -> np.ndarray:
    """How many faces each edge has."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1).astype(np.int64)
    return np.unique(edges[:, 0] << 32 | edges[:, 1], return_counts=True)[1]


def is_closed_and_oriented(faces: np.ndarray) -> bool:
    """Every edge is walked exactly once in each direction."""
    walked = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    forth = np.sort(walked[:, 0] << 32 | walked[:, 1])
    back = np.sort(walked[:, 1] << 32 | walked[:, 0])
    return bool((np.diff(forth) > 0).all() and np.array_equal(forth, back))


def euler_characteristic(vertices: np.ndarray, faces: np.ndarray) -> int:
    assert np.array_equal(np.unique(faces), np.arange(len(vertices)))  # no stray vertex
    return len(vertices) - len(edge_uses(faces)) + len(faces)


def component_count(vertices: np.ndarray, faces: np.ndarray) -> int:
    pairs = faces[:, [0, 1, 1, 2]].reshape(-1, 2).T
    graph = coo_array((np.ones(pairs.shape[1]), tuple(pairs)), shape=(len(vertices),) * 2)
    return connected_components(graph, directed=False)[0]


def signed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = np.moveaxis(vertices[faces].astype(np.float64), 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def face_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = np.moveaxis(vertices[faces].astype(np.float64), 1, 0)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals (N, 3) float32."""
    a, b, c = np.moveaxis(vertices[faces].astype(np.float64), 1, 0)
    normals = np.cross(b - a, c - a)
    sums = np.zeros((len(vertices), 3))
    for corner in range(3):
        for axis in range(3):
            sums[:, axis] += np.bincount(faces[:, corner], normals[:, axis], len(vertices))
    return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
