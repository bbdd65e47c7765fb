"""The material of a surface point, from the attributes of the voxels around it.

Sparse trilinear sampling: of the eight voxels whose centres surround a point those that are active
count, by their trilinear weights over the sum of these. After flex_gemm's grid_sample_3d, as
microsoft/TRELLIS.2 bakes with it. A point with no active voxel around it, as on the patch of a
closed hole, takes the nearest active one.

N voxels, P points, C channels, R voxels per axis, K blocks.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import warp as wp
from scipy.spatial import cKDTree

from onelook.kernels import default_device, launch
from onelook.surface import Material

Array = np.ndarray

COLOR, METALLIC, ROUGHNESS, ALPHA = slice(0, 3), 3, 4, 5
CHANNELS = 6
_SIDE = wp.constant(8)  # voxels of a block
_LEAST_WEIGHT = wp.constant(1.0e-12)


class VoxelTable:
    """Finds the row of a voxel: a table of blocks, and one of voxels for every block in use.

    Two reads for each voxel, and memory that grows with the surface: about 32 bytes per voxel.
    """

    def __init__(self, coords: Array, resolution: int, device: str):
        """coords (N, 3) integer, each once; those outside 0..R - 1 are never found."""
        kept = ((coords >= 0) & (coords < resolution)).all(1)
        rows = np.flatnonzero(kept).astype(np.int32)
        places = coords[kept].astype(np.int64)
        size = -(-resolution // _SIDE)
        block = ((places // _SIDE) @ [size * size, size, 1]).astype(np.int64)
        within = (places % _SIDE) @ [_SIDE * _SIDE, _SIDE, 1]
        used = np.zeros(size**3, bool)
        used[block] = True
        number = np.full(size**3, -1, np.int32)
        number[used] = np.arange(used.sum(), dtype=np.int32)
        table = np.full(max(int(used.sum()), 1) * _SIDE**3, -1, np.int32)
        table[number[block].astype(np.int64) * _SIDE**3 + within] = rows
        self.blocks = wp.array(number, dtype=wp.int32, device=device)
        self.voxels = wp.array(table.reshape(-1, _SIDE**3), dtype=wp.int32, device=device)
        self.resolution = resolution


class VoxelAttributes:
    """Features of active voxels, which can be sampled anywhere in the grid."""

    def __init__(self, coords: Array, feats: Array, resolution: int, device: str | None = None):
        """coords (N, 3) integer 0..R - 1, each once; feats (N, C) float; device "cpu" or "cuda:N",
        None for the best. Raises ValueError when there is not one row for each voxel.
        """
        if coords.ndim != 2 or coords.shape[1] != 3 or len(coords) != len(feats) or not len(feats):
            raise ValueError(
                f"coords must be (N, 3) and feats (N, C) with N > 0, got {coords.shape} and"
                f" {feats.shape}"
            )
        self.device = device or default_device()
        self._coords = np.ascontiguousarray(coords, np.int32)
        self._feats = np.ascontiguousarray(feats, np.float32)
        self._table = VoxelTable(self._coords, resolution, self.device)
        self._on_device = wp.array(self._feats, dtype=wp.float32, device=self.device)

    def sample(self, points: Array) -> tuple[Array, Array]:
        """points (P, 3) float, voxel i covering i to i + 1 -> trilinear feats (P, C) float32, and
        (P,) bool: whether a point has any active voxel around it; without, its feats are 0.
        """
        places = wp.array(np.ascontiguousarray(points, np.float32), dtype=wp.vec3, device="cpu")
        result = wp.empty((len(points), self._feats.shape[1]), dtype=wp.float32, device=self.device)
        weight = wp.empty(len(points), dtype=wp.float32, device=self.device)
        table = self._table
        inputs = [places.to(self.device), table.blocks, table.voxels, table.resolution]
        launch(_trilinear, len(points), [*inputs, self._on_device, result, weight], self.device)
        return result.numpy(), weight.numpy() > _LEAST_WEIGHT

    def nearest(self, points: Array) -> Array:
        """points (P, 3) float -> feats (P, C) of the voxels whose centres are nearest."""
        return self._feats[self._tree.query(points, workers=-1)[1]]

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self._coords + 0.5, balanced_tree=False, compact_nodes=False)


class VoxelAppearance:
    """Voxels with base colour, metallic, roughness and alpha as an `Appearance`."""

    def __init__(
        self,
        coords: Array,
        attributes: Array,
        resolution: int,
        voxels_from_canonical: Array,
        device: str | None = None,
    ):
        """coords (N, 3) integer 0..R - 1, each once; attributes (N, 6) float 0..1: base colour
        (sRGB-encoded), metallic, roughness, alpha; voxels_from_canonical (4, 4): see
        `Frame.voxels_from_canonical`. Raises ValueError for other shapes.
        """
        if attributes.ndim != 2 or attributes.shape[1] != CHANNELS:
            raise ValueError(f"attributes must be (N, {CHANNELS}), got {attributes.shape}")
        self._attributes = VoxelAttributes(coords, attributes, resolution, device)
        self._voxels_from_canonical = np.asarray(voxels_from_canonical, np.float64)

    def sample(self, points: Array, normals: Array) -> Material:
        """points (P, 3) float32, canonical space -> Material of P points; normals do not matter."""
        matrix = self._voxels_from_canonical
        places = points @ matrix[:3, :3].T + matrix[:3, 3]  # float64: R is up to 1536
        rows, is_found = self._attributes.sample(places)
        if len(missed := np.flatnonzero(~is_found)):
            rows[missed] = self._attributes.nearest(places[missed])
        rows = np.clip(rows, 0.0, 1.0, out=rows)
        return Material(
            base_color=np.ascontiguousarray(rows[:, COLOR]),
            alpha=np.ascontiguousarray(rows[:, ALPHA]),
            metallic=np.ascontiguousarray(rows[:, METALLIC]),
            roughness=np.ascontiguousarray(rows[:, ROUGHNESS]),
        )


@wp.func
def _row_of(
    blocks: wp.array(dtype=wp.int32),
    voxels: wp.array(dtype=wp.int32, ndim=2),
    resolution: int,
    x: int,
    y: int,
    z: int,
) -> int:
    """The row of a voxel, -1 where it is not active."""
    if x < 0 or y < 0 or z < 0 or x >= resolution or y >= resolution or z >= resolution:
        return -1
    size = (resolution + _SIDE - 1) / _SIDE
    block = blocks[((x / _SIDE) * size + y / _SIDE) * size + z / _SIDE]
    if block < 0:
        return -1
    return voxels[block, ((x % _SIDE) * _SIDE + y % _SIDE) * _SIDE + z % _SIDE]


@wp.kernel(enable_backward=False)
def _trilinear(
    first: int,
    points: wp.array(dtype=wp.vec3),
    blocks: wp.array(dtype=wp.int32),
    voxels: wp.array(dtype=wp.int32, ndim=2),
    resolution: int,
    feats: wp.array(dtype=wp.float32, ndim=2),
    result: wp.array(dtype=wp.float32, ndim=2),
    total: wp.array(dtype=wp.float32),
):
    """Weighted mean of the active voxels around each point, and the sum of the weights."""
    i = first + wp.tid()
    channels = feats.shape[1]
    for c in range(channels):
        result[i, c] = 0.0
    total[i] = 0.0
    place = points[i] - wp.vec3(0.5, 0.5, 0.5)
    # far outside, also where an integer would overflow, and NaN
    far = wp.float32(resolution) + 1.0
    if not (wp.min(place) > -2.0 and wp.max(place) < far):
        return
    x = int(wp.floor(place[0]))
    y = int(wp.floor(place[1]))
    z = int(wp.floor(place[2]))
    fx = place[0] - wp.float32(x)
    fy = place[1] - wp.float32(y)
    fz = place[2] - wp.float32(z)
    weights = wp.float32(0.0)
    for corner in range(8):
        dx = corner >> 2
        dy = (corner >> 1) & 1
        dz = corner & 1
        row = _row_of(blocks, voxels, resolution, x + dx, y + dy, z + dz)
        if row >= 0:
            wx = wp.where(dx == 1, fx, 1.0 - fx)
            wy = wp.where(dy == 1, fy, 1.0 - fy)
            wz = wp.where(dz == 1, fz, 1.0 - fz)
            weight = wx * wy * wz
            weights += weight
            for c in range(channels):
                result[i, c] = result[i, c] + weight * feats[row, c]
    for c in range(channels):
        result[i, c] = result[i, c] / wp.max(weights, _LEAST_WEIGHT)
    total[i] = weights
