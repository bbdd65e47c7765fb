"""The cells of a grid that a density's level passes through, found from coarse to fine.

A dense grid of 256^3 points asks a network 16.8 million times, and some hundredths of the answers
matter. Here the grid is first asked at every few points, no farther apart than the density's own
features (the texels of its planes). Blocks that the level crosses, or comes as near to as the
values around them vary, are asked at twice the resolution, and so on; at the end the crossed cells
are followed wherever they lead. The answers, the cells and their values are those of the dense
grid; only a speck that no value around it hints at could be missed.

R points per axis, N points, K cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from onelook.isosurface.cube_cases import CORNER_OFFSETS

Density = Callable[[Tensor], Tensor]  # points (N, 3) -> (N,), above 0

# A block is looked into when the level lies within this share of the range of the values around it
# from the values at its own corners. Our choice: half is what a field that bends can hide.
REACH = 0.5
_LEAST, _MOST = 1e-30, 1e30  # densities are compared by their logarithms, which are finite


@dataclass(frozen=True)
class CrossedCells:
    """cells (K, 3) int64: lowest corner of each, ascending. values (K, 8) at their corners; corner
    c has the offset (c & 1, c >> 1 & 1, c >> 2 & 1). queries: how many points were asked for.
    """

    cells: Tensor
    values: Tensor
    queries: int


def crossed_cells(density: Density, axis: Tensor, level: float, features: int) -> CrossedCells:
    """The cells of the grid axis x axis x axis with corners on both sides of the level.

    axis (R,): coordinates of the grid's points along each axis, R >= 2. level above 0; the inside
    is where density >= level. features: how many details the density can have along an axis; the
    first look is at least as dense. Works on the device of `axis`.
    """
    stride = _coarsest_stride(len(axis) - 1, features)
    places = _Places(axis, stride)
    wanted = places.all()
    values, queries = None, 0
    while stride > 1:
        coords = torch.nonzero(wanted)
        answers = density(places.at(coords, stride))
        queries += len(coords)
        guide = (answers.clamp(_LEAST, _MOST) / level).log()
        values = guide.new_empty(wanted.shape) if values is None else _doubled(values)
        values[tuple(coords.T)] = guide
        wanted = _points_of(_near_level(values))
        stride //= 2
    end = len(axis)
    return _follow(density, places, wanted[:end, :end, :end].contiguous(), level, queries)


def dense_cells(density: Density, axis: Tensor, level: float) -> CrossedCells:
    """The same by asking for every point: the plain twin, which defines the answer."""
    return crossed_cells(density, axis, level, features=len(axis))


@dataclass(frozen=True)
class _Places:
    """The grid's points, and those beyond its end that make up a whole number of blocks: they stand
    where the last point stands, so nothing is ever crossed there.
    """

    axis: Tensor
    stride: int  # of the coarsest look

    def all(self) -> Tensor:
        """Every point at the coarsest stride: (n, n, n) bool."""
        blocks = -(-(len(self.axis) - 1) // self.stride)
        return torch.ones((blocks + 1,) * 3, dtype=torch.bool, device=self.axis.device)

    def at(self, coords: Tensor, stride: int) -> Tensor:
        """coords (N, 3) at this stride -> points (N, 3)."""
        return self.axis[(coords * stride).clamp(max=len(self.axis) - 1)]


def _coarsest_stride(cells: int, features: int) -> int:
    stride = 1
    while -(-cells // (2 * stride)) >= features:
        stride *= 2
    return stride


def _points_of(blocks: Tensor) -> Tensor:
    """Blocks (n, n, n) bool -> all points of theirs at half their size (2 n + 1, ...) bool."""
    for axis in range(3):
        along = blocks.movedim(axis, 0)
        points = along.new_zeros(2 * len(along) + 1, *along.shape[1:])
        points[1::2] = along
        points[:-1:2] = along
        points[2::2] |= along
        blocks = points.movedim(0, axis)
    return blocks


def _doubled(values: Tensor) -> Tensor:
    """Values at n points per axis -> at 2 n - 1, those between interpolated."""
    size = [2 * n - 1 for n in values.shape]
    doubled = F.interpolate(values[None, None], size=size, mode="trilinear", align_corners=True)
    doubled[0, 0, ::2, ::2, ::2] = values  # exactly
    return doubled[0, 0]


def _near_level(values: Tensor) -> Tensor:
    """Values (n, n, n), 0 at the level -> blocks (n - 1, n - 1, n - 1) bool to be looked into."""
    high = F.max_pool3d(values[None], 2, stride=1)
    low = -F.max_pool3d(-values[None], 2, stride=1)
    around = F.max_pool3d(high, 3, stride=1, padding=1)
    around += F.max_pool3d(-low, 3, stride=1, padding=1)  # the range of values
    around *= REACH
    return ((high + around >= 0) & (low - around <= 0))[0]


def _follow(
    density: Density, places: _Places, wanted: Tensor, level: float, queries: int
) -> CrossedCells:
    """Ask the wanted points of the full grid, then whatever crossed cells lack, until none does."""
    values = torch.empty(wanted.shape, device=wanted.device)
    inside, known = torch.zeros_like(wanted), torch.zeros_like(wanted)
    while True:
        coords = torch.nonzero(wanted)
        rows = tuple(coords.T)
        answers = density(places.at(coords, 1))
        queries += len(coords)
        values[rows], inside[rows], known[rows] = answers, answers >= level, True
        crossed = _any_corner(inside) & _any_corner(known & ~inside)
        unfinished = torch.nonzero(crossed & _any_corner(~known))
        if not len(unfinished):
            break
        wanted = torch.zeros_like(known)
        for offset in CORNER_OFFSETS.tolist():
            wanted[tuple((unfinished + unfinished.new_tensor(offset)).T)] = True
        wanted &= ~known
    cells = torch.nonzero(crossed)
    corners = [
        values[tuple((cells + cells.new_tensor(offset)).T)] for offset in CORNER_OFFSETS.tolist()
    ]
    return CrossedCells(cells, torch.stack(corners, dim=1), queries)


def _any_corner(points: Tensor) -> Tensor:
    """Points (n, n, n) bool -> cells (n - 1, n - 1, n - 1) with any of them as a corner."""
    cells = points[1:] | points[:-1]
    cells = cells[:, 1:] | cells[:, :-1]
    return cells[:, :, 1:] | cells[:, :, :-1]
