"""Straighten triangles that lie upside down on the surface.

Collapsing edges now and then leaves a small triangle turned over: it opposes two or three of its
neighbours, where a true crease or rim opposes at most one. Such a triangle shades black and gets a
texture from the wrong side. Moving its corners to the middle of their neighbours turns it back.

N vertices, M faces.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from onelook.asset.slivers import is_sliver
from onelook.asset.topology import Edges, face_crosses, find_edges

Array = np.ndarray

OPPOSED = -0.5  # cosine between the normals of neighbours that oppose each other
ROUNDS = 8


def upside_down(vertices: Array, faces: Array, edges: Edges) -> Array:
    """(M,) bool: faces that oppose at least two of their neighbours."""
    crosses = face_crosses(vertices, faces)
    normals = crosses / np.sqrt(np.square(crosses).sum(1, keepdims=True) + np.float32(1e-38))
    pairs = edges.paired() // 3
    opposed = pairs[(normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(1) < OPPOSED]
    return np.bincount(opposed.ravel(), minlength=len(faces)) >= 2


def unfold(vertices: Array, faces: Array, true_vertices: Array, true_faces: Array) -> Array:
    """The vertices (N, 3) float32 with the corners of upside-down faces moved, where that helps.

    faces (M, 3) int32, neighbours agreeing. true_vertices, true_faces: the surface that it should
    be; only faces that look the other way than it does count. Borders stay. The very same array
    comes back where no face is upside down.
    """
    edges = find_edges(faces)
    suspect = np.flatnonzero(upside_down(vertices, faces, edges))
    if not len(suspect):
        return vertices
    normals = _normals_nearby(vertices[faces[suspect]].mean(1), true_vertices, true_faces)
    opposed = (face_crosses(vertices, faces[suspect]) * normals).sum(1) < 0
    bad = np.zeros(len(faces), bool)
    bad[suspect[opposed]] = True
    fixed = np.zeros(len(vertices), bool)
    fixed[edges.ends[edges.uses == 1]] = True
    sound = ~(upside_down(vertices, faces, edges) | is_sliver(vertices, faces))
    for _ in range(ROUNDS):
        if not bad.any():
            break
        moving = np.zeros(len(vertices), bool)
        moving[faces[bad]] = True
        moved = _to_the_middle(vertices, edges, moving & ~fixed)
        worse = np.zeros(len(vertices), bool)
        worse[faces[sound & _spoilt(moved, faces, edges)]] = True
        moved[worse] = vertices[worse]
        spoilt = _spoilt(moved, faces, edges)
        if (sound & spoilt).any() or (bad & spoilt).sum() >= bad.sum():
            break
        vertices, bad = moved, bad & spoilt
    return vertices


def _spoilt(vertices: Array, faces: Array, edges: Edges) -> Array:
    """(M,) bool: faces that are upside down or without height."""
    return upside_down(vertices, faces, edges) | is_sliver(vertices, faces)


def _normals_nearby(points: Array, vertices: Array, faces: Array, nearest: int = 8) -> Array:
    """(P, 3) the mean normal of the faces of a mesh that are nearest to points (P, 3)."""
    low, high = vertices.min(0), vertices.max(0)
    cell = max(float((high - low).max()), 1e-30) / 32
    centres = (vertices[faces[:, 0]] + vertices[faces[:, 1]] + vertices[faces[:, 2]]) / 3
    is_near = np.zeros((36, 36, 36), bool)  # only faces in cells around the points are searched
    home = np.clip(((points - low) / cell).astype(np.int64) + 1, 1, 34)
    for step in np.ndindex(3, 3, 3):
        is_near[tuple((home + step - 1).T)] = True
    place = np.clip(((centres - low) / cell).astype(np.int64) + 1, 0, 35)
    chosen = np.flatnonzero(is_near[tuple(place.T)])
    if not len(chosen):
        return np.zeros((len(points), 3))
    count = min(nearest, len(chosen))
    _, index = cKDTree(centres[chosen]).query(points, k=count)
    crosses = face_crosses(vertices, faces[chosen])
    return crosses[index.reshape(len(points), count)].sum(1)


def _to_the_middle(vertices: Array, edges: Edges, moving: Array) -> Array:
    """Every moving vertex at the mean of its neighbours, all at once."""
    ends = np.concatenate([edges.ends, edges.ends[:, ::-1]])
    ends = ends[moving[ends[:, 0]]]
    index = np.flatnonzero(moving)
    row = np.searchsorted(index, ends[:, 0])
    count = np.bincount(row, minlength=len(index))
    moved = vertices.copy()
    for axis in range(3):
        total = np.bincount(row, vertices[ends[:, 1], axis].astype(np.float64), len(index))
        moved[index, axis] = total / np.maximum(count, 1)
    return moved
