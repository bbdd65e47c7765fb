"""Voxels and the finer ones inside them: which child of which voxel there is.

A child's neighbours are children of its parent's neighbours, so on a pyramid of voxel sets only the
coarsest needs a search; on all others neighbours are found by looking them up.

Slot of a child: x % 2 + 2 (y % 2) + 4 (z % 2). N fine voxels, M coarse voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from onelook.nn.pieces import in_pieces
from onelook.nn.voxels import Voxels

# Halving's children lie in the order 4 (x % 2) + 2 (y % 2) + (z % 2).
_SLOTS_OF_HALVING = (0, 4, 2, 6, 1, 5, 3, 7)
_ROW_BYTES = 27 * (8 + 4 + 4)  # to look the neighbours of a voxel up: int64 places, int32 rows


class Children(Voxels):
    """Voxels inside those of a coarser set."""

    def __init__(
        self,
        coords: Tensor,
        lengths: list[int],
        coarse: Voxels,
        parent: Tensor,
        children: Tensor,
    ):
        """parent (N,), children (M, 8): as in `Subdivision`."""
        super().__init__(coords, lengths)
        self._coarse = coarse
        self._parent = parent
        self._children = torch.cat([children, children.new_full((1, 8), len(coords))]).flatten()

    @cached_property
    def neighbours(self) -> Tensor:
        """As of every set of voxels: (N, 27) int32."""
        return in_pieces(
            self._look_up, torch.arange(len(self), device=self.coords.device), row_bytes=_ROW_BYTES
        )

    def neighbours_of(self, rows: Tensor) -> Tensor:
        """`neighbours[rows]`, without making all of it."""
        return self.neighbours[rows] if "neighbours" in vars(self) else self._look_up(rows)

    def _look_up(self, rows: Tensor) -> Tensor:
        coarse_column, slot = (table.to(rows.device) for table in _taps_of_children())
        bits = self.coords[rows, 1:] & 1
        own_slot = (bits[:, 0] + 2 * bits[:, 1] + 4 * bits[:, 2]).long()
        beside = self._coarse.neighbours[self._parent[rows].long()]  # (n, 27)
        cells = beside.gather(1, coarse_column[own_slot])  # (n, 27): parents of the neighbours
        places = cells.long().mul_(8).add_(slot[own_slot])
        return self._children[places]


@dataclass(frozen=True)
class Subdivision:
    """The voxels `fine` inside the voxels `coarse`.

    children (M, 8) int32: the fine row in each slot, N where there is none; parent (N,) int32.
    """

    coarse: Voxels
    fine: Voxels
    children: Tensor
    parent: Tensor

    @staticmethod
    def of_mask(coarse: Voxels, mask: Tensor) -> Subdivision:
        """mask (M, 8) bool: which children there are -> fine voxels parent by parent, by slot.

        Raises ValueError when there is none.
        """
        places = mask.flatten().nonzero()[:, 0]
        children = torch.full_like(mask, len(places), dtype=torch.int32)
        children.view(-1)[places] = torch.arange(len(places), dtype=torch.int32, device=mask.device)
        parent, slot = (places // 8).int(), places % 8
        bits = torch.stack([torch.zeros_like(slot), slot & 1, (slot >> 1) & 1, slot >> 2], 1)
        double = coarse.coords.new_tensor([1, 2, 2, 2])
        coords = (coarse.coords[parent] * double).add_(bits)
        lengths = torch.bincount(coords[:, 0], minlength=len(coarse.lengths)).tolist()
        fine = Children(coords, lengths, coarse, parent, children)
        return Subdivision(coarse, fine, children, parent)

    @staticmethod
    def of_halving(fine: Voxels, coarse: Voxels) -> Subdivision:
        """coarse: the voxels of `fine.halving.coarse`. The fine rows keep their order."""
        halving = fine.halving
        children = halving.children[:, list(_SLOTS_OF_HALVING)].int().contiguous()
        parent = halving.parent.int()
        rows = Children(fine.coords, fine.lengths, coarse, parent, children)
        return Subdivision(coarse, rows, children, parent)


def pyramid(voxels: Voxels, levels: int) -> list[Subdivision]:
    """`voxels` and the sets at half, a quarter, ... of the resolution: finest first."""
    sets = [voxels]
    for _ in range(levels):
        sets.append(sets[-1].halving.coarse)
    coarse, found = sets[-1], []
    for fine in sets[-2::-1]:
        found.append(Subdivision.of_halving(fine, coarse))
        coarse = found[-1].fine
    return found[::-1]


@cache
def _taps_of_children() -> tuple[Tensor, Tensor]:
    """For a child in each slot and each of its 27 neighbours: the column of the neighbour's parent
    among the neighbours of its own, and the neighbour's slot; (8, 27) int64 each."""
    slots = torch.arange(8)
    bits = torch.stack([slots & 1, (slots >> 1) & 1, slots >> 2], 1)  # (8, 3)
    steps = torch.cartesian_prod(*3 * [torch.arange(-1, 2)])  # (27, 3)
    at = bits[:, None] + steps  # (8, 27, 3), in children
    column = ((at // 2 + 1) * torch.tensor([9, 3, 1])).sum(-1)
    slot = (at % 2 * torch.tensor([1, 2, 4])).sum(-1)
    return column, slot
