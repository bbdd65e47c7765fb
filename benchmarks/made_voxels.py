"""Occupied voxels at the usual counts, and what a mesh decoder could say of them: a torus knot.

N voxels, R resolution, P points.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from onelook.isosurface.cube_cases import CORNER_OFFSETS
from trellis_backend.extract_mesh import CHANNELS, COLOR, DEFORM, SDF, WEIGHTS

Array = np.ndarray
TUBE = 0.075  # radius, of a knot that spans about 0.8


def knot_shell(count: int, resolution: int) -> Array:
    """The cells nearest to the surface: (count, 3) int32, ascending by x, y, z."""
    axis = (np.arange(resolution) + 0.5) / resolution - 0.5
    centres = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    nearest = np.argsort(np.abs(knot_distance(centres)), kind="stable")[:count]
    places = np.unravel_index(np.sort(nearest), (resolution,) * 3)
    return np.stack(places, 1).astype(np.int32)


def knot_features(coords: Array, resolution: int) -> Array:
    """Features of TRELLIS's mesh decoder for voxels (N, 3) -> (N, 101) float32: the distance to the
    knot, and seeded noise for deformation, weights and colours."""
    feats = np.random.default_rng(1).standard_normal((len(coords), CHANNELS), np.float32)
    feats[:, DEFORM] *= 0.3
    feats[:, WEIGHTS] *= 0.3
    feats[:, COLOR] *= 0.5
    corners = (coords[:, None].astype(np.int64) + CORNER_OFFSETS).reshape(-1, 3)
    places, inverse = np.unique(corners @ [1 << 20, 1 << 10, 1], return_inverse=True)
    points = np.stack([places >> 20, places >> 10 & 1023, places & 1023], 1) / resolution - 0.5
    feats[:, SDF] = knot_distance(points).astype(np.float32)[inverse].reshape(-1, 8)
    return feats


def knot_distance(points: Array) -> Array:
    """Signed distance to the tube around the (2, 3) knot: (P, 3), in -0.5..0.5 -> (P,)."""
    t = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    ring = 0.27 + 0.11 * np.cos(3 * t)
    curve = np.stack([ring * np.cos(2 * t), ring * np.sin(2 * t), 0.14 * np.sin(3 * t)], 1)
    return cKDTree(curve).query(points, workers=-1)[0] - TUBE
