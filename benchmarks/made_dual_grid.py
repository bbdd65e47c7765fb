"""Dual grids and voxel attributes made from a formula, of any resolution.

A field tells distance to a surface, negative inside. Voxels are found from coarse to fine, so the
cube is never filled. N voxels, P points, R voxels per axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Field = Callable[[Array], Array]  # points (P, 3) float32, the unit cube about 0 -> (P,) float32

CORNERS = np.array([[c >> 2, c >> 1 & 1, c & 1] for c in range(8)], np.int32)  # z fastest
_STEPS = (4, 2, 1)  # from a corner to the next one along x, y, z
_EDGES = [(axis, c) for axis in range(3) for c in range(8) if not c & _STEPS[axis]]
_COARSEST = 32
_HALF_DIAGONAL = 0.87  # of a cell, in its side


@dataclass(frozen=True)
class MadeDualGrid:
    """coords (N, 3) int32, ascending; offsets (N, 3) float32 0..1; intersected (N, 3) bool;
    split_weight (N,) float32; attributes (N, 6) float32 0..1: base colour, metallic, roughness,
    alpha.
    """

    coords: Array
    offsets: Array
    intersected: Array
    split_weight: Array
    attributes: Array
    resolution: int


def made_dual_grid(field: Field, resolution: int, steepness: float = 1.0) -> MadeDualGrid:
    """The voxels whose edges the field's zero level crosses.

    steepness: how fast the field may change, 1 for a true distance.
    """
    coords = _candidates(field, resolution, steepness)
    values = np.stack([_at_points(field, coords + corner, resolution) for corner in CORNERS], 1)
    is_inside = values < 0
    crossed = np.stack([is_inside[:, c] != is_inside[:, c + _STEPS[a]] for a, c in _EDGES], 1)
    active = crossed.any(1)
    coords, values, crossed = coords[active], values[active], crossed[active]
    total = np.zeros((len(coords), 3), np.float32)
    for number, (axis, c) in enumerate(_EDGES):
        a, b = values[:, c], values[:, c + _STEPS[axis]]
        point = np.tile(CORNERS[c].astype(np.float32), (len(coords), 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            point[:, axis] += a / (a - b)
        total += np.where(crossed[:, number, None], point, 0)
    offsets = total / crossed.sum(1, keepdims=True)
    upper = [_EDGES.index((axis, 7 - _STEPS[axis])) for axis in range(3)]
    rng = np.random.default_rng(resolution)
    return MadeDualGrid(
        coords,
        offsets.astype(np.float32),
        np.ascontiguousarray(crossed[:, upper]),
        rng.uniform(0.2, 1.5, len(coords)).astype(np.float32),
        painted((coords + np.float32(0.5)) / resolution - np.float32(0.5)),
        resolution,
    )


def painted(points: Array) -> Array:
    """Smooth attributes of points (P, 3): -> (P, 6) float32, opaque."""
    waves = np.sin(points[:, [0, 1, 2, 0, 1]] * np.float32([9, 11, 13, 5, 7]))
    values = np.concatenate([waves, np.ones((len(points), 1), np.float32)], 1)
    values[:, :5] = 0.5 + 0.45 * values[:, :5]
    return values


def torus_shell(radius: float = 0.21, tube: float = 0.09, wall: float = 0.02) -> Field:
    """A hollow torus about +Z with ripples, its wall between two skins."""

    def field(points: Array) -> Array:
        x, y, z = points[:, 0], points[:, 1], points[:, 2]
        ring = np.sqrt(x * x + y * y)
        ripple = np.float32(0.01) * np.sin(np.float32(6) * np.arctan2(y, x))
        distance = np.sqrt((ring - radius) ** 2 + z * z) - tube - ripple
        return np.maximum(distance, -(distance + np.float32(wall)))

    return field


def _candidates(field: Field, resolution: int, steepness: float) -> Array:
    """Cells that the zero level may cross, ascending: (N, 3) int32."""
    size = resolution
    while size > _COARSEST and size % 2 == 0:
        size //= 2
    axis = np.arange(size, dtype=np.int32)
    coords = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    while True:
        near = np.abs(_at_points(field, coords + np.float32(0.5), size))
        coords = coords[near <= steepness * _HALF_DIAGONAL / size]
        if size == resolution:
            break
        coords, size = (2 * coords[:, None] + CORNERS).reshape(-1, 3), 2 * size
    keys = (coords[:, 0].astype(np.int64) * size + coords[:, 1]) * size + coords[:, 2]
    return coords[np.argsort(keys)]


def _at_points(field: Field, places: Array, size: int) -> Array:
    return field(places.astype(np.float32) / np.float32(size) - np.float32(0.5))
