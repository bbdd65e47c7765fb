"""Submanifold convolution: outputs only where there are voxels, missing neighbours count as zero.

Weights lie as [Cout, 3, 3, 3, Cin], axes x, y, z: out[p] = b + sum over k of W[:, k] x[p + k - 1].

N voxels, Cin and Cout channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelook.nn.gpu_convolution import KINDS, gpu_convolution
from onelook.nn.voxels import SparseTensor, Voxels, present_pairs

# Bytes of neighbours gathered per step: on a CPU little enough to stay in its cache.
GATHERED_BYTES_CPU = 8 * 2**20
GATHERED_BYTES_GPU = 512 * 2**20
ROWS_PER_STEP = 256  # at least, or the matrix product becomes slow
# From this many output channels on, a CPU is faster without the products of absent neighbours.
WIDE_CHANNELS = 128
# The same where pairs are not kept but found anew: products of input and output channels; and how
# many rows at a time, so that sums stay in its cache.
WIDE_PRODUCT = 64 * 64
ROWS_OF_PAIRS = 4096


class SubmanifoldConv(nn.Module):
    """3x3x3 submanifold convolution with bias."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, 3, 3, 3, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))
        nn.init.kaiming_uniform_(self.weight.view(out_channels, -1), a=5**0.5)
        nn.init.zeros_(self.bias)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, Cin) -> (N, Cout) on the same voxels."""
        return x.with_feats(convolve(x.feats, x.voxels, self.weight, self.bias))


class PointwiseConv(nn.Module):
    """1x1x1 convolution as the official checkpoints of the mesh decoder were trained with it.

    spconv multiplies by the stored [Cout, 1, 1, 1, Cin] buffer read as [Cin, Cout]: not by the
    transpose, although the shape suggests it (github.com/traveller59/spconv, issue 450).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, 1, 1, 1, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))
        nn.init.kaiming_uniform_(self.weight.view(out_channels, -1), a=5**0.5)
        nn.init.zeros_(self.bias)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, Cin) -> (N, Cout) on the same voxels."""
        as_read = self.weight.reshape(x.feats.shape[1], -1)  # (Cin, Cout)
        return x.with_feats(torch.addmm(self.bias, x.feats, as_read))


def convolve(feats: Tensor, voxels: Voxels, weight: Tensor, bias: Tensor) -> Tensor:
    """feats (N, Cin), weight (Cout, 3, 3, 3, Cin), bias (Cout,) -> (N, Cout).

    Right, and the same in every run, at any number of threads: nothing is added to a row from two
    places at a time.
    """
    if feats.is_cuda and feats.dtype in KINDS and (by_spconv := gpu_convolution().convolve):
        return by_spconv(feats, voxels, weight, bias)
    if feats.is_cuda or len(weight) < WIDE_CHANNELS:
        return _multiply_gathered(with_zero_row(feats), voxels.neighbours, weight.flatten(1), bias)
    return _multiply_pairs(feats, voxels.pairs, len(feats), weight, bias)


def convolve_at(padded: Tensor, table: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`convolve` at some places: padded (N + 1, Cin), see `with_zero_row`; table (n, 27) int32, the
    row of each neighbour or N -> (n, Cout)."""
    if padded.is_cuda or len(weight) * weight.shape[-1] < WIDE_PRODUCT:
        return _multiply_gathered(padded, table, weight.flatten(1), bias)
    out = padded.new_empty(len(table), len(weight))
    for rows, part in zip(table.split(ROWS_OF_PAIRS), out.split(ROWS_OF_PAIRS), strict=True):
        pairs = present_pairs(rows, len(padded) - 1)
        part.copy_(_multiply_pairs(padded, pairs, len(rows), weight, bias))
    return out


def with_zero_row(feats: Tensor) -> Tensor:
    """(N, C) -> (N + 1, C): what absent neighbours are counted as comes last."""
    return F.pad(feats, (0, 0, 0, 1))


