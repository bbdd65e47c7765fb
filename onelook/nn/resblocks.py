"""Residual blocks on sparse tensors: around the latent flow model's transformer, and in the mesh
decoder.

N voxels, C channels, B items.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from onelook.nn.norms import LayerNorm, RowGroupNorm, modulated_norm
from onelook.nn.sparse_conv import (
    PointwiseConv,
    SubmanifoldConv,
    convolve_subdivided,
    convolve_upsampled,
)
from onelook.nn.voxels import SparseTensor, Voxels, downsample, upsample

EPS = 1e-6
GROUPS = 32


class WrappedConv(nn.Module):
    """A convolution under the name `conv`, where official checkpoints have it."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3):
        super().__init__()
        kind = {1: PointwiseConv, 3: SubmanifoldConv}[kernel_size]
        self.conv = kind(in_channels, out_channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return self.conv(x)


class SparseResBlock(nn.Module):
    """Two convolutions, the second modulated by time; optionally at half or double resolution."""

    def __init__(
        self,
        in_channels: int,
        emb_channels: int,
        out_channels: int,
        halve: bool = False,
        double: bool = False,
    ):
        super().__init__()
        self.halve, self.double = halve, double
        self.norm1 = LayerNorm(in_channels, eps=EPS)
        self.conv1 = WrappedConv(in_channels, out_channels)
        self.conv2 = WrappedConv(out_channels, out_channels)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels))
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Linear(in_channels, out_channels)

    def forward(self, x: SparseTensor, emb: Tensor, fine: Voxels | None = None) -> SparseTensor:
        """x (N, Cin), emb (B or 1, Cemb); fine: the voxels to double to -> (N', Cout).

        Doubling copies rows, so that what comes first is worked out on the coarse ones.
        """
        if self.halve:
            x = downsample(x)
        h, skip = F.silu(self.norm1(x.feats)), x.with_feats(self.skip_connection(x.feats))
        if self.double:
            conv = self.conv1.conv
            h = SparseTensor(convolve_upsampled(h, fine, conv.weight, conv.bias), fine)
            skip = upsample(skip, fine)
        else:
            h = self.conv1(x.with_feats(h))
        scale, shift = h.voxels.layout.spread(self.emb_layers(emb)).chunk(2, dim=-1)
        h = self.conv2(h.with_feats(F.silu(modulated_norm(h.feats, shift, scale, EPS))))
        return h.with_feats(h.feats + skip.feats)


class SubdivideBlock(nn.Module):
    """Double the resolution: norm, SiLU, subdivide, convolution, norm, SiLU, convolution."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.act_layers = nn.Sequential(RowGroupNorm(GROUPS, in_channels), nn.SiLU())
        self.out_layers = nn.Sequential(
            WrappedConv(in_channels, out_channels),
            RowGroupNorm(GROUPS, out_channels),
            nn.SiLU(),
            WrappedConv(out_channels, out_channels),
        )
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else WrappedConv(in_channels, out_channels, 1)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, Cin) -> (8 N, Cout) on the subdivided voxels.

        The first convolution and the skip are worked out on the coarse rows: the children of a
        voxel begin as copies of it.
        """
        norm1, conv1, norm2, conv2 = (
            self.act_layers[0],
            self.out_layers[0].conv,
            self.out_layers[1],
            self.out_layers[3],
        )
        fine = x.voxels.subdivided
        h = F.silu(norm1(x.feats, x.voxels.lengths))
        h = convolve_subdivided(h, x.voxels, conv1.weight, conv1.bias)  # (8 N, Cout)
        h = F.silu(norm2(h, fine.lengths))
        h = conv2(SparseTensor(h, fine)).feats
        out = h.unflatten(0, (-1, 8)) + self.skip_connection(x).feats[:, None]
        return SparseTensor(out.flatten(0, 1), fine)
