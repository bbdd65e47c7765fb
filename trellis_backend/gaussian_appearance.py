"""The colour of a surface point, asked of the Gaussians themselves instead of pictures of them.

A picture mixes the Gaussians along each ray, front to back. The colour of a point is worked out the
same way along one ray, straight down its normal: every Gaussian that the ray meets near the point
counts with its opacity, its kernel at the ray and what those before it let through. Against a mean
over the nearest Gaussians this has two virtues: what hides beneath the surface stays hidden, and a
mesh that lies a little above or below the Gaussians gets the same colours.

N Gaussians, P points.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import warp as wp
from scipy.spatial import cKDTree
from torch import Tensor

from onelook.errors import SurfaceError
from onelook.kernels import default_device, launch
from onelook.surface import Material
from trellis_backend.gaussians import Gaussians

Array = np.ndarray

_LEAST_ALPHA = wp.constant(1.0 / 255.0)  # fainter Gaussians are left out; as the rasteriser does
_MOST_ALPHA = wp.constant(0.99)
IN_FRONT, BEHIND = 1.0, 1.5  # of the reach: where along the normal Gaussians are looked for
_SLICES = wp.constant(20)  # the ray's pieces; within one, Gaussians are mixed without order
_TOO_FAR = wp.constant((2.0 + 0.75**0.5) ** 2)  # in cells: a reach and half a diagonal, squared
_MOST_CELLS = 128  # of a grid, per axis
_NEIGHBOURS = 8  # for points whose ray meets nothing
_Slices = wp.types.matrix(shape=(_SLICES, 5), dtype=wp.float32)


@wp.struct
class _Grids:
    """Gaussians by size, then by cell: those of cell c of grid g are start[base[g] + c] up to
    start[base[g] + c + 1]. Those of a grid reach no farther than two of its cells.
    """

    low: wp.array(dtype=wp.vec3)
    cell: wp.array(dtype=wp.float32)
    size: wp.array(dtype=wp.vec3i)
    base: wp.array(dtype=wp.int32)
    start: wp.array(dtype=wp.int32)
    sphere: wp.array(dtype=wp.vec4)  # centre, and the square of how far the Gaussian reaches
    whiten: wp.array(dtype=wp.mat33)  # space -> the Gaussian's own axes in standard deviations
    paint: wp.array(dtype=wp.vec4)  # colour, opacity


class GaussianAppearance:
    """Gaussians as an `Appearance`: opaque and matte, coloured as seen along the normal."""

    def __init__(
        self,
        gaussians: Gaussians,
        reach: float,
        roughness: float = 0.9,
        device: str | None = None,
    ):
        """gaussians in canonical space (see `Gaussians.moved`); reach: about the side of a voxel,
        in canonical units: how far from the surface its Gaussians may lie. Raises SurfaceError
        when all are transparent.
        """
        self.device = device or default_device()
        self.reach = float(reach)
        self.roughness = roughness
        opacities = _numpy(gaussians.opacities)
        seen = opacities > _LEAST_ALPHA
        if not seen.any():
            raise SurfaceError(
                "every Gaussian is transparent, so none can colour the surface; try another seed"
            )
        self._positions = _numpy(gaussians.positions)[seen]
        self._opacities = opacities[seen]
        self._colors = np.clip(_numpy(gaussians.colors)[seen], 0.0, 1.0)
        scales = _numpy(gaussians.scales)[seen]
        axes = _numpy(gaussians.rotation_matrices)[seen]
        whiten = np.swapaxes(axes, 1, 2) / scales[:, :, None]
        # beyond this distance from its centre a Gaussian's alpha is below the least
        radii = scales.max(1) * np.sqrt(2 * np.log(self._opacities / _LEAST_ALPHA))
        self._grids = self._sort(radii, whiten)

    def sample(self, points: Array, normals: Array) -> Material:
        """points and unit normals (P, 3) float32, canonical space -> Material of P points."""
        arrays = [
            wp.array(np.ascontiguousarray(array, np.float32), dtype=wp.vec3, device=self.device)
            for array in (points, normals)
        ]
        result = wp.empty(len(points), dtype=wp.vec4, device=self.device)
        inputs = [*arrays, self._grids, IN_FRONT * self.reach, BEHIND * self.reach, result]
        launch(_look_along_normals, len(points), inputs, self.device)
        rows = result.numpy()
        colors = np.ascontiguousarray(rows[:, :3])
        if len(missed := np.flatnonzero(rows[:, 3] < _LEAST_ALPHA)):
            colors[missed] = self._nearest(points[missed])
        return Material.matte(colors, self.roughness)

    def _nearest(self, points: Array) -> Array:
        """Mean colour of the nearest Gaussians, weighted by opacity over distance squared."""
        count = min(_NEIGHBOURS, len(self._positions))
        distance, rows = self._tree.query(points, k=np.arange(1, count + 1), workers=-1)
        weights = self._opacities[rows] / (distance**2 + 1e-12)
        total = (weights[..., None] * self._colors[rows]).sum(1)
        return total / weights.sum(1, keepdims=True)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self._positions)

    def _sort(self, radii: Array, whiten: Array) -> _Grids:
        """Gaussians by size and cell, with one grid for each doubling of the size."""
        levels = np.ceil(np.log2(np.maximum(radii / self.reach, 1.0))).astype(int)
        lows, cells, sizes, bases, starts, rows = [], [], [], [], [], []
        for level in np.unique(levels):
            members = np.flatnonzero(levels == level)
            positions = self._positions[members]
            low, extent = positions.min(0), np.ptp(positions, axis=0)
            cell = max(0.5 * self.reach * 2.0**level, extent.max() / (_MOST_CELLS - 1))
            size = np.floor(extent / cell).astype(int) + 1
            at = np.minimum(np.floor((positions - low) / cell).astype(int), size - 1)
            cell_of = np.ravel_multi_index(tuple(at.T), tuple(size))
            counts = np.bincount(cell_of, minlength=size.prod())
            bases.append(sum(map(len, starts)))
            starts.append(sum(map(len, rows)) + np.concatenate([[0], np.cumsum(counts)]))
            rows.append(members[np.argsort(cell_of, kind="stable")])
            lows.append(low)
            cells.append(cell)
            sizes.append(size)
        order = np.concatenate(rows)
        paint = np.column_stack([self._colors[order], self._opacities[order]])
        columns = {
            "low": (np.array(lows), wp.vec3),
            "cell": (np.array(cells), wp.float32),
            "size": (np.array(sizes), wp.vec3i),
            "base": (np.array(bases), wp.int32),
            "start": (np.concatenate(starts), wp.int32),
            "sphere": (np.column_stack([self._positions, radii**2])[order], wp.vec4),
            "whiten": (whiten[order], wp.mat33),
            "paint": (paint, wp.vec4),
        }
        grids = _Grids()
        for name, (values, dtype) in columns.items():
            setattr(grids, name, wp.array(values, dtype=dtype, device=self.device))
        return grids


def _numpy(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())


@wp.kernel(enable_backward=False)
def _look_along_normals(
    first: int,
    points: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    grids: _Grids,
    in_front: float,
    behind: float,
    result: wp.array(dtype=wp.vec4),
):
    """Colour and alpha of the ray from in front of each point to behind it."""
    i = first + wp.tid()
    point = points[i]
    normal = normals[i]
    slices = _Slices()  # per slice: colour and alpha, summed by alpha; what it holds back, as a log
    start = point + in_front * normal
    end = point - behind * normal
    middle = 0.5 * (start + end)
    half = 0.5 * (in_front + behind)
    for g in range(grids.low.shape[0]):
        cell = grids.cell[g]
        size = grids.size[g]
        margin = 2.0 * wp.vec3(cell, cell, cell)
        low = (wp.min(start, end) - margin - grids.low[g]) / cell
        high = (wp.max(start, end) + margin - grids.low[g]) / cell
        for x in range(wp.max(int(wp.floor(low[0])), 0), wp.min(int(high[0]) + 1, size[0])):
            for y in range(wp.max(int(wp.floor(low[1])), 0), wp.min(int(high[1]) + 1, size[1])):
                for z in range(wp.max(int(wp.floor(low[2])), 0), wp.min(int(high[2]) + 1, size[2])):
                    row = grids.base[g] + (x * size[1] + y) * size[2] + z
                    begin = grids.start[row]
                    stop = grids.start[row + 1]
                    if begin < stop:
                        aside = (
                            grids.low[g]
                            + cell * wp.vec3(float(x) + 0.5, float(y) + 0.5, float(z) + 0.5)
                            - middle
                        )
                        along = wp.clamp(wp.dot(aside, normal), -half, half)
                        if wp.length_sq(aside - along * normal) > _TOO_FAR * cell * cell:
                            stop = begin
                    for k in range(begin, stop):
                        sphere = grids.sphere[k]
                        offset = wp.vec3(sphere[0], sphere[1], sphere[2]) - point
                        height = wp.dot(offset, normal)
                        is_near = wp.dot(offset, offset) - height * height <= sphere[3]
                        if is_near and height <= in_front and height >= -behind:
                            direction = grids.whiten[k] * normal
                            away = grids.whiten[k] * offset
                            passed = wp.dot(away, direction)
                            power = wp.dot(away, away) - passed * passed / wp.dot(
                                direction, direction
                            )
                            paint = grids.paint[k]
                            alpha = wp.min(_MOST_ALPHA, paint[3] * wp.exp(-0.5 * power))
                            if alpha >= _LEAST_ALPHA:
                                s = wp.min(
                                    int((in_front - height) / (2.0 * half) * float(_SLICES)),
                                    _SLICES - 1,
                                )
                                for c in range(3):
                                    slices[s, c] = slices[s, c] + alpha * paint[c]
                                slices[s, 3] = slices[s, 3] + alpha
                                slices[s, 4] = slices[s, 4] + wp.log(1.0 - alpha)
    color = wp.vec3(0.0, 0.0, 0.0)
    passing = wp.float32(1.0)
    for s in range(_SLICES):
        if slices[s, 3] > 0.0:
            through = wp.exp(slices[s, 4])
            share = passing * (1.0 - through) / slices[s, 3]
            color += share * wp.vec3(slices[s, 0], slices[s, 1], slices[s, 2])
            passing *= through
    total = 1.0 - passing
    if total > 0.0:
        color = color / total
    result[i] = wp.vec4(color[0], color[1], color[2], total)
