"""Places of a lattice as sorted numbers: neighbours found without an array over the whole cube.

A place (x, y, z) becomes one integer, x slowest and z fastest, so sorted numbers are places in the
order of a full grid, a neighbour is a constant step away, and looking one up is a binary search.
Runs on the device of its tensors; the same answer everywhere.

N places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lattice:
    """Numbers for places within a box, with one place of margin on every side.

    low: lowest place of the box on each axis; size: places per axis, margin included.
    """

    low: tuple[int, int, int]
    size: tuple[int, int, int]

    @staticmethod
    def around(low: Tensor, high: Tensor) -> Lattice:
        """The lattice from place `low` to place `high`, both (3,) integer and included.

        Raises ValueError when the box holds 2^62 places or more.
        """
        first = tuple(low.tolist())
        size = tuple(b - a + 3 for a, b in zip(first, high.tolist(), strict=True))
        if math.prod(size) >= 1 << 62:
            raise ValueError(f"places must lie within fewer than 2^62, they span {size}")
        return Lattice(first, size)

    def step(self, x: int, y: int, z: int) -> int:
        """What to add to a number to move by (x, y, z)."""
        return (x * self.size[1] + y) * self.size[2] + z

    def keys(self, places: Tensor) -> Tensor:
        """places (N, 3) integer -> numbers (N,) int64."""
        x, y, z = (places[:, axis].long() - self.low[axis] + 1 for axis in range(3))
        return (x * self.size[1] + y) * self.size[2] + z

    def places(self, keys: Tensor) -> Tensor:
        """numbers (N,) -> places (N, 3) int64."""
        rows, z = keys // self.size[2], keys % self.size[2]
        x, y = rows // self.size[1], rows % self.size[1]
        return torch.stack([axis + self.low[i] - 1 for i, axis in enumerate((x, y, z))], dim=1)

    def grown(self, keys: Tensor, direction: int) -> Tensor:
        """Sorted unique numbers and those of the unit box on one side of each, sorted and unique.

        direction 1: the 8 corners of each cell; -1: the 8 cells round each corner.
        """
        for step in (self.step(0, 0, 1), self.step(0, 1, 0), self.step(1, 0, 0)):
            keys = sorted_unique(torch.cat([keys, keys + direction * step]))
        return keys


def sorted_unique(keys: Tensor) -> Tensor:
    """(N,) integers -> each value once, ascending."""
    ordered = torch.sort(keys).values
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first]


def find(keys: Tensor, wanted: Tensor) -> Tensor:
    """Where `wanted` (any shape) stands in `keys` (N,), sorted and unique: int64, -1 if absent."""
    at = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    return torch.where(keys[at] == wanted, at, -1)
