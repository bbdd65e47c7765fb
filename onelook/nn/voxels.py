"""A set of occupied voxels, and features on it.

What depends on the set alone (neighbours, windows, coarser and finer sets) is worked out when first
asked for and kept with it: a sampler visits the same set many times.

N voxels, T rows = N, M coarser voxels, C channels, B items of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from onelook.nn.attention import Groups
from onelook.nn.layout import Rows
from onelook.nn.rotary import rotary_phases

# Up to this many cells a neighbour is found in a table of the whole box, above it by bisection.
TABLE_CELLS = 2**25
REACH = 1  # of a 3x3x3 kernel


class Voxels:
    """coords (N, 4) int32: item, x, y, z >= 0; each voxel once, the rows of an item together."""

    def __init__(self, coords: Tensor, lengths: list[int] | None = None):
        """lengths: voxels per item, counted here when not given.

        Raises ValueError when coords have another shape, or an item's rows do not lie together.
        """
        if coords.ndim != 2 or coords.shape[1] != 4 or not len(coords):
            raise ValueError(f"coords must be (N, 4) with N > 0, got {tuple(coords.shape)}")
        self.coords = coords
        if lengths is None:
            item = coords[:, 0]
            if bool((item[1:] < item[:-1]).any()):
                raise ValueError("the voxels of an item must lie together, items in order")
            lengths = torch.bincount(item).tolist()
        self.lengths = lengths
        self._windows: dict[tuple[int, int], Groups] = {}
        self._phases: dict[int, Tensor] = {}
        self.of_spconv: dict[str, Any] = {}  # what spconv works out, where it is used

    def __len__(self) -> int:
        return len(self.coords)

    @cached_property
    def layout(self) -> Rows:
        """The rows as tokens of a transformer."""
        return Rows(self.lengths, self.coords.device)

    def windows(self, size: int, shift: int) -> Groups:
        """Voxels of an item grouped by the window floor((xyz + shift) / size) they lie in."""
        if (size, shift) not in self._windows:
            self._windows[size, shift] = Groups(self.window_number(size, shift))
        return self._windows[size, shift]

    def phases(self, head_width: int) -> Tensor:
        """(N, D / 2) complex64: the voxels' places for heads of width D; see `rotary_phases`."""
        if head_width not in self._phases:
            self._phases[head_width] = rotary_phases(self.coords[:, 1:], head_width)
        return self._phases[head_width]

    def window_number(self, size: int, shift: int) -> Tensor:
        """(N,) int64: the number of each voxel's window, ascending by item, x, y, z."""
        return _numbers(torch.cat([self.coords[:, :1], (self.coords[:, 1:] + shift) // size], 1), 0)

    @cached_property
    def neighbours(self) -> Tensor:
        """(N, 27) int32: row of the voxel at x + i - 1, y + j - 1, z + k - 1 in column
        9 i + 3 j + k; N where there is none."""
        numbers, strides = _numbers_and_strides(self.coords, REACH)
        steps = torch.arange(-REACH, REACH + 1, device=numbers.device)
        offsets = (
            steps[:, None, None] * strides[1] + steps[:, None] * strides[2] + steps * strides[3]
        ).flatten()  # (27,)
        rows = torch.arange(len(self), dtype=torch.int32, device=numbers.device)
        cells = int(strides[0]) * len(self.lengths)
        found = torch.empty(27, len(self), dtype=torch.int32, device=numbers.device)
        if cells <= TABLE_CELLS:
            table = rows.new_full((cells,), len(self))
            table[numbers] = rows
            for column, offset in enumerate(offsets.tolist()):
                torch.index_select(table, 0, numbers + offset, out=found[column])
        else:
            ascending, order = numbers.sort()
            for column, offset in enumerate(offsets.tolist()):
                place = torch.searchsorted(ascending, numbers + offset).clamp_(max=len(self) - 1)
                is_there = ascending[place] == numbers + offset
                found[column] = torch.where(is_there, rows[order[place]], len(self))
        return found.T.contiguous()

    def neighbours_of(self, rows: Tensor) -> Tensor:
        """`neighbours[rows]`."""
        return self.neighbours[rows]

    @cached_property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Per column of `neighbours` the rows (int64) that have one there, and its row."""
        return present_pairs(self.neighbours, len(self))

    @cached_property
    def cell_taps(self) -> Tensor:
        """(N, 27) int64: 27 * row + column, with the row in `halving.coarse` of the neighbour in
        that column of `neighbours`; 27 * M where there is none."""
        cells = torch.cat([self.halving.parent, self.halving.parent.new_zeros(1)])
        columns = torch.arange(27, device=cells.device)
        is_there = self.neighbours < len(self)
        numbers = 27 * cells[self.neighbours.long()] + columns
        return torch.where(is_there, numbers, 27 * len(self.halving.coarse))

    @cached_property
    def halving(self) -> Halving:
        """The set at half the resolution."""
        cells = self.coords.clone()
        cells[:, 1:] //= 2
        numbers = _numbers(cells, 0)
        ascending, parent = torch.unique(numbers, return_inverse=True)
        coarse = cells.new_empty(len(ascending), 4)
        coarse[parent] = cells
        bits = self.coords[:, 1:] & 1
        slot = (bits[:, 0] * 4 + bits[:, 1] * 2 + bits[:, 2]).long()
        children = parent.new_full((len(ascending), 8), len(self))
        children[parent, slot] = torch.arange(len(self), device=parent.device)
        return Halving(Voxels(coarse), parent, children)

    @cached_property
    def subdivided(self) -> Voxels:
        """The set at double the resolution: each voxel becomes 8 rows, z fastest."""
        bits = torch.arange(8, dtype=self.coords.dtype, device=self.coords.device)
        corner = torch.stack([bits * 0, bits >> 2, (bits >> 1) & 1, bits & 1], dim=1)  # (8, 4)
        scale = self.coords.new_tensor([1, 2, 2, 2])
        fine = (self.coords * scale)[:, None] + corner
        return Voxels(fine.flatten(0, 1), [8 * length for length in self.lengths])


@dataclass(frozen=True)
class Halving:
    """coarse: M voxels ascending by item, x, y, z; parent (N,) int64: row in coarse of each fine
    voxel; children (M, 8) int64: the fine rows of each coarse voxel, N where there is none."""

    coarse: Voxels
    parent: Tensor
    children: Tensor


@dataclass(frozen=True)
class SparseTensor:
    """feats (N, C) on voxels, row by row."""

    feats: Tensor
    voxels: Voxels

    def __post_init__(self) -> None:
        if len(self.feats) != len(self.voxels):
            raise ValueError(f"{len(self.feats)} rows of features on {len(self.voxels)} voxels")

    def with_feats(self, feats: Tensor) -> SparseTensor:
        return SparseTensor(feats, self.voxels)

    def items(self) -> list[SparseTensor]:
        """Each item of the batch by itself, numbered 0."""
        if len(self.voxels.lengths) == 1:
            return [self]
        lengths = self.voxels.lengths
        parts = zip(self.feats.split(lengths), self.voxels.coords.split(lengths), strict=True)
        zero = self.voxels.coords.new_tensor([0, 1, 1, 1])
        return [SparseTensor(feats, Voxels(coords * zero)) for feats, coords in parts]


def downsample(x: SparseTensor) -> SparseTensor:
    """Half the resolution: the sum of a cell's voxels over their number plus one.

    Plus one because the original's mean counts the zero it starts from, and its weights know that.
    """
    halving = x.voxels.halving
    padded = torch.cat([x.feats, x.feats.new_zeros(1, x.feats.shape[1])])
    count = (halving.children < len(x.voxels)).sum(1, keepdim=True)
    return SparseTensor(padded[halving.children].sum(1) / (count + 1), halving.coarse)


def upsample(x: SparseTensor, fine: Voxels) -> SparseTensor:
    """Back to the set that `x` was halved from: each voxel takes its cell's row."""
    return SparseTensor(x.feats[fine.halving.parent], fine)


def subdivide(x: SparseTensor) -> SparseTensor:
    """Double resolution: each voxel becomes 8 with its row, consecutive, z fastest."""
    return SparseTensor(x.feats.repeat_interleave(8, dim=0), x.voxels.subdivided)


def present_pairs(table: Tensor, none: int) -> list[tuple[Tensor, Tensor]]:
    """table (n, 27), `none` where there is no neighbour -> per column the rows of the table (int64)
    that have one, and what stands there."""
    out = []
    for column in table.T:
        rows = (column < none).nonzero()[:, 0]
        out.append((rows, column[rows].long()))
    return out


def _numbers(coords: Tensor, margin: int) -> Tensor:
    return _numbers_and_strides(coords, margin)[0]


def _numbers_and_strides(coords: Tensor, margin: int) -> tuple[Tensor, Tensor]:
    """coords (N, 4) -> (N,) int64 cell numbers in their box, `margin` empty cells all around it,
    ascending by item, x, y, z; and how far one step along each column is."""
    box = coords[:, 1:].amax(0).long() + 1 + 2 * margin
    x, y, z = box.tolist()
    strides = torch.tensor([x * y * z, y * z, z, 1], device=coords.device)
    low = torch.tensor([0, margin, margin, margin], device=coords.device)
    return ((coords.long() + low) * strides).sum(1), strides
