"""Blocks of the decoders and encoders of latents: convolutions on voxels that change resolution.

Each works in pieces of its rows, so that what it needs in between is bounded; a block that doubles
the resolution works out the voxels around a piece once more for it.

N voxels (coarse where there are finer ones), N' finer voxels, n voxels of a piece, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelook.errors import SurfaceError
from onelook.nn.norms import LayerNorm, layer_norm
from onelook.nn.pieces import in_pieces
from onelook.nn.sparse_conv import SubmanifoldConv, convolve_at, with_zero_row
from onelook.nn.subdivision import Subdivision
from onelook.nn.voxels import SparseTensor

EPS = 1e-6
# What a block may need in between, besides its input and its output.
WORKING_BYTES = 256 * 2**20
_TABLE_BYTES = 27 * (4 + 8)  # neighbours of a voxel, as rows and as indices

Finish = Callable[[Tensor], Tensor]  # rows (n, C) -> what is kept of them (n, C')


class ConvNeXtBlock(nn.Module):
    """Convolution, norm, two linear layers; plus the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = LayerNorm(channels, eps=EPS)
        self.conv = SubmanifoldConv(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels),
            nn.SiLU(inplace=True),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, C) -> (N, C) on the same voxels."""
        padded, table = with_zero_row(x.feats), x.voxels.neighbours
        out = torch.empty_like(x.feats)
        row_bytes = 7 * x.feats.shape[1] * x.feats.element_size() + _TABLE_BYTES
        for rows in _pieces(len(table), row_bytes):
            h = convolve_at(padded, table[rows], self.conv.weight, self.conv.bias)
            torch.add(x.feats[rows], self.mlp(self.norm(h)), out=out[rows])
        return x.with_feats(out)


@dataclass(frozen=True)
class Raised:
    """What doubling the resolution gives. logits (N, 8): above 0 where a child is, None where the
    children were given."""

    x: SparseTensor
    subdivision: Subdivision
    logits: Tensor | None


class UpBlock(nn.Module):
    """Two convolutions; between them each voxel's channels are shared out among its children."""

    def __init__(self, channels: int, out_channels: int, pred_subdiv: bool):
        super().__init__()
        self.out_channels = out_channels
        self.norm1 = LayerNorm(channels, eps=EPS)
        self.conv1 = SubmanifoldConv(channels, 8 * out_channels)
        self.conv2 = SubmanifoldConv(out_channels, out_channels)
        if pred_subdiv:
            self.to_subdiv = nn.Linear(channels, 8)

    def forward(
        self, x: SparseTensor, given: Subdivision | None = None, finish: Finish | None = None
    ) -> Raised:
        """x (N, C), and its children where it does not find them itself -> (N', C').

        finish: what is kept of each fine voxel; None: nothing is worked out but the voxels, C' = 0.
        Raises SurfaceError when no voxel has a child.
        """
        logits = None if given else self.to_subdiv(x.feats)
        subdivision = given or _subdivide(x, logits)
        if finish is None:
            feats = x.feats.new_empty(len(subdivision.fine), 0)
        else:
            feats = self._rows(x, subdivision, finish)
        return Raised(SparseTensor(feats, subdivision.fine), subdivision, logits)

    def _rows(self, x: SparseTensor, subdivision: Subdivision, finish: Finish) -> Tensor:
        normed = with_zero_row(F.silu(self.norm1(x.feats), inplace=True))
        fine, children = subdivision.fine, subdivision.children
        near_row = torch.empty(len(fine) + 1, dtype=torch.int32, device=x.feats.device)
        row_bytes = 8 * (5 * self.out_channels * x.feats.element_size() + _TABLE_BYTES)
        out = None
        for rows in _pieces(len(x.voxels), row_bytes):
            own = children[rows]
            is_there = own < len(fine)  # (n, 8)
            own = own[is_there].long()
            near, near_fine = self._children_near(normed, subdivision, rows)
            near_row[near_fine] = torch.arange(len(near_fine), dtype=torch.int32, device=own.device)
            near_row[-1] = len(near_fine)  # none
            table = near_row[fine.neighbours_of(own).long()]
            made = convolve_at(near, table, self.conv2.weight, self.conv2.bias)
            made += self._skip(x.feats[rows], is_there)
            made = finish(made)
            if out is None:
                out = made.new_empty(len(fine), made.shape[1])
            out[own] = made
        return out

    def _children_near(
        self, normed: Tensor, subdivision: Subdivision, rows: slice
    ) -> tuple[Tensor, Tensor]:
        """Rows (n + 1, C') of the children of some voxels and of all around them, the last one
        zero; and the fine row (n,) of each."""
        coarse, children = subdivision.coarse, subdivision.children
        table = coarse.neighbours
        if rows.stop - rows.start < len(coarse):
            around = torch.unique(table[rows])
            around = around[around < len(coarse)].long()
            table, children = table[around], children[around]
        is_there = children < len(subdivision.fine)
        near = self._spread(normed, table, is_there)
        near = F.silu(layer_norm(near, EPS), inplace=True)
        return with_zero_row(near), children[is_there].long()

    def _spread(self, normed: Tensor, table: Tensor, is_there: Tensor) -> Tensor:
        """The first convolution at some voxels, for those of their children that are there."""
        weight, bias = self.conv1.weight, self.conv1.bias
        if normed.is_cuda:  # gathering the neighbours once is worth working out all children
            return convolve_at(normed, table, weight, bias).unflatten(1, (8, -1))[is_there]
        out = normed.new_empty(int(is_there.sum()), self.out_channels)
        place = is_there.flatten().cumsum(0).view_as(is_there) - 1  # (n, 8): of each child in out
        weights, biases = weight.unflatten(0, (8, -1)), bias.view(8, -1)
        for slot in range(8):
            rows = is_there[:, slot].nonzero()[:, 0]
            made = convolve_at(normed, table[rows], weights[slot], biases[slot])
            out[place[rows, slot]] = made
        return out

    def _skip(self, feats: Tensor, is_there: Tensor) -> Tensor:
        """Each child's eighth of its voxel's channels, every channel as often as is missing."""
        eighths = feats.unflatten(1, (8, -1))[is_there]
        return eighths.repeat_interleave(self.out_channels // eighths.shape[1], dim=1)


class DownBlock(nn.Module):
    """Two convolutions; between them children lay their channels side by side."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.out_channels = out_channels
        self.norm1 = LayerNorm(channels, eps=EPS)
        self.conv1 = SubmanifoldConv(channels, out_channels // 8)
        self.conv2 = SubmanifoldConv(out_channels, out_channels)

    def forward(self, x: SparseTensor, subdivision: Subdivision) -> SparseTensor:
        """x (N', C) on the fine voxels -> (N, C') on the coarse ones."""
        h = F.silu(self.norm1(x.feats), inplace=True)
        h = convolve_at(
            with_zero_row(h), x.voxels.neighbours, self.conv1.weight, self.conv1.bias
        )  # (N', C' / 8)
        h = F.silu(layer_norm(side_by_side(h, subdivision.children), EPS), inplace=True)
        out = convolve_at(
            with_zero_row(h), subdivision.coarse.neighbours, self.conv2.weight, self.conv2.bias
        )
        padded = with_zero_row(x.feats)

        def mean(children: Tensor) -> Tensor:
            return padded[children].flatten(1).unflatten(1, (self.out_channels, -1)).mean(-1)

        row_bytes = 8 * x.feats.shape[1] * x.feats.element_size()
        out += in_pieces(mean, subdivision.children, row_bytes=row_bytes)
        return SparseTensor(out, subdivision.coarse)


def side_by_side(feats: Tensor, children: Tensor) -> Tensor:
    """feats (N', C) -> (N, 8 C): the children's rows by slot, zeros where there is none."""
    return with_zero_row(feats)[children].flatten(1)


def _subdivide(x: SparseTensor, logits: Tensor) -> Subdivision:
    mask = logits > 0
    if not bool(mask.any()):
        raise SurfaceError("the decoder found no voxel to subdivide, so there is no surface")
    return Subdivision.of_mask(x.voxels, mask)


def _pieces(count: int, row_bytes: int) -> Iterator[slice]:
    """Rows 0..count - 1 in as few equal pieces as WORKING_BYTES allows."""
    number = max(1, -(-count * row_bytes // WORKING_BYTES))
    step = -(-count // number)
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))
