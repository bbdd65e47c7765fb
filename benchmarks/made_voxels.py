"""Occupied voxels at the usual counts: the cells nearest to the surface of a torus knot.

N voxels, R resolution, P points.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

Array = np.ndarray
TUBE = 0.075  # radius, of a knot that spans about 0.8


def knot_shell(count: int, resolution: int) -> Array:
    """(count, 3) int32, ascending by x, y, z: as TRELLIS's structure has them."""
    axis = (np.arange(resolution) + 0.5) / resolution - 0.5
    centres = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    nearest = np.argsort(np.abs(knot_distance(centres)), kind="stable")[:count]
    places = np.unravel_index(np.sort(nearest), (resolution,) * 3)
    return np.stack(places, 1).astype(np.int32)


def knot_distance(points: Array) -> Array:
    """Signed distance to the tube around the (2, 3) knot: (P, 3), in -0.5..0.5 -> (P,)."""
    t = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    ring = 0.27 + 0.11 * np.cos(3 * t)
    curve = np.stack([ring * np.cos(2 * t), ring * np.sin(2 * t), 0.14 * np.sin(3 * t)], 1)
    return cKDTree(curve).query(points, workers=-1)[0] - TUBE
