"""Decoder of the shape's latent to a dual grid: a vertex per voxel, and which edges are crossed.

N voxels, C channels.
"""

from __future__ import annotations

import torch.nn.functional as F

from onelook.nn.voxels import SparseTensor
from trellis2_backend.config import ShapeDecoderConfig
from trellis2_backend.dual_grid import DualGrid
from trellis2_backend.latent_decoder import SparseUnetVaeDecoder


class FlexiDualGridVaeDecoder(SparseUnetVaeDecoder):
    """Latent (N, C) -> seven numbers (N', 7) on the finest voxels; `dual_grids` reads them."""

    config: ShapeDecoderConfig

    def dual_grids(self, out: SparseTensor, resolution: int) -> list[DualGrid]:
        """out (N', 7) float32 -> the dual grid of each item, `resolution` voxels to an axis."""
        margin = self.config.voxel_margin
        grids = []
        for item in out.items():
            vertex, crossed, weight = item.feats.split([3, 3, 1], dim=1)
            grids.append(
                DualGrid(
                    item.voxels.coords[:, 1:],
                    (1 + 2 * margin) * vertex.sigmoid() - margin,
                    crossed > 0,
                    resolution,
                    F.softplus(weight[:, 0]),
                )
            )
        return grids