def convolve_upsampled(feats: Tensor, fine: Voxels, weight: Tensor, bias: Tensor) -> Tensor:
    """`convolve` on `fine`, where each voxel has its coarse cell's row of feats.

    feats (M, Cin) on `fine.halving.coarse`, M < N -> (N, Cout). Cells are multiplied with every tap
    once; a voxel then adds up what its neighbours' cells gave.
    """
    cout, taps = len(weight), 27
    by_tap = weight.flatten(1, 3).transpose(0, 1).reshape(taps * cout, -1)
    products = F.linear(feats, by_tap).view(-1, cout)  # (M * 27, Cout)
    products = torch.cat([products, products.new_zeros(1, cout)])
    none = len(products) - 1
    out = F.embedding_bag(fine.cell_taps, products, mode="sum", padding_idx=none)
    return out + bias


def convolve_subdivided(feats: Tensor, voxels: Voxels, weight: Tensor, bias: Tensor) -> Tensor:
    """`convolve` on `voxels.subdivided`, where each voxel's 8 children have its row of feats.

    feats (N, Cin) -> (8 N, Cout). The 27 neighbours of a child lie in 2 x 2 x 2 voxels, so taps
    that meet the same voxel are added up first: 8 products instead of 27.
    """
    out = feats.new_empty(len(feats), 8, len(weight))
    padded = with_zero_row(feats)
    for child in range(8):
        columns, folded = _fold(weight, child)
        table = voxels.neighbours[:, columns]
        out[:, child] = _multiply_gathered(padded, table, folded, bias)
    return out.flatten(0, 1)


def convolve_plain(feats: Tensor, voxels: Voxels, weight: Tensor, bias: Tensor) -> Tensor:
    """The plain twin of `convolve`: a dense convolution over the whole box, read at the voxels."""
    item, x, y, z = voxels.coords.long().unbind(1)
    size = voxels.coords[:, 1:].amax(0) + 1
    grid = feats.new_zeros(len(voxels.lengths), *size.tolist(), feats.shape[1])
    grid[item, x, y, z] = feats
    out = F.conv3d(grid.movedim(-1, 1), weight.permute(0, 4, 1, 2, 3), bias, padding=1)
    return out.movedim(1, -1)[item, x, y, z]


def _multiply_gathered(padded: Tensor, table: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """padded (N + 1, Cin), table (M, K) int32 rows of it, weight (Cout, K * Cin) -> (M, Cout).

    Neighbours side by side, then one matrix product; absent ones are the row of zeros.
    """
    limit = GATHERED_BYTES_GPU if padded.is_cuda else GATHERED_BYTES_CPU
    step = max(ROWS_PER_STEP, limit // (weight.shape[1] * padded.element_size()))
    out = padded.new_empty(len(table), len(weight))
    for first in range(0, len(table), step):
        rows = table[first : first + step]
        gathered = padded.index_select(0, rows.flatten()).view(len(rows), -1)  # (step, K * Cin)
        torch.addmm(bias, gathered, weight.T, out=out[first : first + step])
    return out


def _multiply_pairs(
    feats: Tensor, pairs: list[tuple[Tensor, Tensor]], count: int, weight: Tensor, bias: Tensor
) -> Tensor:
    """One matrix product per tap, of present neighbours only, summed in float32: (count, Cout)."""
    taps = weight.flatten(1, 3)  # (Cout, 27, Cin)
    out = bias.float().repeat(count, 1)
    for tap, (rows, sources) in enumerate(pairs):
        product = feats.index_select(0, sources) @ taps[:, tap].T
        out.index_add_(0, rows, product.float())  # each row once
    return out.to(feats.dtype)


def _fold(weight: Tensor, child: int) -> tuple[Tensor, Tensor]:
    """The columns of `Voxels.neighbours` that a child's neighbours lie in, and the taps summed for
    each of them: (8,) int64, (Cout, 8 * Cin)."""
    bits = (child >> 2, (child >> 1) & 1, child & 1)
    columns = torch.zeros(1, dtype=torch.long)
    folded = weight.float()
    for axis, bit in enumerate(bits):
        low, middle, high = folded.unbind(1 + axis)
        # bit 0 sees the voxel below with one tap and its own with two; bit 1 its own and the upper
        folded = torch.stack([low + middle, high] if bit else [low, middle + high], dim=1 + axis)
        columns = (3 * columns[:, None] + torch.tensor([bit, bit + 1])).flatten()
    return columns.to(weight.device), folded.flatten(1).to(weight.dtype)
