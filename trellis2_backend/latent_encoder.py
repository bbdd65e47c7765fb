"""Encoders to a structured latent, a sixteenth of the resolution; the shape's serves texturing.

N voxels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from onelook.nn.inner_type import inner_type
from onelook.nn.norms import layer_norm
from onelook.nn.subdivision import Subdivision
from onelook.nn.voxels import SparseTensor
from trellis2_backend.config import EncoderConfig
from trellis2_backend.latent_decoder import FINAL_EPS
from trellis2_backend.sparse_blocks import ConvNeXtBlock, DownBlock


class SparseUnetVaeEncoder(nn.Module):
    """Features (N', C) on voxels -> the mean of their latent (N, C')."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        widths = config.model_channels
        self.input_layer = nn.Linear(config.in_channels, widths[0])
        self.blocks = nn.ModuleList()
        for count, (width, coarser) in zip(
            config.num_blocks, pairwise((*widths, None)), strict=True
        ):
            stage = nn.ModuleList(ConvNeXtBlock(width) for _ in range(count))
            if coarser is not None:
                stage.append(DownBlock(width, coarser))
            self.blocks.append(stage)
        self.to_latent = nn.Linear(widths[-1], 2 * config.latent_channels)

    def forward(self, feats: Tensor, levels: Sequence[Subdivision]) -> SparseTensor:
        """feats (N', C) float32 on the finest of `levels`, see `pyramid` -> (N, C') float32."""
        h = SparseTensor(self.input_layer(feats).to(inner_type(self.blocks)), levels[0].fine)
        for level, stage in enumerate(self.blocks):
            *plain, down = stage if level < self.config.doublings else [*stage, None]
            for block in plain:
                h = block(h)
            if down is not None:
                h = down(h, levels[level])
        rows = layer_norm(h.feats.to(feats.dtype), FINAL_EPS)
        mean, _log_variance = self.to_latent(rows).chunk(2, dim=1)
        return h.with_feats(mean)


class FlexiDualGridVaeEncoder(SparseUnetVaeEncoder):
    """A dual grid -> the mean of the shape's latent."""

    @staticmethod
    def features(offsets: Tensor, intersected: Tensor) -> Tensor:
        """offsets (N', 3) in voxels from the voxel's corner, intersected (N', 3) bool ->
        what it takes: (N', 6), about 0."""
        return torch.cat([offsets - 0.5, intersected.to(offsets.dtype) - 0.5], dim=1)
